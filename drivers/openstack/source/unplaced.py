"""Which instances of Nova's have no host and wait for none: what a scheduler claimed for them was never learned of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .changed_rows import chunks_of, column_among, instances_by_uuid
from .databases import Database
from .nova_databases import CELL0, Cell


def unplaced(api: Database, cells: Sequence[Cell], uuids: Collection[str]) -> list[str]:
    """Of ``uuids`` those of instances that Nova is done with: in cell0, where conductors put those without a host;
    deleted, also before a cell had them; in state ``error`` without a host; or shelved, with no task. All others, also
    those that Nova does not know, may be on their way. SourceFailed if a database fails. O(uuids)."""
    found, elsewhere = _without_a_cell(api, uuids)
    for cell in cells if elsewhere else ():
        with cell.database.reading() as reading:
            found += [row.uuid for row in instances_by_uuid(reading, elsewhere) if _is_done(row)]
    return found


def unmoved(cells: Sequence[Cell], nodes: Mapping[str, str]) -> list[str]:
    """Of instances (by uuid, the node that each was to come to) those that Nova moves no longer and that are elsewhere,
    or deleted. SourceFailed if a database fails. O(instances)."""
    found = list[str]()
    for cell in cells:
        with cell.database.reading() as reading:
            for row in instances_by_uuid(reading, nodes):
                if row.deleted or (row.task_state is None and row.node != nodes[row.uuid]):
                    found.append(row.uuid)
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
    """True for an instance of a cell, with its states, that has no host and waits for none."""
    if row.deleted:
        return True
    if row.host is not None:
        return False
    return row.vm_state == "error" or (row.vm_state == "shelved_offloaded" and row.task_state is None)


__all__ = ["unmoved", "unplaced"]
