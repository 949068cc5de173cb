"""Connections to libvirt, used in threads: its event loop, its error codes by class, and one host."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import libvirt
import trio

from ...core.tasks import background
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
FIRST_WAIT: Final = 10.0
"""Seconds that hosts have to answer when the driver is opened, if one of them has answered."""
OPEN_WAIT: Final = 2.0
"""Seconds that a thread waits for another one that connects to the host."""
LEFT_ALONE: Final = 10.0
"""Seconds after which a host that did not answer is tried again."""
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
    """One host. Used in threads; its connection is opened when it is needed, and again when it is dead. A host that did
    not answer is left alone for a while, so that the others need not wait for it."""

    def __init__(self, uri: str, name: str | None) -> None:
        self._uri, self._opening = uri, threading.Lock()
        self._connection: Any = None
        self._failed: DriverError | None = None
        """Why it could not be opened the last time."""
        self._again = 0.0
        """When it may be tried again, on the monotonic clock."""
        self.type = uri.partition(":")[0].partition("+")[0].lower()
        """Name of libvirt's driver there: test, qemu."""
        self.version = ""
        """Known once it was open."""
        self.name = name or ""
        self.alone = True
        """False: other hosts of the back end go on without it."""
        self.last_seen: Node | None = None

    def connection(self) -> Any:
        """The connection. DriverError if the host does not answer."""
        if self._is_open():
            return self._connection
        if self._failed is not None and time.monotonic() < self._again:
            raise Transient(f"host {self.name or self._uri} did not answer: {self._failed}", nodes=self._nodes())
        if not self._opening.acquire(timeout=OPEN_WAIT):
            raise Transient(f"host {self.name or self._uri} is being connected to", nodes=self._nodes())
        try:
            if not self._is_open():
                self._open()
            return self._connection
        finally:
            self._opening.release()

    def _is_open(self) -> bool:
        try:
            return self._connection is not None and bool(self._connection.isAlive())
        except libvirt.libvirtError:  # it was closed
            return False

    def _nodes(self) -> tuple[str, ...]:
        return () if self.alone else (self.name,)

    def _open(self) -> None:
        self.close()
        try:
            self._connection = _connect(self._uri)
        except DriverError as error:
            self._connection = None
            self._failed, self._again = error, time.monotonic() + LEFT_ALONE
            if self.alone:
                raise
            problem = f"host {self.name} cannot be connected to: {error}"
            raise Transient(problem, backend_code=error.backend_code, nodes=self._nodes()) from error
        self._failed = None
        self.version = str(self._connection.getLibVersion())
        self.name = self.name or str(self._connection.getHostname())

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Have errors by which the host did not answer name it as their node."""
        try:
            yield
        except libvirt.libvirtError as error:
            raise self._named(as_ours(error)) from error
        except DriverError as error:
            raise self._named(error) from error.__cause__

    def _named(self, error: DriverError) -> DriverError:
        if isinstance(error, Transient | Unknown) and not error.nodes:
            error.nodes = frozenset(self._nodes())
        return error

    def domain(self, uuid: str) -> Any | None:
        """The domain of a uuid; None if there is none."""
        return or_none(lambda: self.connection().lookupByUUIDString(uuid), libvirt.VIR_ERR_NO_DOMAIN)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            with suppress(libvirt.libvirtError):
                self._connection.close()


async def connected(hosts: Sequence[Host]) -> list[DriverError]:
    """Connect to all hosts, and return the errors of those that failed. Those that have not answered in time, while
    another has, are left to connect when they do."""
    failed, done = list[DriverError](), trio.Event()
    ended = 0

    async def connect(host: Host) -> None:
        nonlocal ended
        try:
            await trio.to_thread.run_sync(lambda: guarded(host.connection), abandon_on_cancel=True)
        except DriverError as error:
            failed.append(error)
        ended += 1
        if ended == len(hosts):
            done.set()

    async with background() as nursery:
        for host in hosts:
            nursery.start_soon(connect, host)
        with trio.move_on_after(FIRST_WAIT):
            await done.wait()
        while not done.is_set() and not any(host.version for host in hosts):
            with trio.move_on_after(0.1):
                await done.wait()
        nursery.cancel_scope.cancel()
    return failed
