"""All errors that Hostler raises deliberately: one hierarchy, each with a stable code, the field at fault, and a
hint."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Final

COMPARED: Final = 200
"""Names that a wrong one is compared with at most."""
LONGEST_COMPARED: Final = 255
"""Characters of a wrong name that is compared with others."""
LONGEST: Final = 500
"""Characters that are said of the message of an error of others."""


class HostlerError(Exception):
    """Base of all errors. ``code`` is stable, for programs; ``field`` names the value at fault; ``hint`` says what to
    do."""

    code = "error"
    maybe_done = False
    """True where an earlier attempt of the same call was lost: it may have been carried out, whatever this says."""

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} ({self.hint})" if self.hint else text


class InvalidValue(HostlerError):
    """A value is of the wrong type, out of range, or contradicts another one."""

    code = "invalid_value"


class RuleFailed(InvalidValue):
    """A rule of others, named by ``field``, cannot be loaded or raised an error, whichever that is. Nothing of
    Hostler's own has failed."""

    code = "rule_failed"


class UnknownName(HostlerError):
    """A name (host, filter, trait, option, consumer, ...) that does not exist; the hint lists the closest existing
    names."""

    code = "unknown_name"

    @classmethod
    def among(cls, kind: str, name: str, valid: Iterable[str], *, field: str | None = None) -> UnknownName:
        """The error for ``name``, which is not one of ``valid``; the closest valid names become the hint. Of many names
        only COMPARED are looked at, those before and after it in the order of names, as comparing takes some 15 us
        each. O(names log names)."""
        import difflib  # here: no command that succeeds needs it

        names = sorted(valid)
        first = max(0, min(bisect.bisect(names, name) - COMPARED // 2, len(names) - COMPARED))
        near = names[first : first + COMPARED] if len(name) <= LONGEST_COMPARED else []
        close = difflib.get_close_matches(name, near, n=3, cutoff=0.5) or names[:3]
        hint = f"closest: {', '.join(close)}" if close else None
        return cls(f"unknown {kind} {name[:200]!r}", field=field or kind, hint=hint)


class DuplicateName(HostlerError):
    """A name or uuid that is already taken."""

    code = "duplicate_name"


class InUse(HostlerError):
    """The object to be removed still has allocations, children or inventory."""

    code = "in_use"


class CapacityExceeded(HostlerError):
    """An explicit claim does not fit a provider's inventory (Placement: capacity, min_unit, max_unit, step_size)."""

    code = "capacity_exceeded"


class NoValidHost(HostlerError):
    """No host fits the request; ``removed`` counts the hosts that each stage removed."""

    code = "no_valid_host"

    def __init__(self, message: str, *, removed: dict[str, int] | None = None, hint: str | None = None) -> None:
        super().__init__(message, field="request", hint=hint)
        self.removed = removed or {}


class MetricNotFound(HostlerError):
    """A metric that ``[metrics] required`` makes mandatory is missing on a host (Nova: ComputeHostMetricNotFound)."""

    code = "metric_not_found"


class SnapshotError(HostlerError):
    """A snapshot file is truncated, damaged or of an unknown version."""

    code = "snapshot"


def said(error: BaseException) -> str:
    """Kind and message of an error of others, in characters that can be sent: up to LONGEST of the message, which may
    not even be readable."""
    try:
        message = str(error)[:LONGEST]
    except Exception:  # it is others' code, which may fail in any way
        message = "its message cannot be read"
    return f"{type(error).__name__}: {message}".encode("utf-8", "replace").decode()
