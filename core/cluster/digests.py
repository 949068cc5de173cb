"""Digests of a member's state behind some commands, made by forked children beside the work, and compared with the
leader's."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from ..failures import Failures
from ..forks import ChildFailed, NoChild, in_child
from ..journal.etcd_keys import DigestValue
from ..journal.store import Block
from ..machine.machine import ServiceMachine
from ..machine.orders import Order
from ..writer.writer import Writer
from .registration import VERSION
from .state_digest import state_digest

DIGESTS_KEPT: Final = 8
DIFFERENCES: Final = "differences"
"""A file in the data folder with a line for each difference that was found."""

log = logging.getLogger("hostler.cluster")


class Digests:
    """The last digests of one member, one each ``every`` commands."""

    def __init__(self, machine: ServiceMachine, writer: Writer[Order, Any], failures: Failures, every: int) -> None:
        self.every = every
        self._machine, self._writer, self._failures = machine, writer, failures
        self._made: dict[int, str] = {}
        self._under_way = False
        self._compared = 0
        self.compared = 0
        """How many of the leader's digests were compared with this member's."""

    def is_due(self, block: Block) -> bool:
        """True for a block at whose end members compare digests."""
        return (block.first - 1) // self.every != (block.first + block.records - 1) // self.every

    async def make(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> DigestValue | None:
        """The digest of the state as it is now; started once a child has that state, so that commands go on. None while
        another one is being made, and where there can be no child."""
        if self._under_way:
            task_status.started()
            return None
        sequence, self._under_way = self._writer.sequence, True
        try:
            work = partial(state_digest, self._machine.state)
            digest = (await in_child(work, task_status=task_status)).decode()
        except ChildFailed as error:
            self._failures.failed("digest", error)
            if isinstance(error, NoChild):
                task_status.started()
            return None
        finally:
            self._under_way = False
        self._made[sequence] = digest
        while len(self._made) > DIGESTS_KEPT:
            del self._made[next(iter(self._made))]
        return DigestValue(sequence, digest, VERSION)

    def differs(self, theirs: DigestValue) -> bool:
        """True if the leader's state was another one than this member's behind the same command."""
        mine = self._made.get(theirs.sequence)
        if not mine or not theirs.digest or theirs.version != VERSION or theirs.sequence <= self._compared:
            return False
        self._compared = theirs.sequence
        self.compared += 1
        return mine != theirs.digest


def differences(folder: Path | None) -> int:
    """How often a member with this data folder has found its state to differ from the leader's."""
    try:
        return 0 if folder is None else (folder / DIFFERENCES).read_bytes().count(b"\n")
    except OSError:
        return 0


def note_difference(folder: Path | None, sequence: int) -> None:
    """Keep a line about a difference behind a command, for the next starts to count."""
    if folder is None:
        return
    try:
        with (folder / DIFFERENCES).open("a", encoding="utf-8") as file:
            file.write(f"command {sequence}, {time.strftime('%FT%TZ', time.gmtime())}\n")
    except OSError as error:
        log.error("the difference is not kept for the metrics of the next start: %s", error)
