"""A request as the handlers see it, and their answer, independent of the connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from .errors import HttpError, bad_request
from .identity import NOBODY, Identity

CACHE_HEADERS_SINCE: Final = 15


@dataclass(slots=True)
class Request:
    """One request. Header names are in lower case, repeated headers joined by commas.

    The pipeline sets the fields after ``read_body``.
    """

    method: str
    path: str
    """Below the mount prefix, percent-decoded."""
    raw_query: str
    headers: Mapping[str, str]
    read_body: Callable[[], Awaitable[bytes]]
    client: str = "-"
    request_id: str = ""
    now: float = 0.0
    """Seconds since the epoch."""
    minor: int = 0
    identity: Identity = NOBODY
    items: tuple[str, ...] = ()
    """The variable parts of the path, in order."""
    prefix: str = ""
    query_fields: int = 1_000
    _query: Query | None = field(default=None, init=False)

    @property
    def query(self) -> Query:
        """The parsed query string. Raises HttpError (400) if it is not UTF-8 or has too many fields."""
        if self._query is None:
            self._query = Query.parse(self.raw_query, self.query_fields)
        return self._query

    @property
    def origin(self) -> str:
        """Scheme, host and port that the client used; empty if unknown."""
        host = self.headers.get("host", "")
        return f"http://{host}" if host else ""

    def url(self, path: str) -> str:
        """Absolute address of a path of the API."""
        return f"{self.origin}{self.prefix}{path}"


class Query:
    """The fields of a query string in the given order; a name may occur several times."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    @classmethod
    def parse(cls, raw: str, most: int) -> Query:
        """Take a query string apart. Raises HttpError (400)."""
        if not raw:
            return cls([])
        try:
            return cls(parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=most))
        except ValueError as error:  # also UnicodeDecodeError
            raise bad_request(f"Invalid query string parameters: {error}") from error

    def last(self) -> dict[str, str]:
        """Name -> its last value."""
        return dict(self.pairs)

    def all(self, name: str) -> list[str]:
        """All values of a name."""
        return [value for key, value in self.pairs if key == name]

    def names(self) -> set[str]:
        """The names that occur."""
        return {key for key, _ in self.pairs}


@dataclass(slots=True)
class Response:
    """An answer: without a content type it has no body."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Exchange:
    """Facts about a request for the access log."""

    request: Request
    minor: int | None = None
    problem: str | None = None
    """The traceback of an error of Hostler's own."""


@lru_cache(maxsize=64)
def http_date(seconds: int) -> str:
    """Seconds since the epoch as HTTP writes a date."""
    return formatdate(seconds, usegmt=True)


def answer(request: Request, value: Any, *, modified: float | None = None, status: int = 200) -> Response:
    """``value`` as JSON. From 1.15 with Last-Modified: the current time if unknown."""
    response = Response(status, msgspec.json.encode(value), "application/json")
    return dated(request, response, modified)


def undated(request: Request, value: Any) -> Response:
    """``value`` as JSON, without Last-Modified: for a list of inventories that is empty, as the real service does."""
    response = Response(200, msgspec.json.encode(value), "application/json")
    if request.minor >= CACHE_HEADERS_SINCE:
        response.headers.append(("cache-control", "no-cache"))
    return response


def dated(request: Request, response: Response, modified: float | None = None) -> Response:
    """The response with the caching headers that it has from 1.15."""
    if request.minor >= CACHE_HEADERS_SINCE:
        seconds = int(request.now if modified is None else modified)
        response.headers += (("last-modified", http_date(seconds)), ("cache-control", "no-cache"))
    return response


def no_content() -> Response:
    """204."""
    return Response(204)


def too_large(limit: int) -> HttpError:
    """413."""
    return HttpError(413, f"The body may have {limit} bytes.")
