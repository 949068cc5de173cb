"""Inventories through the API: figures are checked, generations move by one a write, what is in use stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..fleet.fleet import Fleet
from ..fleet.inventories import INVENTORY_FIELDS, Inventory
from ..types.errors import InvalidValue
from . import commands as c
from .answers import Inventories, ProviderUsages
from .errors import CONCURRENT_UPDATE, INVENTORY_INUSE, BadRequest, Conflict, NotFound
from .names import check_known_classes, class_rank, knows_resource_class
from .providers import check_generation, found, generation, move_generation


def show_all(fleet: Fleet, uuid: str) -> Inventories:
    """See `PlacementModel.inventories`."""
    return _shown(fleet, found(fleet, uuid))


def show_one(fleet: Fleet, uuid: str, resource_class: str) -> Inventories:
    """See `PlacementModel.inventory`."""
    row = found(fleet, uuid)
    return _shown(fleet, row, [_held(fleet, row, uuid, resource_class)])


def usages(fleet: Fleet, uuid: str) -> ProviderUsages:
    """See `PlacementModel.provider_usages`."""
    row = found(fleet, uuid)
    used = fleet._store.inventory["used"]
    held = {fleet.resource_classes[index]: int(used[index, row]) for index in classes_of(fleet, row)}
    return ProviderUsages(generation=generation(fleet, row), usages=held)


def add(fleet: Fleet, command: c.AddInventory) -> Inventories:
    """See `commands.AddInventory`."""
    row, name = found(fleet, command.provider), command.resource_class
    check_known_classes(fleet, [name])
    _check(command.provider, name, command.inventory, command.may_reserve_all)
    index = fleet.resource_class(name, create=True)
    if fleet._store.inventory["total"][index, row]:
        raise Conflict(
            f"Update conflict: {command.provider} has an inventory of class {name} already",
            field="resource_class",
            placement_code=CONCURRENT_UPDATE,
        )
    write(fleet, row, {index: command.inventory}, command.now)
    return _shown(fleet, row, [index])


def set_all(fleet: Fleet, command: c.SetInventories) -> Inventories:
    """See `commands.SetInventories`."""
    row = found(fleet, command.provider)
    check_generation(fleet, row, command.generation)
    for name, inventory in command.inventories.items():
        _check(command.provider, name, inventory, command.may_reserve_all)
    check_classes(fleet, command.provider, command.inventories)
    replace_all(fleet, row, command.inventories, command.now)
    return _shown(fleet, row)


def set_one(fleet: Fleet, command: c.SetInventory) -> Inventories:
    """See `commands.SetInventory`."""
    row, name = found(fleet, command.provider), command.resource_class
    check_generation(fleet, row, command.generation)
    _check(command.provider, name, command.inventory, command.may_reserve_all)
    if not knows_resource_class(fleet, name):
        raise NotFound(f"No such resource class {name}.", field="resource_class")
    index = fleet._inventories.index_of(name)
    if index is None or not fleet._store.inventory["total"][index, row]:
        raise BadRequest(f"No inventory record with resource class {name} on {command.provider}.", field="inventory")
    write(fleet, row, {index: command.inventory}, command.now)
    return _shown(fleet, row, [index])


def delete_one(fleet: Fleet, command: c.DeleteInventory) -> None:
    """See `commands.DeleteInventory`."""
    row = found(fleet, command.provider)
    index = _held(fleet, row, command.provider, command.resource_class)
    # Placement answers concurrent_update here, inventory.inuse everywhere else.
    _check_unused(fleet, row, [index], CONCURRENT_UPDATE)
    write(fleet, row, {index: None}, command.now)


def delete_all(fleet: Fleet, command: c.DeleteInventories) -> None:
    """See `commands.DeleteInventories`."""
    row = found(fleet, command.provider)
    replace_all(fleet, row, {}, command.now)


# shared with the reshaper


def check_classes(fleet: Fleet, uuid: str, names: Iterable[str]) -> None:
    """BadRequest for a class that is not known. O(classes)."""
    for name in names:
        if not knows_resource_class(fleet, name):
            raise BadRequest(
                f"Unknown resource class in inventory for resource provider {uuid}: No such resource class {name}.",
                field="inventories",
            )


def check_inventories(uuid: str, inventories: Mapping[str, Inventory]) -> None:
    """BadRequest for figures out of range. O(classes)."""
    for name, inventory in inventories.items():
        _check_inventory(uuid, name, inventory)


def replace_all(fleet: Fleet, row: int, new: Mapping[str, Inventory], now: float) -> None:
    """Give a provider these inventories and no others; Conflict if one that would go is in use. O(classes)."""
    present = classes_of(fleet, row)
    coming: dict[int, Inventory | None] = {
        fleet.resource_class(name, create=True): value for name, value in new.items()
    }
    going = [index for index in present if index not in coming]
    _check_unused(fleet, row, going, INVENTORY_INUSE)
    write(fleet, row, coming | dict.fromkeys(going), now)


def write(fleet: Fleet, row: int, changes: Mapping[int, Inventory | None], now: float) -> None:
    """Write inventories by class index, None takes one away; the generation moves by one. O(changes)."""
    before = generation(fleet, row)
    fleet._inventories.put(row, changes, now)
    move_generation(fleet, row, before + 1, now)


def classes_of(fleet: Fleet, row: int) -> list[int]:
    """Indices of the classes that a provider has, in Placement's order. O(classes)."""
    totals = fleet._store.inventory["total"][:, row].tolist()
    held = [index for index, total in enumerate(totals) if total]
    return sorted(held, key=lambda index: class_rank(fleet, fleet.resource_classes[index]))


def _held(fleet: Fleet, row: int, uuid: str, name: str) -> int:
    index = fleet._inventories.index_of(name)
    if index is None or not fleet._store.inventory["total"][index, row]:
        raise NotFound(f"No inventory of class {name} for {uuid}", field="resource_class")
    return index


def _shown(fleet: Fleet, row: int, indices: list[int] | None = None) -> Inventories:
    blocks, ratio = fleet._store.inventory, fleet._store.ratio
    indices = classes_of(fleet, row) if indices is None else indices
    shown: dict[str, Inventory] = {}
    for index in indices:
        figures = {field: int(blocks[field][index, row]) for field in INVENTORY_FIELDS}
        shown[fleet.resource_classes[index]] = Inventory(**figures, allocation_ratio=float(ratio[index, row]))
    newest = max((int(blocks["updated"][index, row]) for index in indices), default=0)
    return Inventories(generation=generation(fleet, row), inventories=shown, updated=newest / 1e6 or None)


def _check_unused(fleet: Fleet, row: int, indices: list[int], placement_code: str) -> None:
    used = fleet._store.inventory["used"][:, row]
    busy = [fleet.resource_classes[index] for index in indices if used[index]]
    if busy:
        what = f"Inventory for '{', '.join(busy)}' on resource provider '{fleet.uuid(row)}' in use."
        raise Conflict(what, field="inventories", placement_code=placement_code)


def _check(uuid: str, name: str, inventory: Inventory, may_reserve_all: bool) -> None:
    """BadRequest for figures out of range, or a capacity that is not left."""
    try:
        whole = Inventory(**{field: getattr(inventory, field) for field in INVENTORY_FIELDS}).validated(name)
        capacity = int((whole.total - whole.reserved) * inventory.allocation_ratio)
    except (InvalidValue, OverflowError, TypeError, ValueError) as error:
        raise BadRequest(f"{_at_fault(uuid, name)} {error.args[0]}", field=name) from None
    if capacity < 0 or (capacity == 0 and not may_reserve_all):
        than = "greater than" if may_reserve_all else "greater than or equal to"
        raise BadRequest(f"{_at_fault(uuid, name)} The reserved value is {than} total.", field=f"{name}.reserved")
    _check_inventory(uuid, name, inventory)


def _check_inventory(uuid: str, name: str, inventory: Inventory) -> None:
    try:
        inventory.validated(name)
    except InvalidValue as error:
        raise BadRequest(f"{_at_fault(uuid, name)} {error.args[0]}", field=name) from None


def _at_fault(uuid: str, name: str) -> str:
    return f"Invalid inventory for '{name}' on resource provider '{uuid}'."
