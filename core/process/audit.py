"""The audit log: who gave which command when, on what, and its outcome, one line of JSON each, in files beside the
journal. The journal is authoritative: after a crash, recovery writes the missing lines, and ``hostler audit`` rebuilds
all lines from a journal."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections import deque
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.api.commands import Reshape, SetAllocations
from ...placement.storage.decision import VolumeDecision, VolumeGroupDecision
from ...placement.storage.with_guests import JointDecision
from ...placement.types.decision import Decision, PackedDecision
from ...placement.types.errors import HostlerError
from .. import engine_commands as p
from .. import lifecycle_commands as f
from .. import region_commands as g
from .. import storage_commands as s
from ..failures import Failures
from ..machine.orders import Order, PlacementWrite, SelectDestinations
from ..region_commands import on_behalf_of
from ..tenancy import commands as c
from ..writer.writer import Writer

log = logging.getLogger("hostler.audit")

FILE_BYTES: Final = 256 << 20
"""Length at which a new file is begun; the one before it is kept as ``audit.1.jsonl``."""
FILES: Final = 4
"""Older files that are kept."""
QUEUE_LINES: Final = 100_000
"""Lines that wait for the disk at most."""
TURN_LINES: Final = 1_000
"""Lines in one write."""
NAMED: Final = 100
"""Guests of a request that a line names at most."""
TAIL_BYTES: Final = 1 << 20
"""At the end of the file, in which its last line is looked for."""
FLUSH_SECONDS: Final = 5.0
GATHER_SECONDS: Final = 0.05
POLL_SECONDS: Final = 2.0
"""Interval at which the thread looks for lines without having been notified."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """``time`` in seconds since the epoch; ``outcome`` is ok, or an error's code."""

    sequence: int
    time: float
    user: str
    command: str
    outcome: str
    on: list[str] = []


def line_of(sequence: int, order: Order, outcome: Any) -> Line:
    """The line of a command and its outcome."""
    command: Any = order.command
    if type(command) is p.Place and isinstance(outcome, Decision | PackedDecision):  # the most frequent line
        return _line_of_placement(sequence, order, _is_placed(outcome), _asked_for(command.request))
    name = command.__struct_config__.tag
    if isinstance(command, PlacementWrite):
        name, command = f"{name}.{type(command.command).__name__}", command.command
    return Line(sequence, order.now, on_behalf_of(order.command, order.user), name, _outcome(outcome), _on(command))


class LineEncoder:
    """Encodes ``line_of`` commands as JSON, each with its end of line. Consecutive placements differ in little, which
    alone is encoded again."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._common: tuple[float, str, str, bool] | None = None
        """Time, user, project and success of the last placement, whose line is ``_begin``, uuids, ``_end`` behind its
        number."""
        self._begin = self._end = b""

    def __call__(self, sequence: int, order: Order, outcome: Any) -> bytes:
        command = order.command
        if type(command) is not p.Place or isinstance(outcome, HostlerError):
            return self._encode(line_of(sequence, order, outcome)) + b"\n"
        asked, placed = command.request, type(outcome) is PackedDecision or _is_placed(outcome)
        common = order.now, order.user, asked.project_id, placed  # as of the placement before, mostly
        if common != self._common:
            on = self._encode(_project(asked))
            line = self._encode(_line_of_placement(0, order, placed, [_project(asked)]))
            self._begin, self._end = line.removeprefix(_NUMBERED % 0).removesuffix(on + b"]}"), on + b"]}\n"
            self._common = common
        line = _NUMBERED % sequence + self._begin
        if asked.instance_uuids:
            line += b"".join([self._encode(uuid) + b"," for uuid in asked.instance_uuids[:NAMED]])
        return line + self._end


_NUMBERED: Final = b'{"sequence":%d'


class AuditLog:
    """An observer of the writer, and of what a recovery replays. Lines go to a thread that alone touches the files, so
    that a disk that hangs or fails delays no command; beyond QUEUE_LINES that wait, lines are lost and counted.

    ``last`` is the number of the last line that was in the file at the start: commands up to that are not written
    again.
    """

    def __init__(
        self,
        folder: Path,
        failures: Failures | None = None,
        *,
        files: int = FILES,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self._path, self._files, self._file_bytes = folder / "audit.jsonl", files, file_bytes
        self._failures = failures if failures is not None else Failures()
        self._encode, self._encode_placement = LineEncoder(), LineEncoder()
        self._file: io.FileIO | None = None
        self._waiting: deque[bytes | tuple[int, Order, Any]] = deque()
        """Lines of placements, and what other lines are made of. (A placement's is made at once: the thread would drop
        what it was made of long after that has left the processor's caches, and placements would wait for it.)"""
        self._changed = threading.Condition()
        self._taken = self._reopen = self._closed = self._hurry = False
        self.lost = 0
        """Lines that were not written."""
        self.last = last_line(self._path)
        self._thread = threading.Thread(target=self._run, name="hostler-audit", daemon=True)
        self._thread.start()

    def __call__(self, sequence: int, order: Order, outcome: Any) -> None:
        waiting = len(self._waiting)
        if waiting >= QUEUE_LINES or sequence <= self.last:
            self.lost += sequence > self.last
            return
        if type(order.command) is p.Place:
            self._waiting.append(self._encode_placement(sequence, order, outcome))
        else:
            self._waiting.append((sequence, order, outcome))
        if not waiting and self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def begin(self, sequence: int) -> None:
        """The next command is the one after ``sequence``: a journal put back to an older state is audited again."""
        self.last = min(self.last, sequence)

    def replayed(self, sequence: int, order: Order, outcome: Any) -> None:
        """Record a command that recovery replays, in recovery's thread: waits for the file."""
        if len(self._waiting) >= QUEUE_LINES // 2:
            self.flush()
        self(sequence, order, outcome)

    def reopen(self) -> None:
        """Close the file and open it by its name, which another process may have moved (logrotate)."""
        with self._changed:
            self._reopen = True
            self._changed.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all lines so far are written or lost; False if that takes longer."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not (self._waiting or self._taken or self._reopen), seconds)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Write what waits, and end the thread; what a hanging disk does not take by then is lost. May be called
        twice."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join(seconds)
        self.lost += len(self._waiting)

    # in the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._reopen or self._closed, POLL_SECONDS)
                # Lines are gathered for a moment, so that the thread takes few turns of the interpreter.
                self._changed.wait_for(lambda: self._hurry or self._closed, GATHER_SECONDS)
                self._taken = bool(self._waiting)
                if self._closed and not self._taken:
                    break
            if self._reopen:
                self._drop_file()
            while self._waiting:
                self._write_waiting()
            with self._changed:
                self._taken = self._reopen = self._hurry = False
                self._changed.notify_all()
        self._drop_file()

    def _write_waiting(self) -> None:
        lines = [self._waiting.popleft() for _ in range(min(len(self._waiting), TURN_LINES))]
        try:
            data = b"".join([line if isinstance(line, bytes) else self._encode(*line) for line in lines])
            self._write(data)
        except Exception as error:
            self.lost += len(lines)
            self._failures.failed("audit", error)
            self._drop_file()
        else:
            self._failures.works("audit")

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = io.FileIO(self._path, "ab", opener=_private)
            if self._file.tell() and not _ends_a_line(self._path):
                data = b"\n" + data  # of a write that was cut off
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        if self._file.tell() > self._file_bytes:
            self._rotate()

    def _rotate(self) -> None:
        """``audit.jsonl`` becomes ``audit.1.jsonl``, that ``audit.2.jsonl``, and so on; the oldest goes."""
        self._drop_file()
        names = [self._path, *(self._path.with_name(f"audit.{number}.jsonl") for number in range(1, self._files + 1))]
        for name, older in reversed(list(pairwise(names))):
            if name.exists():
                name.replace(older)

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()


def take_up(audit: AuditLog, writer: Writer[Order, Any]) -> None:
    """Audit what comes from now on; say so if lines are missing that the recovery did not replay."""
    snapshot = writer.recovered.snapshot
    if 0 < audit.last < snapshot:
        log.warning(
            "the audit log lacks commands %d to %d, which a snapshot has: see hostler audit", audit.last + 1, snapshot
        )
    audit.begin(writer.sequence)
    writer.observers.append(audit)


def last_line(path: Path) -> int:
    """Sequence number of a file's last whole line; 0 if there is none, or the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    for line in reversed(lines):
        with suppress(msgspec.MsgspecError):
            return msgspec.json.decode(line, type=Line).sequence
    return 0


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _outcome(outcome: Any) -> str:
    if isinstance(outcome, HostlerError):
        return outcome.code
    if isinstance(outcome, Decision) and outcome.refusal is not None:
        return "no_valid_host"
    decision = getattr(outcome, "decision", outcome)
    if isinstance(decision, (VolumeDecision, VolumeGroupDecision, JointDecision)) and decision.refusal is not None:
        return "no_valid_host"
    if isinstance(outcome, p.Placed) and outcome.refusals:
        return f"{len(outcome.refusals)} of {len(outcome.hosts)} refused"
    return "ok"


def _is_placed(outcome: Decision | PackedDecision) -> bool:
    return isinstance(outcome, PackedDecision) or outcome.refusal is None


def _line_of_placement(sequence: int, order: Order, placed: bool, on: list[str]) -> Line:
    return Line(sequence, order.now, order.user, "place", "ok" if placed else "no_valid_host", on)


def _asked_for(request: p.Asked) -> list[str]:
    return [*request.instance_uuids[:NAMED], _project(request)]


def _project(request: p.Asked) -> str:
    return f"project:{request.project_id}"


def _on(command: Any) -> list[str]:
    """What a command is about, with nothing secret in it."""
    match command:
        case p.Place(request=request) | p.PlaceCandidates(request=request) | p.Hold(request=request):
            return _asked_for(request)
        case f.CreateGuest(request=request):
            return _asked_for(request)
        case f.AdoptGuest(request=request, backend=backend, key=key):
            return [*_asked_for(request), backend, key]
        case SelectDestinations(request=request):
            return _asked_for(request)
        case p.PlaceMany(requests=requests):
            return [f"project:{project}" for project in dict.fromkeys(request.project_id for request in requests)]
        case p.Release(uuids=uuids) | p.Spawned(uuids=uuids) | p.ConfirmHold(uuids=uuids):
            return list(uuids[:NAMED])
        case p.Heartbeats(names=names):
            return list(names[:NAMED])
        case p.UpdateAggregate(aggregate=aggregate):
            return [aggregate.uuid]
        case c.CreateFlavor(flavor=kept) | c.CreateVolumeType(volume_type=kept):
            return [kept.name]
        case c.SetIdentitySuffixes(domain=domain):
            return [domain]
        case f.OnVolumeClaim(volume=volume):
            return [volume]
        case f.AttachVolume() | f.DetachVolume() | f.ConfirmAttachment() | f.RefuseAttachment():
            return [command.uuid, command.volume]
        case f.SnapshotGuest() | f.DeleteGuestSnapshot() | f.OnSnapshotClaim():
            return [command.uuid, *([command.snapshot] if command.snapshot else ())]
        case g.ClaimInRegion(request=request, region=region):
            return [*request.instance_uuids[:NAMED], f"project:{request.project_id}", f"region:{region}"]
        case g.SettleRegionClaim(decision=decision, project=project):
            placed = decision.selections if decision is not None else ()
            return [*[each.instance_uuid for each in placed[:NAMED]], f"project:{project}"]
        case g.BeginRegionRelease(uuids=uuids) | g.ForgetRegionGuests(uuids=uuids):
            return list(uuids[:NAMED])
        case g.RecordRegionCall(method=method, uuids=uuids):
            return [*uuids[:NAMED], f"method:{method}"]
        case p.ReportHosts(each=each):
            return [str(name) for name in each.get("nodename", each.get("host", ()))[:NAMED]]
        case s.PlaceVolume(request=asked) | s.ManageVolume(request=asked) | f.CreateVolume(request=asked):
            return [*([] if asked.volume_id is None else [asked.volume_id]), f"project:{asked.project_id}"]
        case s.PlaceVolumeGroup(project_id=project):
            return [f"project:{project}"]
        case s.PlaceTogether(request=request):
            return _asked_for(request)
        case s.ReportVolumeBackends(reports=reports):
            return [each.host for each in reports[:NAMED]]
        case s.DeleteVolumes(uuids=uuids) | s.DeleteVolumeSnapshots(uuids=uuids) | s.DeleteVolumeBackups(uuids=uuids):
            return list(uuids[:NAMED])
        case s.SetVolumeBackend() | s.RemoveVolumeBackend() | s.SetBackupService() | s.RemoveBackupService():
            return [command.host]
        case p.AddHosts(hosts=hosts):
            return [host.nodename or host.host for host in hosts[:NAMED]]
        case c.CreateToken(id=name, user=user):
            return [name, user]
        case SetAllocations(consumers=consumers) | Reshape(consumers=consumers):
            return list(consumers)[:NAMED]
    fields = ("id", "uuid", "name", "provider", "consumer", "resource_class", "scope", "user", "role")
    return [str(getattr(command, field)) for field in fields if getattr(command, field, None) is not None]
