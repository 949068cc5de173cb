"""All that one service's commands change: an engine, its policy, tenants, what they use, and resource pools."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.decide.engine import Engine
from ...placement.filters.resource_pools import POOLS_HINT, ResourcePoolFilter
from ...placement.fleet.fleet import Fleet
from ...placement.persist import file as fleet_file
from ...placement.policy.policy import Policy
from ...placement.types.errors import InvalidValue, NoValidHost
from ...placement.types.host import Aggregate
from ...placement.types.request import Request, RequestSpec
from ..errors import DataDamaged
from ..tenancy.pools import Pools
from ..tenancy.tenants import Tenants
from ..tenancy.usage import INSTANCES, Usage
from .engine_commands import Asked, Specs
from .phase_timing import PhaseSampler

FORMAT: Final = 1

PolicyValues = dict[str, dict[str, Any]]
"""Group -> option -> value, as ``Policy.from_mapping`` reads it."""


class _Kept(msgspec.Struct):
    """All but the fleet, as a snapshot holds it."""

    format: int
    sequence: int
    seed: int
    policy: PolicyValues
    tenants: Tenants
    usage: Usage
    pools: Pools


def service_policy(values: Mapping[str, Mapping[str, Any]]) -> Policy:
    """A policy with the filter that resource pools need. Errors as ``Policy.from_mapping``'s."""
    try:
        content = msgspec.json.encode(values, order="deterministic")
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidValue(f"the policy is not plain: {error}", field="policy") from None
    return _policy(content)


@functools.lru_cache(maxsize=8)
def _policy(content: bytes) -> Policy:
    """Looking for installed rules takes longer than all else."""
    return Policy.from_mapping(msgspec.json.decode(content), filters=(ResourcePoolFilter,))


class ServiceState:
    """The state of one service; it knows no commands."""

    def __init__(self) -> None:
        self.policy: PolicyValues = {}
        self.engine = Engine(Fleet(), service_policy(self.policy))
        self.specs = Specs()
        self.tenants, self.usage, self.pools = Tenants(), Usage(), Pools()
        self.sampler: PhaseSampler | None = None
        """Measures some of the placements, where somebody wants to know."""
        self._pooled: dict[tuple[int, tuple[str, ...]], tuple[RequestSpec, RequestSpec]] = {}

    @property
    def fleet(self) -> Fleet:
        """The fleet as the engine sees it."""
        return self.engine.fleet

    # requests

    def request(self, asked: Asked, now: float | None, uuids: tuple[str, ...] | None = None) -> Request:
        """The request that was asked for, with the pools of its project, and with other ``uuids`` if they are given.
        InvalidValue or UnknownName if it is none."""
        spec = self.specs.of(asked.spec)
        if POOLS_HINT in spec.scheduler_hints:
            raise InvalidValue(f"the hint {POOLS_HINT} is the service's own", field="spec.scheduler_hints")
        if self.pools.pools:
            granted = self.pools.granted(self.tenants, asked.project_id)
            spec = self._with_pools(spec, granted) if granted else spec
        return Request(
            spec=spec,
            instance_uuids=asked.instance_uuids if uuids is None else uuids,
            project_id=asked.project_id,
            user_id=asked.user_id,
            server_group=asked.server_group,
            now=now,
            alternates=asked.alternates,
            request_id=asked.request_id,
        )

    def _with_pools(self, spec: RequestSpec, granted: tuple[str, ...]) -> RequestSpec:
        """The spec with its pools; the same object each time, so that the engine knows it again."""
        known = self._pooled.get((id(spec), granted))
        if known is None:
            if len(self._pooled) > 20_000:
                self._pooled.clear()
            hints = {**spec.scheduler_hints, POOLS_HINT: granted}
            known = self._pooled[id(spec), granted] = (spec, replace(spec, scheduler_hints=hints))
        return known[1]

    def amounts(self, request: Request) -> dict[str, int]:
        """What a request asks for altogether, with ``instances``; nothing where no host will do anyway. O(1) for a
        known spec."""
        count = max(len(request.instance_uuids), 1)
        total = {INSTANCES: count}
        try:
            query = self.engine.context.signature(request).requirements.query
        except NoValidHost:
            return {}
        for group in query.groups:
            for name, amount in group.resources:
                total[name] = total.get(name, 0) + count * amount
        return total

    def project_of(self, uuid: str) -> str:
        """Project of an instance; UnknownName if there is none. O(1)."""
        fleet = self.fleet
        _, _, _, _, project, *_ = fleet.kernel.consumer(fleet.consumer_id(uuid))
        return fleet.projects[project]

    def holding(self, uuid: str) -> tuple[str, dict[str, int]]:
        """(project, amounts with ``instances``) of an instance; UnknownName if there is none. O(1)."""
        consumer = self.fleet.consumer(uuid)
        total = {INSTANCES: 1, **consumer.resources}
        for resources in consumer.elsewhere.values():
            for name, amount in resources.items():
                total[name] = total.get(name, 0) + amount
        return consumer.project_id, total

    def pool_aggregates(self, name: str) -> list[Aggregate]:
        """The aggregates by which a host, or another provider, is in pools."""
        fleet, pools = self.fleet, {pool.uuid for pool in self.pools.pools.values()}
        known = (fleet.aggregates[index] for index in fleet.host_class(fleet.row(name)).aggregates)
        return [aggregate for aggregate in known if aggregate.uuid in pools]

    # snapshots

    def save(self, folder: Path) -> None:
        """Write everything into files in a folder."""
        fleet_file.save(self.fleet, folder / "fleet")
        figures = (self.engine.sequence, self.engine.seed, self.policy)
        kept = _Kept(FORMAT, *figures, self.tenants, self.usage, self.pools)
        (folder / "state").write_bytes(msgspec.msgpack.encode(kept))

    def load(self, folder: Path) -> None:
        """Become what ``save`` wrote. DataDamaged or SnapshotError if it cannot be."""
        try:
            kept = msgspec.msgpack.decode((folder / "state").read_bytes(), type=_Kept)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise DataDamaged(f"the state in {folder.name} cannot be read: {error}", field="data") from error
        if kept.format != FORMAT:
            problem = f"{folder.name} has format {kept.format}, this Hostler reads {FORMAT}"
            raise DataDamaged(problem, field="data", hint="use the Hostler that wrote it, or upgrade")
        engine = Engine(fleet_file.load(folder / "fleet"), service_policy(kept.policy), seed=kept.seed)
        engine.sequence = kept.sequence
        self.engine, self.policy = engine, kept.policy
        self.tenants, self.usage, self.pools = kept.tenants, kept.usage, kept.pools
        self._pooled.clear()
