"""Compression of the blocks that a cluster keeps in etcd: commands of one kind repeat each other's specs."""

from __future__ import annotations

import zlib
from typing import Final

import trio

from ..errors import DataDamaged

LEAST: Final = 1_024
"""Bytes of a block that is worth it."""
LEVEL: Final = 1
"""Of zlib: a thousand like commands become a hundredth in a millisecond, and hardly less at higher levels."""
ASIDE: Final = 128 << 10
"""Bytes from which on it is done in a thread: what cannot be compressed takes some 25 ms a MiB."""


async def compressed(body: bytes) -> bytes | None:
    """The body of a block in fewer bytes; None where that saves too little. O(bytes)."""
    if len(body) < LEAST:
        return None
    if len(body) < ASIDE:
        found = zlib.compress(body, LEVEL)
    else:
        found = await trio.to_thread.run_sync(zlib.compress, body, LEVEL)
    return found if len(found) < len(body) * 7 // 8 else None


async def restored(body: bytes, length: int, key: str) -> bytes:
    """The body that was ``length`` bytes before it was compressed. DataDamaged for anything else."""
    try:
        if length < ASIDE:
            return _restored(body, length)
        return await trio.to_thread.run_sync(_restored, body, length)
    except (zlib.error, ValueError) as error:
        raise DataDamaged(f"the block at {key} in etcd cannot be read: {error}", field="data.etcd.prefix") from error


def _restored(body: bytes, length: int) -> bytes:
    work = zlib.decompressobj()
    found = work.decompress(body, length)  # never more than it says
    if len(found) != length or work.decompress(work.unconsumed_tail, 1) or not work.eof or work.unused_data:
        raise ValueError(f"it is not the {length} bytes that were compressed")
    return found
