"""Interning of static host fields: a host class is one combination of all of them, evaluated once for all its hosts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from .networks import NetworkMetadata

T = TypeVar("T", bound=Hashable)


class Interned(Generic[T]):
    """Dense ids for equal values, in order of first occurrence."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self.ids: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self.values)

    def id(self, value: T) -> int:
        """The id of ``value``; an unseen value gets the next id. O(1)."""
        known = self.ids.get(value)
        if known is None:
            known = self.ids[value] = len(self.values)
            self.values.append(value)
        return known

    def __getitem__(self, index: int) -> T:
        return self.values[index]

    def keep(self, kept: Iterable[int]) -> None:
        """Forget all values but those with the ids ``kept``, which become 0, 1, 2, ... in their order. O(values)."""
        self.values[:] = [self.values[index] for index in kept]
        self.ids.clear()
        self.ids.update((value, index) for index, value in enumerate(self.values))

    def truncate(self, count: int) -> bool:
        """Drop the values after the first ``count``, after a failed load; True if there were any."""
        gone = self.values[count:]
        for value in gone:
            del self.ids[value]
        del self.values[count:]
        return bool(gone)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClass:
    """The static fields of a row. ``aggregates`` are ids in the fleet's list of aggregates, in the order they were
    given."""

    is_host: bool = False
    cell_uuid: str | None = None
    hypervisor_type: str | None = None
    hypervisor_version: int | None = None
    cpu_info: str | None = None
    supported_instances: tuple[tuple[str, ...], ...] = ()
    cpu_allocation_ratio: float = 1.0
    ram_allocation_ratio: float = 1.0
    disk_allocation_ratio: float = 1.0
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    aggregates: tuple[int, ...] = ()
    traits: frozenset[str] = frozenset()
    service_version: int | None = None
    numa_networks: tuple[tuple[int, NetworkMetadata], ...] = ()
    """(NUMA cell id, networks whose NICs are on it), for the cells that tell."""


STATIC_FIELDS: Final = frozenset(
    {
        "cell_uuid",
        "hypervisor_type",
        "hypervisor_version",
        "cpu_info",
        "supported_instances",
        "cpu_allocation_ratio",
        "ram_allocation_ratio",
        "disk_allocation_ratio",
        "aggregates",
        "traits",
    }
)
"""HostState fields that a host class determines: a rule that reads only these is evaluated once per class."""
