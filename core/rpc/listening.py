"""Listening on the addresses of a service. A client needs none of it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Final

import trio

from .addresses import Address, AddressInUse

BACKLOG: Final = 1024


async def listen(address: Address) -> list[trio.SocketListener]:
    """Listeners on an address. AddressInUse if it cannot be used."""
    try:
        if address.kind == "unix":
            return [trio.SocketListener(trio.socket.from_stdlib_socket(_unix_socket(address.host)))]
        return await trio.open_tcp_listeners(address.port, host=address.host, backlog=BACKLOG)
    except OSError as error:
        raise AddressInUse(f"cannot listen on {address}: {error}", field="address") from error


def bound(address: Address, listener: trio.SocketListener) -> Address:
    """The address with the port that was found."""
    if address.kind == "unix":
        return address
    host, port, *_ = listener.socket.getsockname()
    return Address(address.kind, host, port)


def forget(address: Address) -> None:
    """Remove what a listener has left in the file system."""
    if address.kind == "unix":
        with contextlib.suppress(OSError):
            os.unlink(address.host)


def _unix_socket(path: str) -> socket.socket:
    """A listening Unix socket, accessible to the owner and group, replacing a stale one."""
    if os.path.exists(path):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EADDRINUSE, "it is a file")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                raise OSError(errno.EADDRINUSE, "another process listens there")
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
        os.chmod(path, 0o660)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
