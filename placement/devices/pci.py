"""PCI devices: which pools of free devices can serve a request, and what is left of them (Nova 33 pci/stats.py).

A host's pools are a plain tuple. NUMA cells are given by host cell id; ``numa`` decides which cells a guest gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..types.errors import CapacityExceeded
from ..types.host import NumaTopology, PciPool
from ..types.request import PciRequest
from .sriov import available

_NOT_MATCHED = frozenset({"resource_class", "traits", "rp_uuids"})
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_PF = "type-PF"
_VDPA = "vdpa"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the guest is: host cells by id (None: anywhere), the host's topology, provider uuids per request group."""

    cells: tuple[int, ...] | None = None
    topology: NumaTopology | None = None
    mappings: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def providers(self, request: PciRequest) -> list[str]:
        """The resource provider of each requested device, if Placement has allocated them; else empty."""
        if not self.mappings:
            named = request.spec[0].get("rp_uuids") if request.spec else None
            return named.split(",") if named else []
        if request.request_id is None:
            return []
        return [uuids[0] for group, uuids in self.mappings.items() if group.startswith(request.request_id)]


class _Outcome(NamedTuple):
    """The remaining pools, and the devices taken, each as a pool with the number taken."""

    left: tuple[PciPool, ...]
    taken: tuple[PciPool, ...]


class _Shortage(NamedTuple):
    """``request`` found only ``have`` devices after filter step ``step``."""

    request: PciRequest
    step: str
    have: int


def supports(
    pools: Sequence[PciPool],
    requests: Sequence[PciRequest],
    cells: Collection[int] | None = None,
    *,
    topology: NumaTopology | None = None,
    mappings: Mapping[str, Sequence[str]] | None = None,
) -> bool:
    """True if ``pools`` serve all ``requests``, one after the other. O(requests * pools * attributes).

    ``cells``: ids of the host cells that the guest is on; None or empty: NUMA does not matter. ``topology`` is read for
    policy ``socket``. ``mappings``: Placement's providers per request group, where PCI devices are in Placement.
    """
    return isinstance(_serve(pools, requests, _place(cells, topology, mappings)), _Outcome)


def consume(
    pools: Sequence[PciPool],
    requests: Sequence[PciRequest],
    cells: Collection[int] | None = None,
    *,
    topology: NumaTopology | None = None,
    mappings: Mapping[str, Sequence[str]] | None = None,
) -> tuple[PciPool, ...]:
    """The pools that remain after ``requests`` are served; an emptied pool is removed. CapacityExceeded if the requests
    do not fit."""
    return _served(pools, requests, _place(cells, topology, mappings)).left


def taken(
    pools: Sequence[PciPool],
    requests: Sequence[PciRequest],
    cells: Collection[int] | None = None,
    *,
    topology: NumaTopology | None = None,
    mappings: Mapping[str, Sequence[str]] | None = None,
) -> tuple[PciPool, ...]:
    """The devices that ``consume`` takes, as pools with the number taken: the argument of ``take`` and
    ``give_back``."""
    return _served(pools, requests, _place(cells, topology, mappings)).taken


def take(pools: Sequence[PciPool], devices: Sequence[PciPool]) -> tuple[PciPool, ...]:
    """``pools`` without ``devices`` (as ``taken`` names them). CapacityExceeded if one of them is not available."""
    left = list(arranged(pools))
    for wanted in devices:
        need = wanted.count
        for pool in [pool for pool in left if _alike(pool, wanted)]:
            need = _draw(left, pool, need)
        if need:
            raise CapacityExceeded(
                f"{need} of {wanted.count} PCI devices {_named(wanted)} are not free", field="pci_pools"
            )
    return tuple(left)


def give_back(pools: Sequence[PciPool], devices: Sequence[PciPool]) -> tuple[PciPool, ...]:
    """``pools`` with ``devices`` returned. A pool that had been removed is inserted after those with as many
    attributes, as in Nova."""
    left = list(arranged(pools))
    for device in devices:
        same = next((index for index, pool in enumerate(left) if _alike(pool, device)), None)
        if same is None:
            left.append(device)
        else:
            count, total = left[same].count + device.count, left[same].total
            left[same] = replace(left[same], count=count, total=None if total is None else max(total, count))
    return arranged(left)


def explain(
    pools: Sequence[PciPool],
    requests: Sequence[PciRequest],
    cells: Collection[int] | None = None,
    *,
    topology: NumaTopology | None = None,
    mappings: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Why ``pools`` do not serve ``requests``: the first request that fails, and the filter step that leaves too few
    devices."""
    outcome = _serve(pools, requests, _place(cells, topology, mappings))
    if isinstance(outcome, _Outcome):
        return "the PCI devices are there"
    wanted = outcome.request.alias_name or " or ".join(_wanted(spec) for spec in outcome.request.spec)
    return f"needs {outcome.request.count} PCI devices {wanted}, but only {outcome.have} {outcome.step}"


def arranged(pools: Iterable[PciPool]) -> tuple[PciPool, ...]:
    """``pools`` in the order in which Nova draws from them: fewest attributes first, else as reported."""
    return tuple(sorted(pools, key=lambda pool: len(pool.tags)))


def free_by_node(pools: Iterable[PciPool]) -> Mapping[int | None, int]:
    """Free devices per NUMA node (None: devices without affinity)."""
    free: Counter[int | None] = Counter()
    for pool in pools:
        free[pool.numa_node] += pool.count
    return free


def key(requests: Iterable[PciRequest]) -> Hashable:
    """The part of ``requests`` that the result depends on: equal keys give equal results."""
    return tuple(
        (request.count, tuple(_frozen(spec) for spec in request.spec), request.numa_policy, request.request_id)
        for request in requests
    )


def _place(
    cells: Collection[int] | None, topology: NumaTopology | None, mappings: Mapping[str, Sequence[str]] | None
) -> _Place:
    return _Place(tuple(cells) if cells else None, topology, mappings or {})


def _served(pools: Sequence[PciPool], requests: Sequence[PciRequest], place: _Place) -> _Outcome:
    outcome = _serve(pools, requests, place)
    if isinstance(outcome, _Shortage):
        message = f"{outcome.request.count} PCI devices are requested, only {outcome.have} {outcome.step}"
        raise CapacityExceeded(message, field="pci_requests")
    return outcome


def _serve(pools: Sequence[PciPool], requests: Sequence[PciRequest], place: _Place) -> _Outcome | _Shortage:
    left = list(arranged(pools))
    devices: list[PciPool] = []
    for request in requests:
        able = _able(list(available(left)), request, place)
        if isinstance(able, _Shortage):
            return able
        if not (providers := place.providers(request)):
            _draw_any(left, able, request.count, devices)
        elif not _draw_allocated(left, able, Counter(providers), devices):
            return _Shortage(request, "as several pools share one resource provider", 0)
    return _Outcome(tuple(left), tuple(devices))


def _draw_any(left: list[PciPool], able: list[PciPool], need: int, devices: list[PciPool]) -> None:
    for pool in able:
        short = _draw(left, pool, need)
        if short < need:
            devices.append(replace(pool, count=need - short, total=None))
        need = short
        if not need:
            return


def _draw(left: list[PciPool], pool: PciPool, need: int) -> int:
    """Take up to ``need`` devices of ``pool`` out of ``left``, which may have more of them than ``pool`` offers; the
    number still needed. An emptied pool goes, unless others of its card depend on it."""
    index = left.index(pool) if pool in left else next(i for i, each in enumerate(left) if _alike(each, pool))
    drawn = min(pool.count, need)
    count = left[index].count - drawn
    if count or left[index].total is not None:
        left[index] = replace(left[index], count=count)
    else:
        del left[index]
    return need - drawn


def _draw_allocated(left: list[PciPool], able: list[PciPool], wanted: Counter[str], devices: list[PciPool]) -> bool:
    """Take exactly the devices that Placement has allocated; False if a provider has several pools."""
    providers = Counter(pool.tags["rp_uuid"] for pool in left if pool.tags.get("rp_uuid") is not None)
    if any(count > 1 for count in providers.values()):
        return False
    for pool in able:
        count = wanted.pop(pool.tags["rp_uuid"], 0)
        if count:
            _draw(left, pool, count)
            devices.append(replace(pool, count=count, total=None))
    return True


def _able(pools: list[PciPool], request: PciRequest, place: _Place) -> list[PciPool] | _Shortage:
    """The pools that ``request`` may use, in order, or the filter step that left too few devices."""
    able = pools
    for step, narrow in _STEPS:
        able = narrow(able, request, place)
        have = _devices(able)
        if have < request.count or not able:
            return _Shortage(request, step, have)
    return able


def _devices(pools: Iterable[PciPool]) -> int:
    return sum(pool.count for pool in pools)


def _by_spec(pools: list[PciPool], request: PciRequest, place: _Place) -> list[PciPool]:
    specs = [{tag: value for tag, value in spec.items() if tag not in _NOT_MATCHED} for spec in request.spec]
    return [pool for pool in pools if any(_matches(pool, spec) for spec in specs)]


def _matches(pool: PciPool, spec: Mapping[str, Any]) -> bool:
    """Whether every attribute of ``spec`` matches: strings compare without case, and a list in the pool may hold more
    values."""
    for tag, wanted in spec.items():
        value = _attribute(pool, tag)
        if isinstance(wanted, list) and isinstance(value, list):
            if not all(item in value for item in wanted):
                return False
        elif _folded(value) != _folded(wanted):
            return False
    return True


def _attribute(pool: PciPool, tag: str) -> Any:
    if tag == "numa_node":
        return pool.numa_node
    return pool.count if tag == "count" else pool.tags.get(tag)


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _by_numa(pools: list[PciPool], request: PciRequest, place: _Place) -> list[PciPool]:
    """Affinity by policy: required, socket, legacy (Nova's default: devices without a NUMA node are accepted),
    preferred (any device is accepted).

    A policy falls back to weaker affinity only if the stricter one finds too few devices.
    """
    if place.cells is None:
        return pools
    near = [pool for pool in pools if pool.numa_node in place.cells]
    if request.numa_policy == "required" or _devices(near) >= request.count:
        return near
    if request.numa_policy == "socket":
        nodes = _nodes_of_sockets(place.cells, place.topology)
        return [pool for pool in pools if pool.numa_node in nodes]
    near = [pool for pool in pools if pool.numa_node is None or pool.numa_node in place.cells]
    if request.numa_policy != "preferred" or _devices(near) >= request.count:
        return near
    return near + [pool for pool in pools if pool not in near]


def _nodes_of_sockets(cells: tuple[int, ...], topology: NumaTopology | None) -> frozenset[int]:
    """Ids of all host cells on the sockets of ``cells``; empty if the host does not report every cell's socket."""
    host = topology.cells if topology is not None else ()
    if any(cell.socket is None for cell in host):
        return frozenset()
    sockets = {cell.socket for cell in host if cell.id in cells}
    return frozenset(cell.id for cell in host if cell.socket in sockets)


def _without_type(dev_type: str) -> Callable[[list[PciPool], PciRequest, _Place], list[PciPool]]:
    def narrow(pools: list[PciPool], request: PciRequest, place: _Place) -> list[PciPool]:
        if any(spec.get("dev_type") == dev_type for spec in request.spec):
            return pools
        return [pool for pool in pools if pool.tags.get("dev_type") != dev_type]

    return narrow


def _without_remote_managed(pools: list[PciPool], request: PciRequest, place: _Place) -> list[PciPool]:
    if any(_is_true(spec.get("remote_managed")) for spec in request.spec):
        return pools
    return [pool for pool in pools if not _is_true(pool.tags.get("remote_managed"))]


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in _TRUE


def _by_provider(pools: list[PciPool], request: PciRequest, place: _Place) -> list[PciPool]:
    wanted = Counter(place.providers(request))
    if not wanted:
        return pools
    return [pool for pool in pools if 0 < wanted[pool.tags.get("rp_uuid", "")] <= pool.count]


def _by_live_migration(pools: list[PciPool], request: PciRequest, place: _Place) -> list[PciPool]:
    for wanted in ("true", "false"):
        if all(spec.get("live_migratable") == wanted for spec in request.spec):
            return [pool for pool in pools if pool.tags.get("live_migratable") == wanted]
    return pools


_STEPS: tuple[tuple[str, Callable[[list[PciPool], PciRequest, _Place], list[PciPool]]], ...] = (
    ("match its attributes", _by_spec),
    ("are on a NUMA node that its policy allows", _by_numa),
    ("are not physical functions", _without_type(_PF)),
    ("are not vDPA devices", _without_type(_VDPA)),
    ("are not managed remotely", _without_remote_managed),
    ("are on the resource providers that were allocated", _by_provider),
    ("can or cannot be migrated live as asked", _by_live_migration),
)


def _alike(one: PciPool, other: PciPool) -> bool:
    return (one.numa_node, one.card) == (other.numa_node, other.card) and dict(one.tags) == dict(other.tags)


def _named(pool: PciPool) -> str:
    return f"({_wanted(pool.tags)}, NUMA node {pool.numa_node})"


def _wanted(spec: Mapping[str, Any]) -> str:
    return ", ".join(f"{tag} {value}" for tag, value in sorted(spec.items())) or "of any kind"


def _frozen(spec: Mapping[str, Any]) -> Hashable:
    return tuple(sorted((tag, tuple(value) if isinstance(value, list) else value) for tag, value in spec.items()))
