"""Calls of drivers over HTTP: one request, with failures of the connection and HTTP's own status codes as errors of the
protocol. What the bodies of answers mean is the driver's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import httpx
import trio

from .protocol import Conflict, Denied, DriverError, NotFound, Permanent, Transient, Unknown

READ_SECONDS: Final = 25.0
"""Seconds to wait for an answer, of back ends whose driver names no others."""
CONNECT_SECONDS: Final = 10.0
POOL_SECONDS: Final = 60.0
"""Seconds to wait for a free connection."""

STATUS: Final[Mapping[int, type[DriverError]]] = {
    400: Permanent,
    401: Denied,
    403: Denied,
    404: NotFound,
    405: Permanent,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: Permanent,
    429: Transient,
    500: Unknown,
    501: Permanent,
    502: Unknown,
    503: Transient,
    504: Unknown,
}
"""Status codes by class, for answers whose body does not say more. Others below 500 are permanent, others above of
unknown outcome."""
NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures before the request was sent."""
LONGEST_TEXT: Final = 500
MOST_BYTES: Final = 256 * 2**20
"""The longest answer that is read, decompressed; a page of any listing is much shorter."""


CODED: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of a body as it was sent."""


class Http:
    """A client of one back end."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        reads: bool | None = None,
    ) -> httpx.Response:
        """The answer, of whatever status. ``reads``: the request changes nothing, so that no failure leaves its outcome
        unknown (default: GET and HEAD do). Transient if it was not sent; Unknown if it is not known what it did, or
        the answer has more than MOST_BYTES."""
        request = self._client.build_request(
            method, url, json=json, content=content, params=params, headers=dict(headers or {})
        )
        try:
            answer = await self._client.send(request, stream=True)
            try:
                return await _read(answer)
            finally:
                with trio.CancelScope(shield=True):
                    await answer.aclose()
        except NOT_SENT as error:
            raise Transient(f"{request.url.host} cannot be reached: {_text(error)}") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            kind = Transient if (method in ("GET", "HEAD") if reads is None else reads) else Unknown
            raise kind(f"{request.url.host} did not answer: {_text(error)}") from error


async def _read(answer: httpx.Response) -> httpx.Response:
    """An answer with its body, no longer than is read."""
    body = bytearray()
    parts: Any = answer.aiter_bytes()  # a generator
    async with aclosing(parts):
        async for part in parts:
            body += part
            if len(body) > MOST_BYTES:
                raise httpx.DecodingError(f"the answer has more than {MOST_BYTES} bytes", request=answer.request)
    headers = [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in CODED]
    return httpx.Response(answer.status_code, headers=headers, content=bytes(body), request=answer.request)


def failure_of(answer: httpx.Response, text: str = "", *, reads: bool | None = None) -> DriverError:
    """The error for an answer by its status alone. ``reads`` as in ``Http.send``: what only reads is never of unknown
    outcome."""
    status = answer.status_code
    kind = STATUS.get(status, Permanent if status < 500 else Unknown)
    if kind is Unknown and (answer.request.method in ("GET", "HEAD") if reads is None else reads):
        kind = Transient
    message = (
        f"{answer.request.url.host} answered {status}: {text or answer.text[:LONGEST_TEXT] or answer.reason_phrase}"
    )
    if kind is Transient:
        return Transient(message, after=retry_after(answer), backend_code=str(status))
    return kind(message, backend_code=str(status))


def retry_after(answer: httpx.Response) -> float:
    """Seconds that the header Retry-After asks to wait; 0 if it names none."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def object_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of a successful answer. Unknown, or Transient if the request only reads, for any other body."""
    try:
        found = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        kind = Transient if answer.request.method == "GET" else Unknown
        raise kind(f"{answer.request.url.host} answered no JSON object: {answer.text[:LONGEST_TEXT]}")
    return found


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


@asynccontextmanager
async def open_http(
    endpoint: str = "",
    *,
    concurrency: int,
    auth: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    verify: Any = True,
    read_seconds: float = READ_SECONDS,
) -> AsyncIterator[Http]:
    """A client with at most ``concurrency`` connections. ``verify``: an SSL context, or whether certificates are
    checked. ``read_seconds`` to wait for an answer."""
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(
        base_url=endpoint,
        auth=auth,
        headers=dict(headers or {}),
        verify=verify,
        limits=limits,
        timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS, pool=POOL_SECONDS),
        trust_env=False,
    ) as client:
        yield Http(client)
