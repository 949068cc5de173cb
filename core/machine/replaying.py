"""Replay of a data folder's journal: brings machines to its first command, and yields its commands in order. The folder
must be that of a stopped service, or a copy; it is not changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from ...placement.types.errors import InvalidValue
from ..errors import DataDamaged
from ..journal.journal import Journal, Record
from ..journal.progress import read_apart
from ..journal.snapshots import SnapshotFolder
from ..journal.store import SqliteStore
from .machine import ServiceMachine


def begin(folder: Path, *machines: ServiceMachine) -> int:
    """Bring machines to the start of the journal's first segment; returns the number of the last command before it.
    InvalidValue if there is no journal."""
    if not folder.is_dir() or not [*folder.glob("journal-*.sqlite"), *folder.glob("snapshot-*")]:
        raise InvalidValue(f"there is no journal in {folder}", field="folder", hint="name a service's data folder")
    known = SnapshotFolder(folder).known()
    if any(path.name == "journal-0000000000000001.sqlite" for path in folder.glob("journal-*")) or not known:
        return 0
    for machine in machines:
        machine.load(SnapshotFolder(folder).find(known[0]))
    return known[0]


async def records(folder: Path, after: int) -> AsyncGenerator[list[Record], None]:
    """The commands behind number ``after``, in order, without those that were set apart. DataDamaged where one is
    missing or not what was written, StorageFailed."""
    store, last, apart = SqliteStore(folder), after, read_apart(folder)
    journal = Journal(store, SnapshotFolder(folder))
    try:
        for first in await store.segments():
            async with aclosing(journal.records(first)) as parts:
                async for read in parts:
                    new = [record for record in read if record.sequence > after]
                    if new and new[0].sequence != last + 1:
                        raise DataDamaged(f"commands {last + 1} to {new[0].sequence - 1} are not there", field="folder")
                    if new:
                        last = new[-1].sequence
                        yield [record for record in new if record.sequence not in apart]
    finally:
        await store.close()
