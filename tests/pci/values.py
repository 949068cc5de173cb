"""PCI pools and requests, and random ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from hostler.placement.types.host import NumaCell, NumaTopology, PciPool
from hostler.placement.types.request import PciRequest


def pool(count: int = 1, node: int | None = None, **tags: Any) -> PciPool:
    return PciPool(count=count, numa_node=node, tags=tags)


def wish(count: int = 1, *specs: dict[str, Any], policy: str | None = None, **how: Any) -> PciRequest:
    return PciRequest(count=count, spec=specs or ({},), numa_policy=policy, **how)


def sockets(*numbers: int | None) -> NumaTopology:
    """One host cell per number: its socket."""
    return NumaTopology(
        cells=tuple(NumaCell(id=id, cpuset=frozenset(), socket=socket) for id, socket in enumerate(numbers))
    )


VALUES = {
    "vendor_id": ["8086", "15b3"],
    "product_id": ["1572", "ABCD"],
    "dev_type": ["type-PCI", "type-PF", "type-VF", "vdpa"],
    "remote_managed": ["true", "false"],
    "live_migratable": ["true", "false"],
}
tags = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})
specs = st.dictionaries(
    st.sampled_from(sorted(VALUES)), st.sampled_from(["8086", "abcd", "type-PF", "vdpa", "true", "false"]), max_size=2
)
nodes = st.sampled_from([None, 0, 1, 2, 3])
pool_lists = st.lists(st.builds(PciPool, count=st.integers(0, 4), numa_node=nodes, tags=tags), max_size=6)
wishes = st.lists(
    st.builds(
        PciRequest,
        count=st.integers(1, 3),
        spec=st.lists(specs, min_size=1, max_size=2).map(tuple),
        numa_policy=st.sampled_from([None, "legacy", "required", "preferred", "socket"]),
    ),
    min_size=1,
    max_size=3,
)
places = st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)
hosts = st.lists(st.sampled_from([0, 0, 1, None]), min_size=4, max_size=4).map(lambda numbers: sockets(*numbers))
