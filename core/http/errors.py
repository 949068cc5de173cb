"""Refusals of a request as HTTP has them: a status, Placement's error code, and a body in JSON or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from typing import Any, Final

import msgspec

from ...placement.types.errors import HostlerError

UNDEFINED_CODE: Final = "placement.undefined_code"
CODE_SINCE: Final = 23

_SENTENCES: Final = {
    400: "The request is malformed or invalid.",
    401: "The request carries no token that is accepted here.",
    403: "Access was denied to this resource.",
    404: "The resource could not be found.",
    406: "The answer cannot be given in a form that the client accepts.",
    408: "The request did not arrive in time.",
    409: "The request conflicts with the present state of the resource.",
    413: "The request is larger than this server allows.",
    415: "The body of the request has a media type that is not supported here.",
    431: "The headers of the request are larger than this server allows.",
    500: "The server failed to answer the request; see its log.",
    503: "The server cannot take the request now; try again later.",
}


class HttpError(HostlerError):
    """A request is refused. ``status`` is HTTP's, ``code`` is Placement's error code, ``headers`` are sent with it."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: str = UNDEFINED_CODE,
        headers: Sequence[tuple[str, str]] = (),
        sentence: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, tuple(headers)
        self.sentence = sentence if sentence is not None else _SENTENCES.get(status, HTTPStatus(status).phrase)

    @property
    def detail(self) -> str:
        """The text of the body: a sentence for the status, then the message."""
        return f"{self.sentence}\n\n {self.message}  " if self.message else f"{self.sentence}\n\n   "


def bad_request(message: str, code: str = UNDEFINED_CODE) -> HttpError:
    """400."""
    return HttpError(400, message, code=code)


def not_found(message: str = "") -> HttpError:
    """404."""
    return HttpError(404, message)


def conflict(message: str, code: str = UNDEFINED_CODE) -> HttpError:
    """409."""
    return HttpError(409, message, code=code)


def error_body(error: HttpError, accept: str, request_id: str, minor: int | None) -> tuple[str, bytes]:
    """Content type and body of a refusal, in the form that the Accept header asks for.

    ``minor`` is the microversion 1.``minor``, None where it was not negotiated.
    """
    title = HTTPStatus(error.status).phrase
    kind = preferred(accept, ("text/html", "application/json"))
    if kind == "application/json":
        return kind, msgspec.json.encode({"errors": [_error(error, title, request_id, minor)]})
    if kind == "text/html":
        text = escape(error.detail.strip()).replace("\n\n", "<br /><br />\n")
        page = (
            f"<html>\n <head>\n  <title>{error.status} {title}</title>\n </head>\n"
            f" <body>\n  <h1>{error.status} {title}</h1>\n  {text}\n </body>\n</html>"
        )
        return "text/html; charset=UTF-8", page.encode()
    return "text/plain; charset=UTF-8", f"{error.status} {title}\n\n{error.detail}".encode()


def _error(error: HttpError, title: str, request_id: str, minor: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"status": error.status, "title": title, "detail": error.detail}
    if minor is not None and minor >= CODE_SINCE:
        body["code"] = error.code
    body["request_id"] = request_id
    if error.status == 406 and minor is None:
        body["max_version"], body["min_version"] = "1.39", "1.0"
    return body


def preferred(accept: str, offers: Sequence[str]) -> str | None:
    """The first of ``offers`` with the highest quality in an Accept header (RFC 9110, section 12.5.1); None if none is
    acceptable."""
    best, best_quality = None, 0.0
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    for offer in offers:
        quality = _quality(offer, ranges)
        if quality > best_quality:
            best, best_quality = offer, quality
    return best


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return name.lower(), quality


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that covers the offer."""
    for pattern in (offer, offer.partition("/")[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0


def unauthorized(challenge: str = "") -> HttpError:
    """401, with what the client may do about it."""
    headers = [("www-authenticate", challenge)] if challenge else []
    return HttpError(401, headers=headers)
