"""systemd as the first process of namespaces of its own: it sees its own units only, and nothing of it is seen outside
but its processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from .members import until

SYSTEMD: Final = shutil.which("systemd", path="/usr/lib/systemd:/lib/systemd")
_INNER: Final = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env container=other SYSTEMD_UNIT_PATH={units} SYSTEMD_LOG_TARGET=console \
    {systemd} --system --unit=started.target --show-status=no
"""
_TARGETS: Final = "started", "shutdown", "final", "umount"


def cgroups() -> Path | None:
    """Where the unified hierarchy is mounted, if this process may make groups there."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where) if os.geteuid() == 0 and SYSTEMD is not None and shutil.which("unshare") else None
    return None


class Systemd:
    """One that starts a unit, changed by the lines of a drop-in; ends with all its processes."""

    def __init__(self, folder: Path, unit: Path, changes: str) -> None:
        found = cgroups()
        assert found is not None
        self._group, self._folder, self._unit = found / f"test-{uuid.uuid4().hex[:12]}", folder, unit
        units = folder / "units"
        drop_in = units / f"{unit.name}.d"
        drop_in.mkdir(parents=True)
        shutil.copy(unit, units)
        (drop_in / "test.conf").write_text(f"[Unit]\nDefaultDependencies=no\n{changes}")
        for name in _TARGETS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        with (units / "started.target").open("a") as target:
            target.write(f"Wants={unit.name}\n")
        (folder / "inner").write_text(_INNER.format(units=units, systemd=SYSTEMD))

    def __enter__(self) -> Systemd:
        self._group.mkdir()
        inner = f"exec unshare --cgroup --pid --fork --mount --mount-proc --kill-child sh {self._folder}/inner"
        with (self._folder / "systemd.log").open("ab") as log:
            command = f"echo $$ >{self._group}/cgroup.procs; {inner}"
            self._process = subprocess.Popen(["sh", "-c", command], stdout=log, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        folders = [self._group, *(each for each in self._group.rglob("*") if each.is_dir())]

        def removed() -> bool:
            for folder in reversed(folders):
                with suppress(OSError):
                    folder.rmdir()
            return not self._group.exists()

        until(removed)

    def log(self) -> str:
        """What systemd itself has said."""
        return (self._folder / "systemd.log").read_text()

    def processes(self) -> dict[int, str]:
        """The command lines of the service's processes, by their ids outside."""
        found = dict[int, str]()
        with suppress(OSError):
            for line in (self._group / "system.slice" / self._unit.name / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    found[int(line)] = Path(f"/proc/{line}/cmdline").read_text().replace("\0", " ").strip()
        return found

    def main(self, word: str) -> int:
        """The id of the process whose command line has a word; 0 if there is none."""
        return next((process for process, line in self.processes().items() if word in line), 0)

    def kill(self, process: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal one of the processes."""
        assert process in self.processes()
        os.kill(process, number)
