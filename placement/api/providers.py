"""Providers through the API: coming, going, names and parents, and what is shown of one."""

from __future__ import annotations

from functools import partial

import numpy as np
from msgspec import UNSET

from ...ext.tables import format_uuid, parse_uuid
from ..fleet.change_log import rows_array
from ..fleet.fleet import Fleet
from ..types.errors import DuplicateName, InvalidValue
from ..types.validation import check_provider_name, cut
from . import commands as c
from .answers import Provider
from .errors import (
    DUPLICATE_NAME,
    PROVIDER_CANNOT_DELETE_PARENT,
    PROVIDER_IN_USE,
    BadRequest,
    Conflict,
    NotFound,
    changed_meanwhile,
)


def normal_uuid(text: str, field: str) -> str:
    """A uuid dashed and in lower case; BadRequest if ``text`` is none. O(1)."""
    try:
        return format_uuid(*parse_uuid(text))
    except (ValueError, TypeError):
        raise BadRequest(f"Badly formed uuid {cut(text)}", field=field, hint="32 hexadecimal digits") from None


def find(fleet: Fleet, uuid: str) -> int:
    """Row of a provider, -1 if there is none with this uuid, or it is not a uuid. O(1)."""
    try:
        return fleet._providers.uuids.get(uuid)
    except (ValueError, TypeError):
        return -1


def found(fleet: Fleet, uuid: str) -> int:
    """Row of a provider; NotFound if there is none. O(1)."""
    row = find(fleet, uuid)
    if row < 0:
        raise NotFound(f"No resource provider with uuid {cut(uuid)} found", field="uuid")
    return row


def show(fleet: Fleet, row: int) -> Provider:
    """A provider as a value. O(1)."""
    columns = fleet._store.row
    parent, root = int(columns["parent"][row]), int(columns["root"][row])
    return Provider(
        uuid=fleet.uuid(row),
        name=fleet.name(row),
        generation=generation(fleet, row),
        parent=None if parent < 0 else fleet.uuid(parent),
        root=fleet.uuid(root),
        updated=float(columns["updated"][row]) or None,
    )


def generation(fleet: Fleet, row: int) -> int:
    """Generation of a provider. O(1)."""
    return int(fleet._store.row["generation"][row])


def check_generation(fleet: Fleet, row: int, given: int) -> None:
    """Conflict (concurrent_update) if a provider is not at the generation ``given``. O(1)."""
    if generation(fleet, row) != given:
        raise changed_meanwhile(
            f"resource provider generation conflict: actual: {generation(fleet, row)}, given: {given}"
        )


def move_generation(fleet: Fleet, row: int, to: int, now: float) -> None:
    """Set the generation of a provider, overriding the increment of a change. O(1)."""
    fleet._change_log.set_generations(rows_array(row), np.array([to], np.int64), now)


def create(fleet: Fleet, command: c.CreateProvider) -> Provider:
    """See `commands.CreateProvider`."""
    uuid = normal_uuid(command.uuid, "uuid")
    above = -1
    if command.parent is not None:
        parent = normal_uuid(command.parent, "parent_provider_uuid")
        if parent == uuid:
            _refuse_parent("parent provider UUID cannot be same as UUID")
        above = _parent(fleet, parent)
    words = np.array([parse_uuid(uuid)], np.uint64)
    try:
        rows = fleet._providers.add([_checked_name(command.name)], words)
    except DuplicateName:
        raise _duplicate(fleet, uuid, command.name) from None
    with fleet._change_log.rewriting(rows):
        fleet._trees.place(int(rows[0]), above)
    move_generation(fleet, int(rows[0]), 0, command.now)
    return show(fleet, int(rows[0]))


def update(fleet: Fleet, command: c.UpdateProvider) -> Provider:
    """See `commands.UpdateProvider`."""
    row = found(fleet, command.uuid)
    before = generation(fleet, row)
    if command.parent is not UNSET:
        _reparent(fleet, row, command)
    _rename(fleet, row, _checked_name(command.name))
    move_generation(fleet, row, before, command.now)
    return show(fleet, row)


def delete(fleet: Fleet, command: c.DeleteProvider) -> None:
    """See `commands.DeleteProvider`."""
    row = found(fleet, command.uuid)
    if fleet._trees.children(row):
        raise Conflict(
            f"Unable to delete parent resource provider {command.uuid}: It has child resource providers.",
            field="uuid",
            placement_code=PROVIDER_CANNOT_DELETE_PARENT,
        )
    if fleet._store.row["first"][row] >= 0 or fleet._store.inventory["used"][:, row].any():
        raise Conflict(
            f"Unable to delete resource provider {command.uuid}: Resource provider has allocations.",
            field="uuid",
            placement_code=PROVIDER_IN_USE,
        )
    fleet.remove_provider(fleet.name(row))


def _reparent(fleet: Fleet, row: int, command: c.UpdateProvider) -> None:
    present, parent = int(fleet._store.row["parent"][row]), command.parent
    if parent is None:
        if present < 0:
            return
        if not command.may_move:
            _refuse_parent("un-parenting a provider is not currently allowed")
        above = -1
    else:
        above = _parent(fleet, normal_uuid(str(parent), "parent_provider_uuid"))
        if above == present:
            return
        if present >= 0 and not command.may_move:
            _refuse_parent("re-parenting a provider is not currently allowed")
    moved = fleet._trees.subtree(row)
    generations = fleet._store.row["generation"][moved]
    try:
        fleet._trees.move(row, above, "parent")
    except InvalidValue:
        _refuse_parent("creating loop in the provider tree is not allowed.")
    fleet._change_log.set_generations(moved, generations, command.now)


def _rename(fleet: Fleet, row: int, new: str) -> None:
    names, old = fleet._names, fleet.name(row)
    if new == old:
        return
    if names.find(new) >= 0:
        raise _duplicate(fleet, fleet.uuid(row), new)
    fleet._change_log.make(partial(names.rename, row, new), partial(names.rename, row, old))
    # A signature may have been compiled for a request that names it.
    fleet._change_log.static_epoch += 1


def _parent(fleet: Fleet, uuid: str) -> int:
    row = find(fleet, uuid)
    if row < 0:
        _refuse_parent("parent provider UUID does not exist")
    return row


def _refuse_parent(why: str) -> None:
    raise BadRequest(f"Unable to put the resource provider there: {why}", field="parent_provider_uuid")


def _checked_name(name: str) -> str:
    try:
        return check_provider_name(name, "name")
    except InvalidValue as error:
        raise BadRequest(error.args[0], field="name") from None


def _duplicate(fleet: Fleet, uuid: str, name: str) -> Conflict:
    what = f"name: {name}" if fleet._names.find(name) >= 0 else f"uuid: {uuid}"
    return Conflict(
        f"Conflicting resource provider {what} already exists.", field="name", placement_code=DUPLICATE_NAME
    )
