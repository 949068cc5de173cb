"""Connections to libvirt, used in threads: its event loop, its error codes by class, and one host."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
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
KIB_PER_MIB: Final = 1_024
FIRST_WAIT: Final = 10.0
"""Seconds that hosts have to answer when the driver is opened, if one of them has answered."""
OPEN_WAIT: Final = 5.0
"""Seconds from the beginning of an attempt to connect to a host in which calls wait for it."""
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


class _Opening:
    """One attempt to connect: when it began on the monotonic clock, and why it failed."""

    def __init__(self) -> None:
        self.began, self.done = time.monotonic(), threading.Event()
        self.error: DriverError | None = None


_thread = threading.local()
"""``held``: by host, the connections that the work of a thread uses; not set outside of work."""


def leased(work: Callable[[], T]) -> T:
    """The result of work in a thread, which has the connections that it uses for itself; a DriverError for an error of
    libvirt. When libvirt 9 finds by keepalive that a peer is dead, one of the threads that wait on a connection
    is told; another one waits for ever, or crashes the process once the peer ends."""
    held: dict[Host, Any] = {}
    _thread.held = held
    try:
        return guarded(work)
    finally:
        _thread.held = None
        for host, connection in held.items():
            host.give(connection)


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:  # it was closed
        return False


class Host:
    """One host. Used in threads; each has a connection of its own, which is opened when it is needed, and again when it
    is dead. A host that did not answer is left alone for a while, so that the others need not wait for it."""

    def __init__(self, uri: str, name: str | None) -> None:
        self.uri, self._lock = uri, threading.Lock()
        self._idle: list[Any] = []
        """Connections that no thread uses; of a shared one, that one."""
        self._opening: _Opening | None = None
        """The attempt that is under way."""
        self._failed: DriverError | None = None
        """Why none could be opened the last time."""
        self._again = 0.0
        """When it may be tried again, on the monotonic clock."""
        self.type = uri.partition(":")[0].partition("+")[0].lower()
        """Name of libvirt's driver there: test, qemu."""
        self._shared = self.type == "test" or ":///embed" in uri
        """True: all is in this process, and each connection might have a state of its own."""
        self.version = ""
        """Known once it was open."""
        self.name = name or ""
        self.alone = True
        """False: other hosts of the back end go on without it."""
        self.last_seen: Node | None = None

    def connection(self, patience: float | None = None) -> Any:
        """The connection of this thread. DriverError if the host does not answer, or an attempt to connect to it has
        been under way for ``patience`` seconds (OPEN_WAIT): to one that hangs it takes for ever."""
        held: dict[Host, Any] | None = getattr(_thread, "held", None)
        known = None if held is None else held.get(self)
        if known is not None and _is_alive(known):
            return known
        found = self._taken(OPEN_WAIT if patience is None else patience)
        if held is None:
            self.give(found)
        else:
            held[self] = found
        return found

    def _taken(self, patience: float) -> Any:
        while True:
            with self._lock:
                # One that is dead is not closed, but let go: a thread may still be in a call on it.
                while self._idle:
                    found = self._idle[-1] if self._shared else self._idle.pop()
                    if _is_alive(found):
                        return found
                    if self._shared:
                        self._idle.clear()
                if self._failed is not None and time.monotonic() < self._again:
                    problem = f"host {self.name or self.uri} did not answer: {self._failed}"
                    raise Transient(problem, nodes=self._nodes())
                if self._opening is None:
                    self._opening = _Opening()
                    target, begun = self._open, (self._opening,)
                    threading.Thread(target=target, args=begun, name="libvirt opens", daemon=True).start()
                opening = self._opening
            left = max(0.0, min(opening.began + patience - time.monotonic(), threading.TIMEOUT_MAX))
            if not opening.done.wait(left):
                raise Transient(f"host {self.name or self.uri} is being connected to", nodes=self._nodes())
            if opening.error is not None:
                raise opening.error

    def give(self, connection: Any) -> None:
        """A thread no longer uses a connection."""
        with self._lock:
            if connection not in self._idle and _is_alive(connection):
                self._idle.append(connection)

    def _nodes(self) -> tuple[str, ...]:
        return () if self.alone else (self.name,)

    def _open(self, opening: _Opening) -> None:
        """Connect, in a thread of its own."""
        made: Any = None
        try:
            made = _connect(self.uri)
            self.version, name = guarded(lambda: (str(made.getLibVersion()), self.name or str(made.getHostname())))
        except DriverError as error:
            opening.error = self._left_alone(error)
        except Exception as error:  # a fault of the library's binding
            opening.error = self._left_alone(Unknown(f"{type(error).__name__}: {error}"))
        else:
            self.name, self._failed = name, None
        with self._lock:
            self._opening = None
            if opening.error is None:
                self._idle.append(made)
        opening.done.set()

    def _left_alone(self, error: DriverError) -> DriverError:
        """The host is not tried again for a while; why."""
        self._failed, self._again = error, time.monotonic() + LEFT_ALONE
        if self.alone:
            return error
        problem = f"host {self.name} cannot be connected to: {error}"
        found = Transient(problem, backend_code=error.backend_code, nodes=self._nodes())
        found.__cause__ = error
        return found

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
        """Close the connections that no thread uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(libvirt.libvirtError):
                connection.close()


def used_on(connection: Any) -> tuple[int, int]:
    """CPUs and MiB of memory that the domains of a host may take at most, running or not. O(domains); their
    descriptions, which take most of the time of a listing, are not needed for it."""
    vcpus = memory_mb = 0
    for domain in connection.listAllDomains():
        with suppress(libvirt.libvirtError):  # it went away meanwhile
            taken = domain.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_MAXIMUM), -(-domain.maxMemory() // KIB_PER_MIB)
            vcpus, memory_mb = vcpus + taken[0], memory_mb + taken[1]
    return vcpus, memory_mb


async def connected(hosts: Sequence[Host]) -> list[DriverError]:
    """Connect to all hosts, and return the errors of those that failed. Those that have not answered in time, while
    another has, are left to connect when they do."""
    failed, done = list[DriverError](), trio.Event()
    ended = 0

    async def connect(host: Host) -> None:
        nonlocal ended
        try:
            await trio.to_thread.run_sync(lambda: host.connection(inf), abandon_on_cancel=True)
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
