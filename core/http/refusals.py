"""Errors of the model and of the writer as HTTP refuses with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ...placement.api.errors import CONCURRENT_UPDATE, ApiError, BadRequest, Conflict, NotFound
from ...placement.types.errors import HostlerError
from ..errors import NotLeader
from .errors import HttpError

_UNAVAILABLE: Final = frozenset(
    ("overloaded", "deadline_exceeded", "storage_failed", "stopped", "not_leader", "leadership_lost")
)
"""Codes of errors that are independent of the request: it may be retried."""
_FORBIDDEN: Final = frozenset(("not_allowed", "quota_exceeded"))
_STATUS: Final[tuple[tuple[type[ApiError], int], ...]] = ((BadRequest, 400), (NotFound, 404), (Conflict, 409))


def as_http(error: HostlerError, target: str = "") -> HttpError:
    """The refusal for an error from below the HTTP layer; for a write at a member that follows, a redirect to the same
    ``target``, path and query, at the leader."""
    message = str(error.args[0]) if error.args else ""
    if isinstance(error, ApiError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
        return HttpError(status, message, code=error.placement_code)
    if isinstance(error, NotLeader) and error.leader_url and target:
        return HttpError(307, message, headers=[("location", error.leader_url + target)])
    if error.code in _UNAVAILABLE:
        return HttpError(503, message, headers=[("retry-after", "1")])
    if error.code in _FORBIDDEN:
        return HttpError(403, message)
    return HttpError(500 if error.code == "internal" else 400, message)


@contextmanager
def naming(**prefixes: str) -> Iterator[None]:
    """Prefix errors in a field of the query: ``resources`` or ``traits``."""
    try:
        yield
    except BadRequest as error:
        prefix = prefixes.get(error.field or "")
        if prefix is None:
            raise
        raise HttpError(400, f"{prefix}: {error.args[0]}", code=error.placement_code) from error


@contextmanager
def generation_checked() -> Iterator[None]:
    """Say of a provider's generation that has moved on what clients know of traits and aggregates."""
    try:
        yield
    except Conflict as error:
        if error.placement_code != CONCURRENT_UPDATE:
            raise
        message = "Resource provider's generation already changed. Please update the generation and try again."
        raise HttpError(409, message, code=error.placement_code) from error


@contextmanager
def said_as(status: int, prefix: str, *kinds: type[ApiError]) -> Iterator[None]:
    """Refuse with ``status`` and put ``prefix`` before the message of errors of these kinds."""
    try:
        yield
    except ApiError as error:
        if not isinstance(error, kinds):
            raise
        raise HttpError(status, f"{prefix}{error.args[0]}", code=error.placement_code) from error
