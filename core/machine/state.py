"""All that one service's commands change: an engine, its policy, tenants, what they use, and resource pools."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ...placement.decide.engine import Engine
from ...placement.filters.resource_pools import POOLS_HINT
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.group_members import follow_standing
from ...placement.persist import file as fleet_file
from ...placement.storage.engine import VolumeEngine
from ...placement.storage.pools.request import VolumeSpec
from ...placement.types.errors import InUse, InvalidValue, NoValidHost
from ...placement.types.host import Aggregate
from ...placement.types.host_report import HostReport
from ...placement.types.recently_used import RecentlyUsed
from ...placement.types.request import Request, RequestSpec
from ..engine_commands import Asked, RemoveHost, Specs
from ..errors import DataDamaged, check_not_newer, from_value, to_value
from ..storage_commands import AskedVolume, StorageKind, VolumeSpecs
from ..tenancy import admission
from ..tenancy.catalog import Catalog, may_use, unknown
from ..tenancy.pools import Pools
from ..tenancy.tenants import Tenants
from ..tenancy.usage import INSTANCES, SERVER_GROUPS, NoLimits, Usage
from .amounts_held import held_by, held_together
from .holds import Holds
from .kept_requests import KeptRequests, SavedRequests, as_kept
from .lives import Lives
from .order_policies import PolicyValues, service_policy, storage_policy, without_bad_storage
from .orders import (
    COUNTING_ONCE,
    COUNTING_STANDING,
    EVACUATING_THE_DEAD,
    INSTANCES_BY_TYPE,
    KEEPING_AS_NOVA,
    KEEPING_VERSIONS,
    RULES,
)
from .phase_timing import PhaseSampler
from .region_claims import RegionClaims
from .volume_records import VolumeRecords

POOLED_BYTES: Final = 32 << 20
"""Memory of specs with the pools of their projects."""
FORMAT: Final = 1


class _Format(msgspec.Struct):
    format: int
    rules: int = 0


class _Kept(msgspec.Struct):
    """All but the fleet, as a snapshot holds it."""

    format: int
    sequence: int
    seed: int
    policy: PolicyValues
    tenants: Tenants
    usage: Usage
    pools: Pools
    catalog: Catalog = msgspec.field(default_factory=Catalog)
    group_owners: dict[str, str] = {}
    rules: int = 0
    requests: SavedRequests = msgspec.field(default_factory=SavedRequests)
    holds: dict[str, float] = {}
    lives: Lives = msgspec.field(default_factory=Lives)
    volumes: VolumeRecords = msgspec.field(default_factory=VolumeRecords)
    region_claims: RegionClaims = msgspec.field(default_factory=RegionClaims)


def _is_a_pool(pool: str) -> InvalidValue:
    hint = "use the commands of pools: set_pool_hosts, delete_pool"
    return InvalidValue(f"the aggregate is that of resource pool {pool}", field="aggregates", hint=hint)


class ServiceState:
    """The state of one service, independent of commands."""

    def __init__(self) -> None:
        self.policy: PolicyValues = {}
        self.engine = Engine(Fleet(), service_policy(self.policy, 0))
        self.tenants, self.usage, self.pools, self.catalog = Tenants(), Usage(), Pools(), Catalog()
        self.specs = Specs(self.catalog)
        self.group_owners: dict[str, str] = {}
        """Projects of the server groups that were kept for one, by uuid."""
        self.rules = 0
        """Newest revision of the rules under which an order was given."""
        self.requests = KeptRequests()
        """What guests were asked with."""
        self.holds = Holds()
        """Guests that are released unless they are confirmed."""
        self.lives = Lives()
        """Guests that back ends carry out."""
        self.sampler: PhaseSampler | None = None
        """Samples the phases of placements, if enabled."""
        self.volumes = VolumeRecords()
        """What is kept of volumes beside the pools that they are on."""
        self.region_claims = RegionClaims()
        self.volume_specs = VolumeSpecs(self.catalog)
        self._storage: tuple[Engine, VolumeEngine] | None = None
        self._pooled = RecentlyUsed[tuple[int, tuple[str, ...]], tuple[RequestSpec, RequestSpec]](POOLED_BYTES)

    def decide_by(self, engine: Engine, policy: PolicyValues) -> None:
        """Have another engine decide from now on, and a policy about volumes."""
        self._storage = None  # no version of the fleet is kept that nothing else needs
        self.engine, self.policy = engine, policy

    def without_quotas(self, engine: Engine, policy: PolicyValues) -> ServiceState:
        """A state with a fork of this one's engine on which commands on storage are tried: what they change is not seen
        here, and neither quotas nor requests of guests are kept there. O(volumes)."""
        trial = copy.copy(self)
        trial.usage, trial.requests = NoLimits(), KeptRequests()
        trial.volumes = self.volumes.copy()
        trial.decide_by(engine, policy)
        return trial

    @property
    def storage(self) -> VolumeEngine:
        """What places volumes, on the engine's fleet. O(1)."""
        known = self._storage
        if known is None or known[0] is not self.engine:
            known = self._storage = (self.engine, VolumeEngine(self.engine.fleet, storage_policy(self.policy)))
        return known[1]

    @property
    def fleet(self) -> Fleet:
        """The fleet as the engine sees it."""
        return self.engine.fleet

    # requests

    def request(
        self, asked: Asked, now: float | None, uuids: tuple[str, ...] | None = None, *, spec: bytes | None = None
    ) -> Request:
        """The decoded request, with the pools of its project, and with other ``uuids`` or ``spec`` (in MessagePack) if
        given. InvalidValue or UnknownName if it is malformed."""
        wanted = self.specs[bytes(asked.spec) if spec is None else spec].spec
        if POOLS_HINT in wanted.scheduler_hints:
            raise InvalidValue(f"the hint {POOLS_HINT} is the service's own", field="spec.scheduler_hints")
        if self.pools.pools and (granted := self.pools.granted(self.tenants, asked.project_id)):
            wanted = self._with_pools(wanted, granted)
        return Request(
            spec=wanted,
            instance_uuids=asked.instance_uuids if uuids is None else uuids,
            project_id=asked.project_id,
            user_id=asked.user_id,
            server_group=asked.server_group,
            now=now,
            alternates=asked.alternates,
            request_id=asked.request_id,
        )

    def spec_of(self, asked: Asked) -> RequestSpec:
        """The spec of a request. InvalidValue or UnknownName if it has none. O(1) if known."""
        return self.specs.of(asked.spec)

    def kept_spec(self, asked: Asked) -> bytes | msgspec.Raw:
        """The spec of a request as it is kept for its guests: a flavor or image that it names is written out, since it
        may be another one later. O(1) if known."""
        known = self.specs[bytes(asked.spec)]
        if known.flavor is None and known.image is None:
            return asked.spec
        if known.written is None:
            known.written = msgspec.msgpack.encode(known.spec)
        return known.written

    def check_spec_of_tenant(self, asked: Asked) -> None:
        """HostlerError if only cloud admins may give a spec, or it names what its project may not. O(1) if known."""
        known, catalog = self.specs[bytes(asked.spec)], self.catalog
        if not known.judged:
            kept = {"flavor_kept": known.flavor is not None, "image_kept": known.image is not None}
            known.problem, known.judged = admission.problem_of(known.spec, **kept), True
        # First, as for what is not there: whatever else is wrong, a name of others is told apart from none by nothing.
        if known.flavor is not None and not may_use(self.tenants, catalog.flavors[known.flavor], asked.project_id):
            raise unknown("flavor", known.flavor)
        if known.image is not None and not may_use(self.tenants, catalog.images[known.image], asked.project_id):
            raise unknown("image", known.image)
        if known.problem is not None:
            raise from_value(to_value(known.problem))
        if known.flavor is None and known.spec.flavor.name in catalog.flavors:
            raise admission.refused("spec.flavor.name")

    def storage_project(self, kind: StorageKind, uuid: str) -> str | None:
        """Project of a volume, snapshot, backup or group; None if there is none. O(1)."""
        return self.volumes.project_of(kind, uuid)

    def volume_spec_of(self, asked: AskedVolume) -> tuple[VolumeSpec, str | None]:
        """The spec of a request, and the name of the kept type in it. InvalidValue or UnknownName if it is malformed.
        O(1) if known."""
        known = self.volume_specs.of(asked)
        return known.spec, known.volume_type

    def may_use_type(self, name: str, project: str, field: str) -> None:
        """UnknownName if there is no such volume type, or it is not for the project. O(depth of the project)."""
        kept = self.catalog.volume_types.get(name)
        if kept is None or not may_use(self.tenants, kept, project):
            raise unknown("volume_type", name, field)

    def _with_pools(self, spec: RequestSpec, granted: tuple[str, ...]) -> RequestSpec:
        """The spec with its pools; the same object each time, so that the engine finds its compiled form."""
        key = (id(spec), granted)
        known = self._pooled.get(key) or self._pooled.again(key)
        if known is None:
            pooled = replace(spec, scheduler_hints={**spec.scheduler_hints, POOLS_HINT: granted})
            known = self._pooled.keep(key, (spec, pooled), 2 * pooled.nbytes)
        return known[1]

    def amounts(self, request: Request) -> dict[str, int]:
        """Total amounts of a request, with ``instances``; empty if no host can fit it. O(1) for a known spec."""
        count = max(len(request.instance_uuids), 1)
        total = {INSTANCES: count}
        try:
            query = self.engine._context.signature(request).requirements.query
        except NoValidHost:
            return {}
        for group in query.groups:
            for name, amount in group.resources:
                total[name] = total.get(name, 0) + count * amount
        return total

    def project_of(self, uuid: str) -> str:
        """Project of an instance, or of a guest in error that holds nothing; UnknownName if there is none. O(1)."""
        fleet = self.fleet
        if self.lives.guests and (life := self.lives.guests.get(uuid)) is not None:
            return life.project_id
        if self.region_claims.guests and (guest := self.region_claims.find(uuid)) is not None:
            return guest.project_id
        _, _, _, _, project, *_ = fleet._kernel.consumer(fleet.consumer_id(uuid))
        return fleet._projects[project]

    def projects_of(self, uuids: Sequence[str]) -> list[str | None]:
        """``project_of`` each instance, None where there is none. InvalidValue for one that is not a uuid.
        O(instances)."""
        fleet, known, regions = self.fleet, self.fleet._projects, self.region_claims
        ids = fleet._consumers.find(uuids)
        found: list[str | None] = [None] * len(ids)
        present = np.flatnonzero(ids >= 0)
        for position, project in zip(present.tolist(), fleet._kernel.holders(ids[present])[0].tolist(), strict=True):
            found[position] = known[project]
        for elsewhere, get in ((self.lives.guests, self.lives.guests.get), (regions.guests, regions.find)):
            for position, uuid in enumerate(uuids) if elsewhere else ():
                if (guest := get(uuid)) is not None:
                    found[position] = guest.project_id
        return found

    def group_project(self, uuid: str) -> str | None:
        """Project of a kept server group: the one it is kept for, else that of its members; empty for members of
        several. None while it has neither. UnknownName if no such group is kept. O(members)."""
        fleet, uuid = self.fleet, self.fleet._server_groups.kept(uuid)
        if uuid in self.group_owners:
            return self.group_owners[uuid]
        found = fleet._kernel.group_projects(fleet._group_id(uuid), 2)
        if not found:
            return None
        return fleet._projects[found[0]] if len(found) == 1 else ""

    def follow_rules(self, rules: int) -> None:
        """Set the revision of the rules for further orders. Usage that was computed under older ones is recomputed,
        and where no policy was given the defaults become the present ones. O(guests) once, then O(1)."""
        fleet, pools = self.fleet, self.fleet.pools
        fleet._inventories.figures_follow, fleet._services.versions_stay = rules > 0, rules >= KEEPING_VERSIONS
        fleet._services.disabled_is_down = rules < EVACUATING_THE_DEAD
        if fleet._consumers.counts_standing != (rules >= COUNTING_STANDING):
            follow_standing(fleet._consumers, counts=rules >= COUNTING_STANDING)
        pools.keeps_absent = pools.charges_growth = fleet._consumers.counts_once = rules >= COUNTING_ONCE
        if rules > self.rules:
            if not self.policy and not self.rules:
                self.decide_by(self.engine.fork(service_policy(self.policy, rules)), self.policy)
            self.rules = rules
            self.sum_up()

    def sum_up(self) -> None:
        """Recompute the usage of projects for the current tree of projects. O(guests)."""
        self.usage = Usage()
        for project, index in self.fleet._projects.ids.items():
            self._sum_up(project, index)
        for project in self.group_owners.values():
            self.usage.add(self.tenants, project, {SERVER_GROUPS: 1})
        for project, amounts in self.volumes.totals():
            self.usage.add(self.tenants, project, amounts)
        self.region_claims.count(self.tenants, self.usage)

    def _sum_up(self, project: str, index: int) -> None:
        """Add what the guests of a project hold, many of the same shape at once."""
        ids, shapes, _ = self.fleet._kernel.consumers_of(index)
        total = self._held(ids.tolist(), shapes.tolist())
        self.usage.add(self.tenants, project, {name: amount for name, amount in total.items() if amount})

    def _held(self, consumers: Sequence[int], shapes: Sequence[int]) -> Counter[str]:
        """What consumers of these shapes hold together, with ``instances``. O(consumers)."""
        by_type = self.rules >= INSTANCES_BY_TYPE
        return held_together(self.fleet, consumers, shapes, by_type=by_type)

    def holdings(self, uuids: Sequence[str]) -> list[tuple[str, dict[str, int]]]:
        """(project, amounts with ``instances``) of instances together, by project; UnknownName if there is none of one.
        O(instances)."""
        fleet = self.fleet
        ids = fleet._consumers.find(uuids)
        if len(ids) and ids.min() < 0:
            fleet.consumer_id(uuids[int(np.argmin(ids))])  # which says that there is none
        projects, shapes = fleet._kernel.holders(ids)
        found = []
        for project in np.unique(projects).tolist():
            mine = projects == project
            found.append((fleet._projects[project], dict(self._held(ids[mine].tolist(), shapes[mine].tolist()))))
        return found

    def holding(self, uuid: str) -> tuple[str, dict[str, int]]:
        """(project, amounts with ``instances``) of a consumer, which counts as an instance if it is one; UnknownName if
        there is none. O(1)."""
        consumer = self.fleet.consumer(uuid)
        return consumer.project_id, held_by(self.fleet, consumer, by_type=self.rules >= INSTANCES_BY_TYPE)

    def pool_aggregates(self, name: str) -> list[Aggregate]:
        """The aggregates by which a host, or another provider, is in pools."""
        fleet, pools = self.fleet, {pool.uuid for pool in self.pools.pools.values()}
        known = (fleet.aggregates[index] for index in fleet._host_class(fleet.row(name)).aggregates)
        return [aggregate for aggregate in known if aggregate.uuid in pools]

    def without_pools(self, name: str, aggregates: Sequence[Aggregate]) -> tuple[Aggregate, ...]:
        """Aggregates without those of pools that a provider is in. InvalidValue for one of another pool."""
        mine = {aggregate.uuid for aggregate in self.pool_aggregates(name)} if self.pools.pools else set()
        self.check_no_pools(aggregate.uuid for aggregate in aggregates if aggregate.uuid not in mine)
        return tuple(aggregate for aggregate in aggregates if aggregate.uuid not in mine)

    def check_no_pools(self, aggregates: Iterable[str]) -> None:
        """InvalidValue if one of the aggregates, by uuid, is a pool's: what pools are, and who is in them, their own
        commands say. O(aggregates)."""
        pools = {pool.uuid: pool_id for pool_id, pool in self.pools.pools.items()}
        for uuid in aggregates if pools else ():
            if uuid in pools:
                raise _is_a_pool(pools[uuid])

    def check_removal(self, command: object) -> None:
        """InUse for the removal, without force, of a provider that clients of the Placement API have written. O(1)."""
        if not isinstance(command, RemoveHost) or command.force:
            return
        row = self.fleet._names.find(command.name)
        if row >= 0 and self.fleet._store.row["updated"][row] > 0:
            problem = f"clients of the Placement API keep the resource provider {command.name}"
            raise InUse(problem, field="name", hint="have them remove it, or use force")

    def with_pools(self, report: HostReport) -> HostReport:
        """A report whose host stays in its resource pools, which hosts know nothing of. O(aggregates)."""
        name, given = report.host.nodename or report.host.host, report.host.aggregates
        if not self.pools.pools:
            return report
        if self.fleet._names.find(name) < 0:
            self.check_no_pools(aggregate.uuid for aggregate in given)
            return report
        kept = (*self.without_pools(name, given), *self.pool_aggregates(name))
        return replace(report, host=replace(report.host, aggregates=kept)) if kept != given else report

    def asked_of(self, uuid: str) -> Asked:
        """What an instance was asked with, but for the hosts that were named. UnknownName if there is no such instance,
        InvalidValue if what it was asked with is not known: it came by the Placement API, a host's report, or an
        earlier version. O(size of the spec)."""
        self.fleet.consumer_id(uuid, field="uuid")
        spec = self.requests.get(uuid)
        if spec is None:
            problem = f"it is not known what instance {uuid} was asked with"
            raise InvalidValue(problem, field="request", hint="give the request")
        return Asked(spec=as_kept(spec) if self.rules >= KEEPING_AS_NOVA else spec)

    def forget_gone(self, uuids: Iterable[str]) -> None:
        """Drop what guests were asked with that have neither a consumer any more nor a move that may bring one back.
        O(uuids)."""
        consumers = self.fleet._consumers
        gone = (uuid for uuid in uuids if uuid in self.requests and uuid not in consumers.moves)
        self.requests.forget([uuid for uuid in gone if self.fleet._kernel.consumers.get(uuid) < 0])

    # snapshots

    def save(self, folder: Path) -> None:
        """Write everything into files in a folder."""
        fleet_file.save(self.fleet, folder / "fleet")
        kept = _Kept(
            format=FORMAT,
            sequence=self.engine.sequence,
            seed=self.engine.seed,
            policy=self.policy,
            tenants=self.tenants,
            usage=self.usage,
            pools=self.pools,
            catalog=self.catalog,
            group_owners=self.group_owners,
            rules=self.rules,
            requests=self.requests.saved(),
            holds=self.holds.plain(),
            lives=self.lives,
            volumes=self.volumes,
            region_claims=self.region_claims,
        )
        (folder / "state").write_bytes(msgspec.msgpack.encode(kept))

    def load(self, folder: Path) -> None:
        """Load what ``save`` wrote. DataDamaged or SnapshotError if it is invalid."""
        try:
            content = (folder / "state").read_bytes()
            written, name = msgspec.msgpack.decode(content, type=_Format), f"the state in {folder.name}"
            check_not_newer(name, written.format, FORMAT)
            check_not_newer(name, written.rules, RULES, "rules")
            kept = msgspec.msgpack.decode(content, type=_Kept)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise DataDamaged(f"the state in {folder.name} cannot be read: {error}", field="data") from error
        if kept.format != FORMAT:
            problem = f"{folder.name} has format {kept.format}, this Hostler reads {FORMAT}"
            raise DataDamaged(problem, field="data", hint="use the Hostler that wrote it, or upgrade")
        policy = without_bad_storage(kept.policy) if kept.rules < 2 else kept.policy
        engine = Engine(fleet_file.load(folder / "fleet"), service_policy(policy, kept.rules), seed=kept.seed)
        engine.sequence = kept.sequence
        storage_policy(policy)  # an installed rule that is gone is said now
        self.decide_by(engine, policy)
        self.tenants, self.usage, self.pools, self.catalog = kept.tenants, kept.usage, kept.pools, kept.catalog
        owners, kept_uuid = kept.group_owners.items(), self.fleet._server_groups.kept
        self.group_owners = {kept_uuid(uuid): project for uuid, project in owners}
        self.specs.forget_named(self.catalog)
        self.volume_specs.forget_all(self.catalog)
        self.requests, self.holds, self.lives = KeptRequests(kept.requests), Holds(kept.holds), kept.lives
        self.volumes, self.region_claims, self.rules = kept.volumes, kept.region_claims, kept.rules
        _ = self.region_claims.index  # made here, in the thread of the load
        self._pooled.clear()
