"""Pools that follow the states of Cinder's host manager: only backends that changed are read in, and requests are
judged without a change of them. Imports nothing of Cinder; not thread-safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ....placement.storage.engine import VolumeEngine
from ....placement.storage.explain import explain
from ....placement.storage.pools.backend_names import backend_part
from ....placement.storage.pools.filter_properties import FilterProperties
from ....placement.storage.pools.policy import VolumePolicy
from ....placement.storage.pools.reports import BackendReport
from ....placement.storage.pools.request import Retry, VolumeSpec, VolumeType, check_volume_spec
from ....placement.storage.scan import PoolRanking
from ....placement.types.errors import HostlerError

FIGURES: Final = (
    *("total_capacity_gb", "free_capacity_gb", "allocated_capacity_gb", "provisioned_capacity_gb"),
    *("reserved_percentage", "max_over_subscription_ratio", "thin_provisioning_support"),
    *("thick_provisioning_support", "multiattach", "QoS_support", "volume_backend_name", "vendor_name"),
    *("driver_version", "storage_protocol", "filter_function", "goodness_function"),
)
"""Attributes of a pool state that filters and weighers read."""
READ_BY_ID: Final[Mapping[str, tuple[str, ...]]] = {
    "SameBackendFilter": ("same_host",),
    "DifferentBackendFilter": ("different_host",),
    "InstanceLocalityFilter": ("local_to_instance",),
}
"""Filters that look up volumes or instances that a hint names."""


class NotModelled(HostlerError):
    """A request, or a setting, that Hostler does not decide by Cinder's rules. ``field`` names it."""

    code = "not_modelled"


@dataclass(frozen=True, slots=True)
class Judged:
    """Ids of the pools that pass, best first, with their weights; ``ranking`` says what became of the others."""

    weights: Mapping[str, float]
    ranking: PoolRanking
    properties: FilterProperties


class KeptPools:
    """Pools by id (``host@backend#pool``, or the cluster's name), and the engine that judges them."""

    def __init__(self) -> None:
        self._engine: VolumeEngine | None = None
        self._options: Mapping[str, Any] | None = None
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._at = 1.0
        self.changes = 0
        """Backends that were read in since the start."""

    def use(self, options: Mapping[str, Any]) -> None:
        """Judge under these options of cinder.conf from now on. NotModelled if a filter or a weigher is not Cinder's
        own, looks up volumes in the database, or leaves the choice to chance. O(1) while they stay the same."""
        if self._engine is not None and options == self._options:
            return
        policy = _policy(options)
        fleet = None if self._engine is None else self._engine.fleet
        self._engine, self._options = VolumeEngine(fleet, policy), dict(options)

    @property
    def engine(self) -> VolumeEngine:
        """The engine, once ``use`` has said by which options it judges."""
        assert self._engine is not None, "options are read before anything is judged"
        return self._engine

    def __len__(self) -> int:
        return len(self.engine.pools)

    def update(self, states: Iterable[Any]) -> None:
        """Read in the backends of these pool states, where their figures or services changed. HostlerError for a
        malformed report. O(pools)."""
        backends: dict[str, list[Any]] = {}
        for state in states:
            backends.setdefault(backend_part(state.backend_id), []).append(state)
        for name, pools in backends.items():
            figures = {_pool_name(state): _figures(state) for state in pools}
            reported = {state.backend_id: dict(state.capabilities or {}) for state in pools}
            found = figures, reported, pools[0].host, pools[0].cluster_name, _zone(pools[0])
            if self._seen.get(name) != found:
                self._report(pools[0], figures, reported)
                self._seen[name] = found

    def _report(self, state: Any, found: Mapping[str, dict[str, Any]], reported: Mapping[str, dict[str, Any]]) -> None:
        """Read in one backend: the ``found`` figures of its pools, and the capabilities that they ``reported``."""
        self._at += 1.0
        zone = _zone(state)
        pools = self.engine.pools
        host = backend_part(state.host)
        cluster = None if state.cluster_name is None else backend_part(state.cluster_name)
        known = pools.services.get(host)
        if known is not None and known.availability_zone != zone:
            pools.set_service(host, availability_zone=zone)
        stats = [{**figures, "pool_name": name} for name, figures in found.items()]
        report = BackendReport(host=host, capabilities={"pools": stats}, at=self._at, cluster_name=cluster)
        pools.report(report, availability_zone=zone)
        for other in [each.host for each in pools.services.values() if cluster and each.cluster_name == cluster]:
            if other != host:  # another service of the cluster took its place: pools are where that one says
                pools.remove_service(other)
        for backend_id, capabilities in reported.items():
            pools.set_capabilities(backend_id, capabilities)
        self.changes += 1

    def judge(self, states: Sequence[Any], properties: Mapping[str, Any]) -> Judged:
        """Judge the pools of these states for a request, as Cinder's filter properties have it. NotModelled for what is
        not modelled. O(pools)."""
        wanted = filter_properties_of(properties, self.engine.policy)
        self.update(states)
        pools = self.engine.pools
        rows = np.array(sorted({pools.row(state.backend_id) for state in states}), np.int32)
        ranking = self.engine._context.ranking(wanted, only=rows)
        weights = {
            pools.fact(row).backend_id: weight
            for row, weight in zip(ranking.rows.tolist(), ranking.weights.tolist(), strict=True)
        }
        given = [state.backend_id for state in states if state.backend_id in weights]
        best_first = sorted(given, key=lambda name: -weights[name])  # equal ones stay in Cinder's order
        return Judged({name: weights[name] for name in best_first}, ranking, wanted)

    def reason(self, judged: Judged, backend_id: str) -> str:
        """Why a pool does not pass, or what weighers gave it. O(pools)."""
        engine = self.engine
        story = explain(engine.pools, engine.policy, judged.properties, judged.ranking, len(judged.weights))
        for each in story.refused:
            if each.backend_id == backend_id:
                return f"{each.stage} refuses it: {each.reason}"
        if backend_id not in judged.weights:
            return "it is no candidate"
        parts = judged.ranking.parts(judged.ranking.rows.tolist().index(engine.pools.row(backend_id)))
        said = ", ".join(f"{part.weigher} {part.points:g}" for part in parts)
        return f"weight {judged.weights[backend_id]:g} ({said or 'no weigher'})"


def _policy(options: Mapping[str, Any]) -> VolumePolicy:
    try:
        policy = VolumePolicy.from_mapping({"storage": dict(options)})
    except HostlerError as error:
        raise NotModelled(str(error), field="policy") from error
    chance = policy.stochastic or any(rule.name == "ChanceWeigher" for rule in policy.weighers)
    if chance:
        raise NotModelled("the choice is left to chance", field="chance")
    if any(rule.name == "VolumeNumberWeigher" for rule in policy.weighers):
        raise NotModelled("VolumeNumberWeigher counts volumes in the database", field="VolumeNumberWeigher")
    return policy


def _zone(state: Any) -> str:
    return (state.service or {}).get("availability_zone") or "nova"


def _pool_name(state: Any) -> str:
    return str(state.backend_id).partition("#")[2]


def _figures(state: Any) -> dict[str, Any]:
    """What a pool state has now: its capabilities, with its figures as they have been consumed."""
    found = {name: value for name, value in (state.capabilities or {}).items() if name != "pools"}
    found.update((name, getattr(state, name)) for name in FIGURES if getattr(state, name, None) is not None)
    return found


def filter_properties_of(properties: Mapping[str, Any], policy: VolumePolicy) -> FilterProperties:
    """Cinder's filter properties as values. NotModelled for hints that name volumes or instances, and without a size.
    O(size)."""
    spec = properties.get("request_spec") or {}
    hints = dict(properties.get("scheduler_hints") or {})
    for rule in policy.filters:
        for hint in READ_BY_ID.get(rule.name, ()):
            if hints.get(hint):
                raise NotModelled(f"the hint {hint} names what only the database knows", field=hint)
    if properties.get("size") is None:
        raise NotModelled("the request has no size", field="size")
    size = int(properties["size"])
    new_size = properties.get("new_size")
    volume = spec.get("volume_properties") or {}
    value = VolumeSpec(
        size_gb=size,
        volume_type=_type(properties.get("volume_type")),
        qos_specs=properties.get("qos_specs"),
        availability_zone=properties.get("availability_zone"),
        availability_zones=tuple(spec.get("availability_zones") or ()),
        scheduler_hints=hints,
        metadata=dict(properties.get("metadata") or {}),
        attach_status=volume.get("attach_status") or "detached",
        properties=dict(volume),
    )
    context = properties.get("context")
    return FilterProperties.of(
        check_volume_spec(value),
        project_id=getattr(context, "project_id", None) or "",
        user_id=properties.get("user_id") or "",
        requested_gb=int(new_size) - size if new_size else size,
        type_specs=_extra_specs(properties.get("resource_type")),
        operation=spec.get("operation") or "create_volume",
        exists_on=properties.get("vol_exists_on"),
        retry=_retry(properties.get("retry")),
    )


def _type(given: Any) -> VolumeType | None:
    return None if not given else VolumeType(name=given.get("name", "") or "", extra_specs=_extra_specs(given))


def _extra_specs(given: Any) -> dict[str, str | None]:
    specs = (given.get("extra_specs", {}) if given else None) or {}
    return {str(key): None if value is None else str(value) for key, value in specs.items()}


def _retry(given: Mapping[str, Any] | None) -> Retry | None:
    if not given:
        return None
    backends = given.get("backends")
    return Retry(
        num_attempts=given.get("num_attempts") or 0,
        backends=None if backends is None else tuple(backends),
        hosts=tuple(given.get("hosts") or ()),
    )
