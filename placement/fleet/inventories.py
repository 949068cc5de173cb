"""Inventories of providers by resource class, and Placement's capacity rule."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from ..types.errors import InUse, InvalidValue, UnknownName
from ..types.limits import MAX_AMOUNT
from ..types.validation import check_resource_class, ratio, shown, whole_number
from . import host_totals
from .change_log import ChangeLog, rows_array
from .numa_table import NumaTable

FIRST_CLASSES: Final = ("VCPU", "MEMORY_MB", "DISK_GB", "PCPU")
"""Resource classes that every fleet has, by index."""
VACANT: Final = "VACANT_"
"""Name, with the index behind it, of a place that no resource class has; no class can be called that."""
INVENTORY_FIELDS: Final = ("total", "reserved", "min_unit", "max_unit", "step_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The inventory of one resource class (Placement's fields; integers are at most 2**31 - 1)."""

    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int = MAX_AMOUNT
    step_size: int = 1
    allocation_ratio: float = 1.0

    def validated(self, field: str) -> Inventory:
        """This inventory, or InvalidValue naming the first bad field."""
        figures = {
            name: whole_number(getattr(self, name), f"{field}.{name}", least=int(name != "reserved"))
            for name in INVENTORY_FIELDS
        }
        return Inventory(**figures, allocation_ratio=ratio(self.allocation_ratio, f"{field}.allocation_ratio"))


class Inventories:
    """Inventories of all providers by row, and the resource classes by index."""

    def __init__(self, change_log: ChangeLog, numa: NumaTable) -> None:
        self._change_log, self._numa = change_log, numa
        self.figures_follow = True
        """Whether totals, free amounts and ratios of hosts change with their inventories."""
        self.classes: list[str] = list(FIRST_CLASSES)
        self._indices = {name: index for index, name in enumerate(self.classes)}
        self.unit_rules: set[int] = set()
        """Classes for which some provider has, or had, a min_unit or step_size other than 1."""
        self._vacant: list[int] = []
        """A heap of indices whose class was forgotten, for classes that are yet to come."""

    def __len__(self) -> int:
        """Number of resource classes. O(1)."""
        return len(self._indices)

    def resource_class(self, name: str, *, create: bool = False) -> int:
        """Index of a resource class. UnknownName for an invalid name, and for an unknown class without ``create``.
        O(1)."""
        index = self._indices.get(name) if isinstance(name, str) else None
        if index is not None:
            return index
        check_resource_class(name)
        if not create:
            raise UnknownName.among("resource class", name, self._indices)
        if self._vacant:
            index = heapq.heappop(self._vacant)
            self.classes[index] = name
        else:
            index = self._change_log.store.add_class()
            self.classes.append(name)
        self._indices[name] = index
        return index

    def forget(self, indices: Iterable[int]) -> None:
        """Forget classes whose columns are zero, and that no shape names: the next new ones take their places.
        O(classes)."""
        for index in indices:
            del self._indices[self.classes[index]]
            self.classes[index] = f"{VACANT}{index}"
            self.unit_rules.discard(index)
            heapq.heappush(self._vacant, index)
        self._change_log.static_epoch += 1

    def load(self, names: Sequence[str]) -> None:
        """Take up the classes of a saved fleet, vacant places included, in a new one. ValueError if they are others
        than a fleet can have."""
        if tuple(names[: len(FIRST_CLASSES)]) != FIRST_CLASSES or len(set(names)) < len(names):
            raise ValueError("resource classes are missing, or there twice")
        for index, name in enumerate(names[len(FIRST_CLASSES) :], len(FIRST_CLASSES)):
            self._change_log.store.add_class()
            self.classes.append(name)
            if name == f"{VACANT}{index}":
                heapq.heappush(self._vacant, index)
            else:
                self._indices[check_resource_class(name)] = index

    def index_of(self, name: str) -> int | None:
        """Index of a resource class, None if no provider ever had an inventory of it. O(1)."""
        return self._indices.get(name)

    def rename(self, old: str, new: str) -> None:
        """Rename a class. The new name must be unused, or belong to a class without inventories: the two swap places.
        O(1)."""
        if old in self._indices:
            self._change_log.make(partial(self._swap_names, old, new), partial(self._swap_names, new, old))

    def _swap_names(self, old: str, new: str) -> None:
        index, other = self._indices.pop(old), self._indices.pop(new, None)
        self.classes[index], self._indices[new] = new, index
        if other is not None:
            self.classes[other], self._indices[old] = old, other
        self._change_log.static_epoch += 1

    def set(self, row: int, name: str, inventories: Mapping[str, Inventory]) -> None:
        """Replace the inventories of a provider. As in Placement, capacity below the current usage is accepted: the
        provider then takes no more of the class until usage has fallen. InUse if an omitted class has usage; an error
        changes nothing. O(classes)."""
        if not isinstance(inventories, Mapping):
            raise InvalidValue(f"inventories must be a mapping, got {shown(inventories)}", field="inventory")
        checked = {
            check_resource_class(resource): _checked(resource, inventories[resource]) for resource in inventories
        }
        used = self._change_log.store.inventory["used"]
        for index, resource in enumerate(self.classes):
            if used[index, row] and resource not in checked:
                raise InUse(f"{name} has {used[index, row]} {resource} in use", field="inventory")
        new = {self.resource_class(resource, create=True): value for resource, value in checked.items()}
        self.put(row, {index: new.get(index) for index in range(len(self.classes))})

    def put(self, row: int, changes: Mapping[int, Inventory | None], updated: float = 0.0) -> None:
        """Write checked inventories by class index; None removes one. ``updated``: time of the write in seconds since
        the epoch. Increments the generation; of a host, totals, free amounts and ratios follow. What is known of
        provider trees by the classes that their providers have is read again where these are others. O(changes)."""
        change_log = self._change_log
        totals = change_log.store.inventory["total"]
        others = any((totals[index, row] > 0) != (inventory is not None) for index, inventory in changes.items())
        is_host = self.figures_follow and change_log.host_class(row).is_host
        before = self.of(row) if is_host else {}
        known = {index: before.get(self.classes[index], (None, 0))[0] for index in changes}
        ratios = change_log.store.ratio[:, row].copy()
        with change_log.editing(rows_array(row)):
            for index, inventory in changes.items():
                self._put(row, index, inventory, 0 if inventory is None else round(updated * 1e6))
            if is_host:
                host_totals.follow(
                    change_log, row, {index: (known[index], inventory) for index, inventory in changes.items()}
                )
        if others:
            change_log.topology_epoch += 1
        if is_host and not np.array_equal(ratios, change_log.store.ratio[:, row]):
            host_totals.follow_cells(change_log, self._numa, row)

    def write(self, row: int, resource: int, inventory: Inventory | None) -> None:
        """Write an inventory within an edit of the caller's. O(1)."""
        self._put(row, resource, inventory, 0)

    def _put(self, row: int, resource: int, inventory: Inventory | None, updated: int) -> None:
        store = self._change_log.store
        store.inventory["updated"][resource, row] = updated
        for field in INVENTORY_FIELDS:
            store.inventory[field][resource, row] = 0 if inventory is None else getattr(inventory, field)
        store.ratio[resource, row] = 0.0 if inventory is None else inventory.allocation_ratio
        if inventory is not None and (inventory.min_unit > 1 or inventory.step_size > 1):
            self.need_unit_rules(resource)
        store.refresh_limits(resource, row)

    def need_unit_rules(self, resource: int) -> None:
        """Check min_unit and step_size of this class from now on; the check is skipped while all of them are 1."""
        if resource not in self.unit_rules:
            self.unit_rules.add(resource)
            self._change_log.static_epoch += 1

    def of(self, row: int) -> dict[str, tuple[Inventory, int]]:
        """{resource class: (inventory, used)} of a provider. O(classes)."""
        store = self._change_log.store
        found = {}
        for index, resource in enumerate(self.classes):
            if store.inventory["total"][index, row] > 0:
                figures = {field: int(store.inventory[field][index, row]) for field in INVENTORY_FIELDS}
                inventory = Inventory(**figures, allocation_ratio=float(store.ratio[index, row]))
                found[resource] = (inventory, int(store.inventory["used"][index, row]))
        return found

    def fits(self, row: int, resources: Mapping[int, int]) -> bool:
        """Placement's rule for one provider: capacity, min_unit, max_unit and step_size of each class. O(resources)."""
        blocks = self._change_log.store.inventory
        for resource, amount in resources.items():
            if blocks["avail"][resource, row] < amount or amount < blocks["min_unit"][resource, row]:
                return False
            if amount % max(int(blocks["step_size"][resource, row]), 1):
                return False
        return True


def _checked(resource: str, inventory: object) -> Inventory:
    if not isinstance(inventory, Inventory):
        raise InvalidValue(f"{resource} must be an Inventory, got {shown(inventory)}", field=f"inventory.{resource}")
    return inventory.validated(f"inventory.{resource}")
