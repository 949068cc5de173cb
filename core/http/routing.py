"""Which handler answers a method and path at a microversion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from .errors import HttpError
from .handling import Handling
from .messages import Request, Response
from .microversion import NEWEST

Handler = Callable[[Request, Handling], Awaitable[Response]]
Key = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler for one method of a path, at the microversions 1.``since`` to 1.``until``."""

    method: str
    path: str
    """Variable parts in braces; they stand at every second place."""
    handler: Handler
    rule: str | None
    """The policy rule; None: no restriction."""
    since: int = 0
    until: int = NEWEST
    body: bool = False
    """The request has a JSON body."""
    type_first: bool = False
    """The media type of the body is checked before the microversion."""
    gives_json: bool = False
    """The answer is JSON, and the client must accept that."""
    too_early: int = 404
    """The status at other microversions."""
    own_policy: bool = False
    """The handler judges the rule itself, since that depends on the query."""


class Routes:
    """All routes, by path. Matching is O(length of the path)."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_path: dict[Key, dict[str, list[Route]]] = {}
        for route in routes:
            methods = self._by_path.setdefault(_key(route.path), {})
            methods.setdefault(route.method, []).append(route)

    def match(self, request: Request) -> Route:
        """The route of a request, whose ``items`` are set. Raises HttpError 404 and 405."""
        path = request.path or "/"
        methods = self._by_path.get(_key(path))
        parts = path.split("/")
        items = tuple(parts[2::2])
        if methods is None or not all(items):
            raise HttpError(404)
        routes = methods.get(request.method)
        if routes is None:
            raise _not_allowed(request, methods)
        for route in routes:
            if route.since <= request.minor <= route.until:
                request.items = items
                return route
        if routes[0].type_first:
            check_media_type(request)
        # As the real service, without an Allow header where the method is that of another microversion.
        raise HttpError(404) if routes[0].too_early == 404 else HttpError(405, sentence=_sentence(request))


def check_media_type(request: Request) -> None:
    """Raise HttpError 415 unless the body is said to be JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, f"The media type {kind or None} is not supported, use application/json")


def _key(path: str) -> Key:
    """The fixed parts of a path, None for the variable ones."""
    return tuple(None if place % 2 else part for place, part in enumerate(path.split("/")[1:]))


def _not_allowed(request: Request, methods: Iterable[str]) -> HttpError:
    return HttpError(405, sentence=_sentence(request), headers=[("allow", ", ".join(methods))])


def _sentence(request: Request) -> str:
    return f"The method {request.method} is not allowed for this resource."
