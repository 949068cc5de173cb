"""Connections to libvirt, used in threads: its event loop, its error codes by class, and one host."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import libvirt

from ..protocol import Capacity, Conflict, Denied, DriverError, Node, NotFound, Permanent, Transient, Unknown

T = TypeVar("T")

ERRORS: Final[Mapping[int, type[DriverError]]] = {
    1: Unknown,  # VIR_ERR_INTERNAL_ERROR: anything; the text says more
    3: Permanent,  # VIR_ERR_NO_SUPPORT
    5: Transient,  # VIR_ERR_NO_CONNECT
    7: Transient,  # VIR_ERR_INVALID_CONN... of a connection that is gone
    8: Permanent,  # VIR_ERR_INVALID_ARG
    9: Conflict,  # VIR_ERR_OPERATION_FAILED: "already exists", "already defined"
    27: Permanent,  # VIR_ERR_XML_ERROR
    29: Denied,  # VIR_ERR_OPERATION_DENIED
    38: Transient,  # VIR_ERR_SYSTEM_ERROR
    39: Unknown,  # VIR_ERR_RPC: the request may have been sent
    42: NotFound,  # VIR_ERR_NO_DOMAIN
    43: NotFound,  # VIR_ERR_NO_NETWORK
    45: Denied,  # VIR_ERR_AUTH_FAILED
    49: NotFound,  # VIR_ERR_NO_STORAGE_POOL
    50: NotFound,  # VIR_ERR_NO_STORAGE_VOL
    55: Conflict,  # VIR_ERR_OPERATION_INVALID: "already running", "not running"
    67: Permanent,  # VIR_ERR_CONFIG_UNSUPPORTED
    68: Unknown,  # VIR_ERR_OPERATION_TIMEOUT
    78: Transient,  # VIR_ERR_OPERATION_ABORTED
    84: Permanent,  # VIR_ERR_OPERATION_UNSUPPORTED
    86: Transient,  # VIR_ERR_AGENT_UNRESPONSIVE
    88: Denied,  # VIR_ERR_ACCESS_DENIED
    90: Conflict,  # VIR_ERR_STORAGE_VOL_EXIST
    99: NotFound,  # VIR_ERR_DEVICE_MISSING
}
"""libvirt's error codes (virErrorNumber) by class; others are of unknown outcome."""
FULL: Final = re.compile("cannot allocate memory|no space left|insufficient (memory|space)", re.IGNORECASE)
"""Texts of the codes above that mean a lack of room."""
UNSUPPORTED: Final = re.compile("does not support hotplugging|no more available PCI slots", re.IGNORECASE)
"""Texts of internal errors that mean that the domain can never do it."""


def guarded(work: Callable[[], T]) -> T:
    """The result of work on a connection; a DriverError for one of libvirt."""
    try:
        return work()
    except libvirt.libvirtError as error:
        raise as_ours(error) from error


def as_ours(error: libvirt.libvirtError) -> DriverError:
    """An error of libvirt by its class."""
    code, text = error.get_error_code(), str(error)
    kind = Capacity if FULL.search(text) else Permanent if UNSUPPORTED.search(text) else ERRORS.get(code, Unknown)
    return kind(text, backend_code=str(code))


def or_none(work: Callable[[], T], code: int) -> T | None:
    """The result; None if libvirt answers with this code."""
    try:
        return work()
    except libvirt.libvirtError as error:
        if error.get_error_code() != code:
            raise
    return None


_loop = threading.Lock()
_looping = False


def _run_event_loop() -> None:
    """Have libvirt's event loop run, without which connections notice no dead peer. It has to be registered before the
    first connection of the process."""
    global _looping
    with _loop:
        if _looping:
            return
        libvirt.virEventRegisterDefaultImpl()
        _looping = True

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()


def _connect(uri: str) -> Any:
    _run_event_loop()
    connection = guarded(lambda: libvirt.open(uri))
    with suppress(libvirt.libvirtError):  # local connections need none
        connection.setKeepAlive(5, 3)
    return connection


class Host:
    """One host. Used in threads; its connection is opened again when it is dead."""

    def __init__(self, uri: str, name: str | None) -> None:
        """The error of the first connection is raised."""
        self._uri, self._opening = uri, threading.Lock()
        self._connection = _connect(uri)
        self.type = str(self._connection.getType()).lower()
        self.version = str(self._connection.getLibVersion())
        self.name = name or str(self._connection.getHostname())
        self.last_seen: Node | None = None

    def connection(self) -> Any:
        """The connection. DriverError if the host does not answer."""
        with self._opening:
            if not self._connection.isAlive():
                with suppress(libvirt.libvirtError):
                    self._connection.close()
                self._connection = _connect(self._uri)
            return self._connection

    def domain(self, uuid: str) -> Any | None:
        """The domain of a uuid; None if there is none."""
        return or_none(lambda: self.connection().lookupByUUIDString(uuid), libvirt.VIR_ERR_NO_DOMAIN)

    def close(self) -> None:
        """Close the connection."""
        with suppress(libvirt.libvirtError):
            self._connection.close()
