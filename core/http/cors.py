"""Cross-origin requests of browsers, by the Fetch standard: which origins may call, and what their scripts may see."""

from __future__ import annotations

from typing import Final

from .config import Cors
from .messages import Request, Response

_SIMPLE_HEADERS: Final = frozenset(
    ("accept", "accept-language", "content-type", "cache-control", "content-language", "expires", "last-modified")
) | {"pragma"}


def preflight(config: Cors, request: Request) -> Response | None:
    """The answer to a browser that asks beforehand whether a call is allowed; None for any other request.

    A call that is not allowed gets an answer without permission in it.
    """
    origin = request.headers.get("origin")
    if not config.allowed_origin or request.method != "OPTIONS" or origin is None:
        return None
    response = Response(200)
    method = request.headers.get("access-control-request-method", "")
    asked = [name.strip() for name in request.headers.get("access-control-request-headers", "").split(",")]
    asked = [name for name in asked if name]
    allowed = {name.lower() for name in config.allow_headers} | _SIMPLE_HEADERS
    if _permits(config, origin) and method in config.allow_methods and all(name.lower() in allowed for name in asked):
        response.headers += _granted(config, origin)
        response.headers += [
            ("access-control-max-age", str(config.max_age)),
            ("access-control-allow-methods", method),
            ("access-control-allow-headers", ",".join(asked)),
        ]
    return response


def grant(config: Cors, request: Request, response: Response) -> None:
    """Let the scripts of an allowed origin see the response."""
    origin = request.headers.get("origin")
    if config.allowed_origin and origin is not None and _permits(config, origin):
        response.headers += _granted(config, origin)
        if config.expose_headers:
            response.headers.append(("access-control-expose-headers", ",".join(config.expose_headers)))


def _permits(config: Cors, origin: str) -> bool:
    return origin in config.allowed_origin or "*" in config.allowed_origin


def _granted(config: Cors, origin: str) -> list[tuple[str, str]]:
    """With credentials the origin is returned instead of a wildcard, as the standard requires."""
    granted = [("access-control-allow-origin", origin), ("vary", "Origin")]
    if config.allow_credentials and origin in config.allowed_origin:
        granted.append(("access-control-allow-credentials", "true"))
    return granted
