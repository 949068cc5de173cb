"""A member's snapshot as files, for members that fetch it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from ...placement.types.errors import UnknownName
from ..cluster_status import SnapshotList
from ..errors import StorageFailed
from ..journal.snapshots import SnapshotFolder

PART_BYTES: Final = 4 << 20


async def snapshot_files(snapshots: SnapshotFolder, take: Callable[[], Awaitable[int]]) -> SnapshotList:
    """The newest snapshot, or the one that ``take`` makes where there is none. StorageFailed."""
    known = snapshots.known()
    sequence = known[-1] if known else await take()
    folder = snapshots.path(sequence)

    def sizes() -> dict[str, int]:
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}

    try:
        return SnapshotList(sequence, await trio.to_thread.run_sync(sizes))
    except OSError as error:
        raise StorageFailed(f"snapshot {sequence} cannot be read: {error}", field="data") from error


async def snapshot_part(snapshots: SnapshotFolder, sequence: int, file: str, offset: int) -> bytes:
    """Some bytes of a file from an offset on; empty behind its end. UnknownName, StorageFailed."""
    path = snapshots.path(sequence) / file
    if path.parent != snapshots.path(sequence) or file in (".", ".."):
        raise UnknownName(f"there is no file {file!r} in a snapshot", field="file")

    def read() -> bytes:
        with path.open("rb") as source:
            source.seek(offset)
            return source.read(PART_BYTES)

    try:
        return await trio.to_thread.run_sync(read)
    except FileNotFoundError:
        raise UnknownName(f"there is no {file} of snapshot {sequence} any more", field="sequence") from None
    except OSError as error:
        raise StorageFailed(f"snapshot {sequence} cannot be read: {error}", field="data") from error
