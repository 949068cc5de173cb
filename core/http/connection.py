"""One HTTP/1.1 connection: requests are read within the limits, answered one after the other, and logged.

h11 implements the protocol; this module enforces deadlines and limits on slow, silent or excessive clients.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import h11
import trio

from ..failures import release_frames
from .access_log import AccessLog
from .answering import Answering
from .errors import HttpError, error_body
from .messages import Request, Response, too_large

CHUNK: Final = 65_536
QUIETLY: Final = 65_536
"""An unused body up to this many bytes is read and discarded; before a longer one the connection is closed."""


class Connection:
    """Serves a stream until the client closes it, the client errs, or the server stops."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, api: Answering, log: AccessLog, client: str) -> None:
        self._stream, self._api, self._log, self._client = stream, api, log, client
        self._limits = api.config.limits
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes)
        self._idle = trio.CancelScope()
        self._stopping = False
        self._declared: int | None = 0
        """Declared length of the body; None for a chunked body."""
        self._broken_off = False
        """Reading a body ended before the body did."""

    def stop(self) -> None:
        """Close after the current request is answered, or immediately if there is none."""
        self._stopping = True
        self._idle.cancel()

    async def serve(self) -> None:
        """Serve the connection to its end."""
        try:
            while await self._exchange():
                self._h11.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            release_frames(error)  # the client has disconnected
        except h11.RemoteProtocolError as error:
            await self._give_up(_not_http(error))
        except HttpError as error:
            await self._give_up(error)
            release_frames(error)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    # one request after the other

    async def _exchange(self) -> bool:
        """Read and answer a request; whether there may be another."""
        head = await self._head()
        if head is None:
            return False
        started = time.perf_counter()
        request = self._request(head)
        response, exchange = await self._api.respond(request)
        keep = not self._stopping and self._can_settle()
        await self._send(response, head=request.method == "HEAD", close=not keep)
        self._log.request(exchange, response, time.perf_counter() - started)
        if keep:
            await self._settle()
        else:
            await self._drain()
        return keep and self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def _head(self) -> h11.Request | None:
        """The next request line and headers; None if the client closed or was silent for too long."""
        event: object = self._h11.next_event()
        if event is h11.NEED_DATA and not self._stopping:
            with self._idle:
                self._idle.deadline = trio.current_time() + self._limits.idle_seconds
                await self._receive()
            if self._idle.cancelled_caught:
                return None
            self._idle = trio.CancelScope()
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                event = await self._rest_of_head()
        if not isinstance(event, h11.Request):
            return None
        size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
        if size > self._limits.header_bytes:  # h11 limits what is incomplete, and here the rest came at once
            raise HttpError(431, "The request line and headers are too large.")
        return event

    async def _rest_of_head(self) -> object:
        with trio.move_on_after(self._limits.head_seconds):
            while True:
                await self._receive()
                event = self._h11.next_event()
                if event is not h11.NEED_DATA:
                    return event
        raise HttpError(408, "The headers took too long.")

    def _request(self, head: h11.Request) -> Request:
        headers: dict[str, str] = {}
        for name, value in head.headers:
            key, text = name.decode("ascii"), value.decode("latin-1")
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        self._declared = None if "transfer-encoding" in headers else int(headers.get("content-length", 0))
        target, _, query = head.target.decode("ascii").partition("?")
        return Request(
            method=head.method.decode("ascii"),
            path=self._below_prefix(unquote(target)),
            raw_query=query,
            headers=headers,
            read_body=self._body,
            client=self._client,
        )

    def _below_prefix(self, path: str) -> str:
        """The path without the mount prefix; a path outside it becomes one that does not exist."""
        prefix = self._api.config.prefix
        if not prefix:
            return path
        if path == prefix or path.startswith(prefix + "/"):
            return path[len(prefix) :]
        return "/" if path == "/" else f"//{path}"

    # bodies

    async def _body(self) -> bytes:
        """The whole body. HttpError: 413 if it is too large, 408 if it is too slow, 400 if it breaks off."""
        if self._declared is not None and self._declared > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)
        if self._h11.they_are_waiting_for_100_continue:
            await self._write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))
        self._broken_off = True
        with trio.move_on_after(self._limits.body_seconds):
            try:
                body = await self._parts(self._limits.body_bytes)
                self._broken_off = False
                return body
            except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
                raise HttpError(400, f"The body broke off: {error}") from error
        raise HttpError(408, "The body took too long.")

    async def _parts(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                size += len(event.data)
                if size > limit:
                    raise too_large(limit)
            elif event is h11.NEED_DATA:
                await self._receive()
            else:
                return b"".join(parts)

    def _can_settle(self) -> bool:
        """Whether little enough of the request is unread to read on to its end."""
        if self._h11.their_state is h11.SEND_BODY and not self._broken_off:
            short = self._declared is not None and self._declared <= QUIETLY
            return short and not self._h11.they_are_waiting_for_100_continue
        return self._h11.their_state is h11.DONE

    async def _settle(self) -> None:
        """Read the request to its end."""
        if self._h11.their_state is h11.SEND_BODY:
            with trio.move_on_after(self._limits.drain_seconds):
                await self._parts(QUIETLY)

    async def _drain(self) -> None:
        """Take for a while what the client still sends: if it were refused, the answer would be lost on its way."""
        with trio.move_on_after(self._limits.drain_seconds):
            await self._stream.send_eof()
            while await self._stream.receive_some(CHUNK):
                pass

    # bytes

    async def _receive(self) -> None:
        self._h11.receive_data(bytes(await self._stream.receive_some(CHUNK)))

    async def _write(self, data: bytes | None) -> None:
        with trio.move_on_after(self._limits.write_seconds):
            await self._stream.send_all(data or b"")
            return
        raise trio.BrokenResourceError("the client does not take the answer")

    async def _send(self, response: Response, *, head: bool = False, close: bool = False) -> None:
        headers = [(name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in response.headers]
        if response.content_type is not None:
            headers.append((b"content-type", response.content_type.encode("ascii")))
        if response.status != 204:
            headers.append((b"content-length", b"%d" % len(response.body)))
        if close:
            headers.append((b"connection", b"close"))
        reason = HTTPStatus(response.status).phrase.encode("ascii")
        start = h11.Response(status_code=response.status, headers=headers, reason=reason)
        parts = [self._h11.send(start)]
        if response.body and not head:
            parts.append(self._h11.send(h11.Data(data=response.body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        await self._write(b"".join(part for part in parts if part))

    async def _give_up(self, error: HttpError) -> None:
        """Send the reason and close: the input on the connection is not valid HTTP."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        kind, body = error_body(error, "application/json", "", None)
        try:
            await self._send(Response(error.status, body, kind), close=True)
            self._log.refused(self._client, error)
            await self._drain()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as lost:
            release_frames(lost)  # the client has disconnected


def _not_http(error: h11.RemoteProtocolError) -> HttpError:
    if "Content-Length" in str(error):
        return HttpError(400, "content-length header must be an integer")
    status = error.error_status_hint if error.error_status_hint in (400, 413, 431, 501) else 400
    return HttpError(status, f"This is not HTTP/1.1 as RFC 9112 has it: {error}")
