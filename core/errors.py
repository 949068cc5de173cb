"""Errors of the service, and the conversion of every Hostler error to a plain value that can be stored or sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from ..placement.types.errors import HostlerError, RuleFailed


class Overloaded(HostlerError):
    """More commands wait than the queue may hold. Nothing was done."""

    code = "overloaded"


class DeadlineExceeded(HostlerError):
    """The caller's deadline passed before the answer; the message says whether the command may still be applied."""

    code = "deadline_exceeded"


class StorageFailed(HostlerError):
    """The journal or a snapshot cannot be written or read (disk full, read-only, I/O error)."""

    code = "storage_failed"


class DataDamaged(HostlerError):
    """Data on disk differs from what was written: a checksum is wrong, or a part is missing."""

    code = "data_damaged"


class DataInUse(HostlerError):
    """Another process has the data folder open."""

    code = "data_in_use"


class UnreadableCommand(HostlerError):
    """A command in the journal was written by another version of Hostler."""

    code = "unreadable_command"


class KeyReused(HostlerError):
    """An idempotency key was reused with another command."""

    code = "key_reused"


class Stopped(HostlerError):
    """The service is stopping, or not running yet. Nothing was done."""

    code = "stopped"


class NotLeader(HostlerError):
    """This member of a cluster takes no commands: another one leads, or none does at the moment. Nothing was done.
    ``leader``: the addresses of the one that leads, as far as that is known; ``leader_url``: its Placement API."""

    code = "not_leader"
    leader: Sequence[str] = ()
    leader_url: str = ""

    @classmethod
    def naming(cls, name: str, addresses: Sequence[str], url: str = "", *, silent: float | None = None) -> NotLeader:
        """The error that names the leader. ``silent``: seconds for which etcd has not said so, where that is long."""
        where = f" at {', '.join(addresses)}" if addresses else ""
        text, hint = f"{name} leads{where}, and this member takes no commands", "ask the leader"
        if silent is not None:
            text = f"etcd has not answered this member for {silent:.0f} s: {name}{where} led then, or was about to"
            hint = "see whether etcd has a quorum, and whether this member reaches it"
        error = cls(text, hint=hint)
        error.leader, error.leader_url = tuple(addresses), url
        return error


class LeadershipLost(HostlerError):
    """The member stopped leading while a command was being written: the command may have been carried out. The next
    leader answers a repetition with the same key with what became of it."""

    code = "leadership_lost"


class TooStale(HostlerError):
    """What this member knows is older than the caller accepts. Nothing was answered. ``behind_ms``: its age."""

    code = "too_stale"
    behind_ms: float = 0.0
    leader: Sequence[str] = ()


class RegionsUnavailable(HostlerError):
    """No region that might take the request has answered. What a region may have claimed without saying so is
    released."""

    code = "regions_unavailable"


class InternalError(HostlerError):
    """A fault of Hostler's own. The log has the details."""

    code = "internal"


class StateUnknown(Exception):
    """A command failed for a reason that does not depend on it (no memory, a fault of Hostler's own), so what it has
    changed is unknown. Not a HostlerError, because it is never the outcome of a command: the process ends, and recovery
    restores a known state."""


DEPENDS_ON_COMMAND: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, msgspec.MsgspecError)
"""Errors of a rule, of decoding, or of Hostler's own, that the same command meets in each replay. Other errors (no
memory, no threads, a failed assertion) are never the outcome of a command."""
E = TypeVar("E", bound=Exception)
_HARMLESS: Final = (HostlerError, *DEPENDS_ON_COMMAND, RecursionError, StopIteration)
"""Errors during whose handling a refusal may be raised. The decoder raises RecursionError for values that are nested
too deeply."""


def checked_outcome(error: E) -> E:
    """Return ``error``, which is the outcome of a command. StateUnknown if it was raised while an error that cannot be
    an outcome was handled: undoing a command that ran out of memory may itself end in a refusal. What a rule of others
    raised is its own: the error that names the rule is the outcome."""
    before = None if isinstance(error, RuleFailed) else error.__context__
    while before is not None and not isinstance(before, RuleFailed):
        if not isinstance(before, _HARMLESS):
            raise StateUnknown(f"{error!r} came of {before!r}") from error
        before = before.__context__
    return error


class ErrorValue(msgspec.Struct, array_like=True):
    """An error as a value: ``extra`` holds what its kind has besides the common fields, as far as it is plain."""

    code: str
    message: str
    field: str | None = None
    hint: str | None = None
    extra: dict[str, Any] = {}


def to_value(error: HostlerError) -> ErrorValue:
    """The error as a value."""
    message = str(error.args[0]) if error.args else ""
    extra = {name: value for name, value in vars(error).items() if name not in ("field", "hint") and _plain(value)}
    return ErrorValue(error.code, message, error.field, error.hint, extra)


def from_value(value: ErrorValue) -> HostlerError:
    """The error for a value; a plain HostlerError with its code if the code is unknown."""
    kind = next((kind for kind in _kinds(HostlerError) if kind.code == value.code), HostlerError)
    error = kind.__new__(kind)
    HostlerError.__init__(error, value.message, field=value.field, hint=value.hint)
    vars(error).update(value.extra)
    if kind is HostlerError:
        error.code = value.code
    return error


def _kinds(kind: type[HostlerError]) -> Iterator[type[HostlerError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, bytes))


def check_not_newer(name: str, found: int, known: int, what: str = "format") -> None:
    """UnreadableCommand for what a newer Hostler wrote, which is left as it is: in a format that is not known here, or
    under a revision of the rules, which would be decided in another way here."""
    if found > known:
        text = f"{name} has {what} {found}, this Hostler reads up to {known}"
        raise UnreadableCommand(text, field="data", hint="use the Hostler that wrote it; nothing was changed")
