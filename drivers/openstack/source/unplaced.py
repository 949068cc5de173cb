"""Which instances of Nova's have no host and wait for none: what a scheduler claimed for them was never learned of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from .changed_rows import chunks_of, column_among, instances_by_uuid
from .databases import Database, Reading
from .nova_databases import CELL0, Cell

_EVACUATION: Final = "evacuation"
"""Type of a migration (Nova 34 objects.fields.MigrationType)."""
_OVER: Final = ("done", "completed", "failed", "error")
"""States of an evacuation's migration that is over: ``completed`` once the old host has cleaned up."""
_FAULT: Final = timedelta(seconds=10)
"""By which a fault may be older than the change of state that it is the reason of: they are written one after another,
in either order."""
_OF_MIGRATIONS: Final = ("instance_uuid", "dest_node", "status", "migration_type")


def unplaced(api: Database, cells: Sequence[Cell], uuids: Collection[str]) -> list[str]:
    """Of ``uuids`` those of instances that Nova is done with: in cell0, where conductors put those without a host;
    deleted, also before a cell had them; failed, without a host; or shelved, with no task. All others, also those that
    Nova does not know, may be on their way. SourceFailed if a database fails. O(uuids)."""
    found, elsewhere = _without_a_cell(api, uuids)
    for cell in cells if elsewhere else ():
        with cell.database.reading() as reading:
            errors = dict[str, Any]()
            for row in instances_by_uuid(reading, elsewhere):
                if _is_done(row):
                    found.append(row.uuid)
                elif row.host is None and row.vm_state == "error":
                    errors[row.uuid] = row.updated_at
            found += _failed(reading, errors)
    return found


def _failed(reading: Reading, errors: Mapping[str, datetime | None]) -> list[str]:
    """Of instances in state ``error`` (by uuid, the last changes of their rows) those that Nova has put there, with a
    fault. ``nova reset-state`` records none: a compute that the instance waits for goes on with it. O(faults)."""
    found = set[str]()
    for some in chunks_of(errors):
        where = column_among(reading, "instance_uuid", some)
        for row in reading.rows(
            "instance_faults", ("instance_uuid", "created_at"), alive=True, where=where, order=None
        ):
            changed = errors[row.instance_uuid]
            if changed is None or (row.created_at is not None and row.created_at >= changed - _FAULT):
                found.add(row.instance_uuid)
    return sorted(found)


def unmoved(cells: Sequence[Cell], nodes: Mapping[str, str]) -> list[str]:
    """Of instances (by uuid, the node that each was to be evacuated to) those that Nova moves no longer and that are
    elsewhere, or deleted. A node that has received one counts as moving it until its migration is over: Nova 34's
    rebuild_instance saves the instance without a task, still with the old host, before finish_evacuation, which waits
    for the lock of the resource tracker, saves the new one. SourceFailed if a database fails. O(instances)."""
    found = list[str]()
    for cell in cells:
        with cell.database.reading() as reading:
            received = _received(reading, nodes)
            for row in instances_by_uuid(reading, nodes):
                is_left = row.task_state is None and row.node != nodes[row.uuid] and row.uuid not in received
                if row.deleted or is_left:
                    found.append(row.uuid)
    return found


def _received(reading: Reading, nodes: Mapping[str, str]) -> set[str]:
    """Those whose evacuation to the node is known there and not over: Nova's API makes the row of ``migrations``
    without a node, which the resource tracker of the target writes with its claim (_claim_existing_migration)."""
    found = set[str]()
    for some in chunks_of(nodes):
        where = column_among(reading, "instance_uuid", some)
        for row in reading.rows("migrations", _OF_MIGRATIONS, alive=True, where=where, order=None):
            is_evacuation = row.migration_type == _EVACUATION and row.status not in _OVER
            if is_evacuation and row.dest_node == nodes[row.instance_uuid]:
                found.add(row.instance_uuid)
    return found


def _without_a_cell(api: Database, uuids: Collection[str]) -> tuple[list[str], list[str]]:
    """Those that no cell has or will have, and those that a cell has."""
    found, elsewhere = list[str](), list[str]()
    with api.reading() as reading:
        cell0 = {row.id for row in reading.rows("cell_mappings", ("id", "uuid")) if row.uuid == CELL0}
        for some in chunks_of(uuids):
            where = column_among(reading, "instance_uuid", some)
            # An instance is mapped to its cell before its build request goes; both are read in one transaction.
            waiting = {
                row.instance_uuid for row in reading.rows("build_requests", ("instance_uuid",), where=where, order=None)
            }
            for row in reading.rows("instance_mappings", ("instance_uuid", "cell_id"), where=where, order=None):
                if row.cell_id in cell0 or (row.cell_id is None and row.instance_uuid not in waiting):
                    found.append(row.instance_uuid)
                elif row.cell_id is not None:
                    elsewhere.append(row.instance_uuid)
    return found, elsewhere


def _is_done(row: Any) -> bool:
    """True for an instance of a cell that is deleted, or shelved and waits for no host."""
    if row.deleted:
        return True
    return row.host is None and row.vm_state == "shelved_offloaded" and row.task_state is None


__all__ = ["unmoved", "unplaced"]
