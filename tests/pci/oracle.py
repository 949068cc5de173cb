"""Nova 33's narrowing of PCI pools, stated a second time: slow and obvious. Of the product it uses values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hostler.placement.types.host import NumaTopology, PciPool
from hostler.placement.types.request import PciRequest


def devices(pools: Iterable[PciPool]) -> Counter[object]:
    """Devices by kind."""
    counts: Counter[object] = Counter()
    for pool in pools:
        counts[pool.numa_node, tuple(sorted(pool.tags.items()))] += pool.count
    return +counts


TRUE = {"1", "t", "true", "on", "y", "yes"}


def asks(wish: PciRequest, tag: str, *values: str) -> bool:
    """Whether an alternative of the request names one of the values for a tag."""
    return any(str(spec.get(tag, "")).lower() in values for spec in wish.spec)


@dataclass(eq=False)
class Left:
    """A pool, and how many of its devices are left."""

    pool: PciPool
    count: int


def devices_left(
    pools: Sequence[PciPool], asked: Sequence[PciRequest], cells: Sequence[int] | None, host: NumaTopology
) -> Counter[object] | None:
    """Devices left by kind when Nova's narrowing is done step by step; None if it leaves too few for some request."""
    left = [Left(pool, pool.count) for pool in sorted(pools, key=lambda pool: len(pool.tags))]
    sockets = {cell.socket for cell in host.cells if cell.id in (cells or ())}
    socket_of = {cell.id: cell.socket for cell in host.cells}
    for wish in asked:
        fit = [each for each in left if any(is_like(each.pool, spec) for spec in wish.spec)]
        if cells:
            near = [each for each in fit if each.pool.numa_node in cells]
            if wish.numa_policy == "required" or sum(one.count for one in near) >= wish.count:
                fit = near
            elif wish.numa_policy == "socket":  # a host that does not know each cell's socket has none
                known = None not in socket_of.values()
                shared = {node for node, socket in socket_of.items() if known and socket in sockets}
                fit = [each for each in fit if each.pool.numa_node in shared]
            else:  # further away only as far as there are too few
                nowhere = [each for each in fit if each.pool.numa_node is None]
                elsewhere = [each for each in fit if each not in near and each not in nowhere]
                choices = [near, near + nowhere]
                choices += [near + nowhere + elsewhere] if wish.numa_policy == "preferred" else []
                fit = next((each for each in choices if sum(one.count for one in each) >= wish.count), choices[-1])
        for kind in ("type-PF", "vdpa"):
            if not asks(wish, "dev_type", kind.lower()):
                fit = [each for each in fit if each.pool.tags.get("dev_type") != kind]
        if not asks(wish, "remote_managed", *TRUE):
            fit = [each for each in fit if each.pool.tags.get("remote_managed") != "true"]
        for value in ("true", "false"):
            if all(str(spec.get("live_migratable", "")) == value for spec in wish.spec):
                fit = [each for each in fit if each.pool.tags.get("live_migratable") == value]
        if sum(one.count for one in fit) < wish.count:
            return None
        need = wish.count
        for each in fit:
            took = min(need, each.count)
            each.count, need = each.count - took, need - took
    return devices(replace(each.pool, count=each.count) for each in left)


def is_like(pool: PciPool, spec: Mapping[str, Any]) -> bool:
    """Whether a pool has every tag of an alternative, whatever the case of the letters."""
    return all(str(pool.tags.get(tag)).lower() == str(value).lower() for tag, value in spec.items())
