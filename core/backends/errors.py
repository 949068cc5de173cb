"""Errors of back ends, by what the reconciler does about them. A driver maps each error code of its back end to one of
these classes in a table; the reconciler reads only the class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from ...placement.types.errors import HostlerError

FailureClass = Literal["transient", "unknown", "capacity", "quota", "conflict", "not_found", "permanent", "denied"]


class DriverError(HostlerError):
    """Base of all errors that a driver raises. ``backend_code``: the back end's own code, if it has one. ``nodes``: for
    what is not known of some nodes only, since these do not answer: of the others it is known that the object is not
    there, and the back end counts as answering. Use one of the subclasses."""

    code = "backend_error"
    failure: FailureClass = "permanent"

    def __init__(
        self,
        message: str,
        *,
        backend_code: str = "",
        nodes: Iterable[str] = (),
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.backend_code = backend_code
        self.nodes = frozenset(nodes)

    @property
    def text(self) -> str:
        """The message with the back end's code, at most 1,000 characters."""
        return (f"{self.backend_code}: {self}" if self.backend_code else str(self))[:1_000]


class Transient(DriverError):
    """Nothing was done, and the same call may succeed later: ``after`` seconds at the earliest, where the back end says
    so. It is repeated with backoff until the deadline of the claim."""

    code = "backend_transient"
    failure = "transient"

    def __init__(
        self,
        message: str,
        *,
        after: float = 0.0,
        backend_code: str = "",
        nodes: Iterable[str] = (),
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, backend_code=backend_code, nodes=nodes, field=field, hint=hint)
        self.after = after


class Unknown(DriverError):
    """It is not known whether the call was carried out: the connection was lost after the request was sent, or the
    answer is unreadable. The object is looked up before anything is repeated."""

    code = "backend_unknown_outcome"
    failure = "unknown"


class Capacity(DriverError):
    """The node, pool or zone has no room. The claim is released and placed elsewhere."""

    code = "backend_capacity"
    failure = "capacity"


class Quota(DriverError):
    """A limit of the account on the back end is reached. The claim is released; the user is told."""

    code = "backend_quota"
    failure = "quota"


class Conflict(DriverError):
    """The object is in another state than the call needs, or exists with other properties. It is looked up and
    compared."""

    code = "backend_conflict"
    failure = "conflict"


class NotFound(DriverError):
    """There is no such object."""

    code = "backend_not_found"
    failure = "not_found"


class Permanent(DriverError):
    """The call can never succeed: unsupported, or invalid parameters. The claim is released; the user is told."""

    code = "backend_permanent"
    failure = "permanent"


class Denied(DriverError):
    """The back end refuses the driver's credentials. The back end is not used until an operator enables it again."""

    code = "backend_denied"
    failure = "denied"


FAILURES: Final[dict[FailureClass, type[DriverError]]] = {
    "transient": Transient,
    "unknown": Unknown,
    "capacity": Capacity,
    "quota": Quota,
    "conflict": Conflict,
    "not_found": NotFound,
    "permanent": Permanent,
    "denied": Denied,
}
"""The classes by name."""
