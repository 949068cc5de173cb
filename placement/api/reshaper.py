"""Moving inventories and the allocations on them between providers in one step (a host that grows NUMA cells, say)."""

from __future__ import annotations

from ..fleet.fleet import Fleet
from . import commands as c
from .allocations import inspect
from .allocations import write as write_allocations
from .errors import PROVIDER_NOT_FOUND, BadRequest
from .inventories import check_classes, check_inventories, replace_all, show_all, write
from .providers import check_generation, find


def reshape(fleet: Fleet, command: c.Reshape) -> None:
    """See `commands.Reshape`. Within a transaction of the caller's."""
    final = {checked(fleet, uuid, asked): asked.inventories for uuid, asked in command.providers.items()}
    inspect(fleet, command.consumers)
    for row, inventories in final.items():
        check_classes(fleet, fleet.uuid(row), inventories)
    for row, inventories in final.items():
        # Old and new together: there is room on both sides while the allocations move. Nothing new, nothing to add.
        if inventories:
            both = show_all(fleet, fleet.uuid(row)).inventories | inventories
            changes = {fleet.resource_class(name, create=True): value for name, value in both.items()}
            write(fleet, row, dict(changes), command.now)
    write_allocations(fleet, command.consumers, command.now, infer_types=command.infer_types)
    for row, inventories in final.items():
        replace_all(fleet, row, inventories, command.now)


def checked(fleet: Fleet, uuid: str, asked: c.ReshapedProvider) -> int:
    """The row of a provider that may get other inventories; BadRequest, or Conflict for another generation of it.
    O(classes)."""
    row = find(fleet, uuid)
    if row < 0:
        what = f"Resource provider {uuid} that is to get inventories does not exist: {uuid}"
        raise BadRequest(what, field="inventories", placement_code=PROVIDER_NOT_FOUND)
    check_generation(fleet, row, asked.generation)
    # Unlike the other operations, Placement 16's reshaper accepts that more is reserved than there is.
    check_inventories(uuid, asked.inventories)
    return row
