"""A small process beside a member that ends the member's lease at once when the member's process dies, so that another
one need not wait for the lease's end. Where it dies too, as with the machine, the lease ends by itself."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Final

import trio

RESTART_SECONDS: Final = 5.0
"""After which a guardian that has ended is replaced."""
PROGRAM: Final = Path(__file__).with_name("guardian_process.py")

log = logging.getLogger("hostler.cluster")


class Guardian:
    """Keeps the guardian of this process while ``run`` runs. A process that is stopped, or hangs, is not dead: its
    lease ends in time."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        user: str | None = None,
        password_file: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
    ) -> None:
        """How etcd is reached: URLs, and paths of files that are read when they are needed."""
        self._settings: dict[str, Any] = {
            "endpoints": list(endpoints),
            "user": user,
            "password_file": password_file,
            "ca": ca,
            "certificate": certificate,
            "key": key,
        }
        self._lease, self._dismissed = 0, False
        self._changed = trio.Event()
        self.process: trio.Process | None = None
        """The guardian, once it has been told a lease."""

    def guard(self, lease: int) -> None:
        """The lease to end from now on, 0 for none."""
        self._lease = lease
        self._changed.set()

    async def run(self) -> None:
        """Have a guardian, for ever; none where the system cannot tell of the death of a process (Linux before 5.3)."""
        if not sys.executable or not hasattr(os, "pidfd_open"):
            log.info("no guardian: after a death of this process its lease ends in time")
            return
        level = logging.WARNING
        while not self._dismissed:
            try:
                await self._run_once()
            except (OSError, trio.BrokenResourceError) as error:
                log.log(level, "the guardian has ended, and is started again: %r", error)
                level = logging.DEBUG
            await trio.sleep(RESTART_SECONDS)

    async def _run_once(self) -> None:
        command = [sys.executable, "-I", "-S", str(PROGRAM), str(os.getpid())]
        process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
        assert process.stdin is not None
        try:
            await process.stdin.send_all(json.dumps(self._settings).encode() + b"\n")
            while True:
                changed = self._changed = trio.Event()
                await process.stdin.send_all(b"%d\n" % self._lease)
                self.process = process
                with trio.move_on_after(RESTART_SECONDS):  # and see whether it is there
                    await changed.wait()
        except (OSError, trio.BrokenResourceError):
            self.process = None
            process.kill()
            await process.stdin.aclose()
            await process.wait()
            raise

    async def dismiss(self) -> None:
        """End it, without its ending the lease. Cancelled without that, as by an error, it stays for the end of this
        process."""
        self._dismissed = True
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            await process.wait()
