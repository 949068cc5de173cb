"""How many blocks of the journal in etcd are read at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .store import Block

READ_BLOCKS: Final = 64
"""Blocks that are read at a time at most; fewer, where etcd does not answer so many in time."""
READ_BYTES: Final = 1 << 20
"""Of blocks that are read at a time, about; read in an answer of JSON, decoded and carried out, they take several times
as much memory."""
FIRST_BLOCKS: Final = 4
"""Blocks that are read at first, while it is not known how long they are."""


def next_read(limit: int, blocks: Sequence[Block]) -> int:
    """How many blocks to read next, where at most ``limit`` were asked for and these came: twice as many at most, and
    so many that they have about READ_BYTES if they are as long as these."""
    most = min(2 * limit, READ_BLOCKS)
    if not blocks:
        return most
    mean = sum(len(block.body) for block in blocks) / len(blocks)
    return max(1, min(most, int(READ_BYTES / max(mean, 1.0))))
