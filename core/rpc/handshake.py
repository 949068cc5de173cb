"""TLS handshakes on trio's streams, whose failure both ends are told."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any, Final, cast

import trio

from ..tls_failures import words
from .tls import HANDSHAKE, TlsFailed, failure

READ_SECONDS: Final = 2.0
"""For a peer to read why it is not served."""


class _Seen:
    """A context that lets one see what a failed handshake leaves unsent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.unsent = ssl.MemoryBIO()

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any) -> ssl.SSLObject:
        self.unsent = outgoing
        return self._context.wrap_bio(incoming, outgoing, **options)


async def secured(
    raw: trio.SocketStream, context: ssl.SSLContext, *, service: str | None = None
) -> trio.SSLStream[trio.SocketStream]:
    """TLS on a connection, after the handshake: as a client of the named ``service``, or as the service. TlsFailed has
    the reason of a failure, which the peer receives as an alert. BrokenResourceError if the connection is lost."""
    seen = _Seen(context)
    stream = trio.SSLStream(
        raw,
        cast(ssl.SSLContext, seen),
        server_side=service is None,
        server_hostname=service,
        https_compatible=True,
    )
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        alert = seen.unsent.read()
        if alert:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await raw.send_all(alert)
                await let_read(raw)
        if not isinstance(error.__cause__, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLEOFError):
            raise
        if service is None:
            why = words(error.__cause__)
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                why = f"its certificate is invalid: {why}"
            raise TlsFailed(f"no TLS with a client: {why}", field="tls") from error
        raise failure(error.__cause__) or error from error.__cause__
    return stream


async def begins_with_tls(raw: trio.SocketStream) -> bool:
    """True if the first byte is that of TLS; it is not consumed."""
    return await raw.socket.recv(1, socket.MSG_PEEK) in (HANDSHAKE, b"")


async def let_read(raw: trio.abc.HalfCloseableStream) -> None:
    """Give a peer time to read: closing with unread input would discard what was sent."""
    with trio.move_on_after(READ_SECONDS):
        await raw.send_eof()
        while await raw.receive_some(65_536):
            pass
