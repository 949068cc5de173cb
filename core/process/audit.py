"""The audit log: user, time, object and outcome of each command, as lines of JSON in files beside the journal. The
journal is authoritative: lines lost in a crash can be recovered by a replay."""

from __future__ import annotations

from io import BufferedWriter
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.api.commands import Reshape, SetAllocations
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError
from .. import engine_commands as p
from ..machine.orders import Order, PlacementWrite
from ..tenancy.commands import CreateToken

FILE_BYTES: Final = 256 << 20
"""Size in bytes at which a new file is started; the previous one is kept as ``audit.1.jsonl``."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """``time`` in seconds since the epoch; ``outcome`` is ok, or an error's code."""

    sequence: int
    time: float
    user: str
    command: str
    outcome: str
    on: list[str] = []


class AuditLog:
    """An observer of the writer. Lines are buffered; ``flush`` now and then."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit.jsonl"
        self._file: BufferedWriter = self._path.open("ab")
        self._encode = msgspec.json.Encoder().encode
        self.lost = 0
        """Lines that could not be written."""

    def __call__(self, sequence: int, order: Order, outcome: Any) -> None:
        command: Any = order.command
        name = command.__struct_config__.tag
        if isinstance(command, PlacementWrite):
            name, command = f"{name}.{type(command.command).__name__}", command.command
        line = Line(sequence, order.now, order.user, name, _outcome(outcome), _on(command))
        try:
            self._file.write(self._encode(line) + b"\n")
        except OSError:
            self.lost += 1

    def flush(self) -> None:
        """Have the lines reach the file, and begin a new one if it is long."""
        try:
            self._file.flush()
            if self._file.tell() > FILE_BYTES:
                self._file.close()
                self._path.replace(self._path.with_name("audit.1.jsonl"))
                self._file = self._path.open("ab")
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """Flush and close."""
        try:
            self._file.close()
        except OSError:
            self.lost += 1


def _outcome(outcome: Any) -> str:
    if isinstance(outcome, HostlerError):
        return outcome.code
    if isinstance(outcome, Decision) and outcome.refusal is not None:
        return "no_valid_host"
    if isinstance(outcome, p.Placed) and outcome.refusals:
        return f"{len(outcome.refusals)} of {len(outcome.hosts)} refused"
    return "ok"


def _on(command: Any) -> list[str]:
    """What a command is about, with nothing secret in it."""
    match command:
        case p.Place(request=request):
            return [*request.instance_uuids[:100], f"project:{request.project_id}"]
        case p.PlaceMany(requests=requests):
            return [f"project:{project}" for project in dict.fromkeys(request.project_id for request in requests)]
        case p.Release(uuids=uuids) | p.Spawned(uuids=uuids):
            return list(uuids[:100])
        case p.AddHosts(hosts=hosts):
            return [host.nodename or host.host for host in hosts[:100]]
        case CreateToken(id=name, user=user):
            return [name, user]
        case SetAllocations(consumers=consumers) | Reshape(consumers=consumers):
            return list(consumers)[:100]
    fields = ("id", "uuid", "name", "provider", "consumer", "resource_class", "scope", "user", "role")
    return [str(getattr(command, field)) for field in fields if getattr(command, field, None) is not None]
