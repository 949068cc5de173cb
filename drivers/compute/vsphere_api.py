"""A session on a vCenter: calls in threads, faults, the property collector, and tasks. Knows no guests. Needs the extra
``vsphere``."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

import trio
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl

from ...placement.types.errors import InvalidValue
from ..log_ons import LogOns
from ..protocol import Capacity, Conflict, Denied, DriverError, NotFound, Permanent, Quota, Transient, Unknown

T = TypeVar("T")
CALL_SECONDS: Final = 60
"""Seconds that the client waits for an answer."""
LOOK_SECONDS: Final = 0.25
"""Between two looks at a task."""

FAULTS: Final[Mapping[str, type[DriverError]]] = {
    "AlreadyExists": Conflict,
    "AlreadyUpgraded": Conflict,
    "ConcurrentAccess": Transient,
    "DuplicateName": Conflict,
    "FileAlreadyExists": Conflict,
    "HostCommunication": Transient,
    "HostNotConnected": Transient,
    "HostNotReachable": Transient,
    "InsufficientResourcesFault": Capacity,
    "InsufficientStorageSpace": Capacity,
    "InvalidLogin": Denied,
    "InvalidState": Conflict,  # of which InvalidPowerState is one
    "LimitExceeded": Quota,
    "ManagedObjectNotFound": NotFound,
    "NoCompatibleDatastore": Capacity,
    "NoCompatibleHost": Capacity,
    "NoDiskSpace": Capacity,
    "NoPermission": Denied,
    "NotAuthenticated": Transient,  # the session has ended; the next call logs on again
    "NotEnoughLicenses": Quota,
    "NotFound": NotFound,
    "RequestCanceled": Transient,
    "ResourceInUse": Conflict,
    "SystemError": Unknown,
    "TaskInProgress": Transient,
    "Timedout": Unknown,
}
"""Faults by class; a fault that is not listed is of the class of the nearest fault that it is a kind of, else
permanent."""
NOT_SENT: Final = (ConnectionRefusedError, ssl.SSLError, vim.fault.NotAuthenticated)
LOST: Final = (OSError, http.client.HTTPException, ExpatError, vmodl.fault.SystemError)


class Found(NamedTuple):
    """A managed object with those of its properties that it has."""

    ref: Any
    properties: Mapping[str, Any]

    def get(self, path: str, default: Any = None) -> Any:
        """A property; ``default`` if the object has none."""
        return self.properties.get(path, default)


def as_ours(error: BaseException, *, reads: bool) -> DriverError:
    """The error of the protocol for one of the client. What only reads is never of unknown outcome."""
    text = str(getattr(error, "msg", "") or error) or type(error).__name__
    name = type(error).__name__.rpartition(".")[2]
    if isinstance(error, vmodl.MethodFault):
        names = [kind.__name__.rpartition(".")[2] for kind in type(error).__mro__]
        kind = next((FAULTS[each] for each in names if each in FAULTS), Permanent)
    elif isinstance(error, NOT_SENT):
        kind = Transient
    elif isinstance(error, LOST):
        kind = Unknown
    else:
        kind = Permanent if isinstance(error, TypeError | ValueError) else Unknown
    if kind is Unknown and reads:
        kind = Transient
    return kind(f"{name}: {text}", backend_code=name)


class Session:
    """A session, which is opened again when it ends."""

    def __init__(self, connect: Callable[[], Any], concurrency: int) -> None:
        self._connect, self._instance, self._lock = connect, connect(), threading.Lock()
        self._threads, self._log_ons = trio.CapacityLimiter(concurrency), LogOns()

    @property
    def content(self) -> Any:
        """The service content, for calls within ``read`` and ``change``."""
        return self._instance.content

    def time(self) -> object:
        """The time of the server, for a call within ``read``."""
        return self._instance.CurrentTime()

    def close(self) -> None:
        """Log off."""
        with suppress(vmodl.MethodFault, *LOST):
            Disconnect(self._instance)

    async def read(self, work: Callable[[], T]) -> T:
        """Have something read in a thread."""
        return await trio.to_thread.run_sync(self._do, work, True, abandon_on_cancel=True, limiter=self._threads)

    async def change(self, work: Callable[[], T]) -> T:
        """Have something begun in a thread."""
        return await trio.to_thread.run_sync(self._do, work, False, limiter=self._threads)

    def _do(self, work: Callable[[], T], reads: bool) -> T:
        before = self._instance
        try:
            try:
                return work()
            except vim.fault.NotAuthenticated:
                with self._lock:
                    if self._instance is before:
                        with self._log_ons.one():
                            self._instance = self._connected(reads)
                return work()
        except DriverError:
            raise
        except Exception as error:
            raise as_ours(error, reads=reads) from error

    def _connected(self, reads: bool) -> Any:
        try:
            return self._connect()
        except vmodl.MethodFault as error:
            raise as_ours(error, reads=reads) from error

    async def done(self, begin: Callable[[], Any]) -> Any:
        """Begin a task, and return its result once it has ended; its fault is raised."""
        return await self.ended(await self.change(begin))

    async def ended(self, task: Any) -> Any:
        """The result of a task, once it has ended; its fault is raised."""
        while True:
            state, result, fault = await self.read(lambda: _state_of(task))
            if state == "success":
                return result
            if state == "error":
                raise as_ours(fault, reads=False)
            await trio.sleep(LOOK_SECONDS)

    async def objects(self, kind: Any, paths: Sequence[str], root: Any, page: int) -> AsyncGenerator[list[Found], None]:
        """All objects of a kind below another, with these properties, by pages."""
        view, answer = await self.read(lambda: self._begin(kind, paths, root, page))
        try:
            while answer is not None:
                yield [_found(each) for each in answer.objects]
                token = answer.token
                answer = None
                if token:
                    answer = await self.read(
                        lambda token=token: self.content.propertyCollector.ContinueRetrievePropertiesEx(token)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                    )
        finally:
            with trio.move_on_after(5, shield=True), suppress(DriverError):
                await self.read(view.Destroy)

    def _begin(self, kind: Any, paths: Sequence[str], root: Any, page: int) -> tuple[Any, Any]:
        content, of = self.content, vmodl.query.PropertyCollector
        view = content.viewManager.CreateContainerView(root or content.rootFolder, [kind], True)
        through = of.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
        spec = of.FilterSpec(
            objectSet=[of.ObjectSpec(obj=view, skip=True, selectSet=[through])],
            propSet=[of.PropertySpec(type=kind, pathSet=list(paths))],
        )
        options = of.RetrieveOptions(maxObjects=page)
        return view, content.propertyCollector.RetrievePropertiesEx([spec], options)

    async def properties(self, kind: Any, refs: Sequence[Any], paths: Sequence[str]) -> list[Found]:
        """Properties of objects of one kind, without those that are gone."""
        if not refs:
            return []
        return await self.read(lambda: self._properties(kind, refs, paths))

    def _properties(self, kind: Any, refs: Sequence[Any], paths: Sequence[str]) -> list[Found]:
        of, found, left = vmodl.query.PropertyCollector, list[Found](), list(refs)
        while left:
            spec = of.FilterSpec(
                objectSet=[of.ObjectSpec(obj=ref) for ref in left],
                propSet=[of.PropertySpec(type=kind, pathSet=list(paths))],
                reportMissingObjectsInResults=True,
            )
            try:
                answer = self.content.propertyCollector.RetrievePropertiesEx([spec], of.RetrieveOptions())
            except vmodl.fault.ManagedObjectNotFound as fault:  # of those that cannot report it
                if fault.obj not in left:
                    raise
                left.remove(fault.obj)
                continue
            while answer is not None:
                found += [_found(each) for each in answer.objects]
                more = answer.token
                answer = self.content.propertyCollector.ContinueRetrievePropertiesEx(more) if more else None
            return found
        return found


def _found(item: Any) -> Found:
    return Found(item.obj, {each.name: each.val for each in item.propSet})


def _state_of(task: Any) -> tuple[str, Any, Any]:
    info = task.info
    return str(info.state), info.result, info.error


@asynccontextmanager
async def open_session(
    endpoint: str, username: str, password: str, *, verify: ssl.SSLContext, concurrency: int
) -> AsyncIterator[Session]:
    """A session at https://HOST:PORT. InvalidValue for another address."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as error:
        raise InvalidValue(f"{endpoint} is no address: {error}", field="options.endpoint") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidValue(f"{endpoint} is not https://HOST:PORT", field="options.endpoint")
    host = parts.hostname

    def connect() -> Any:
        return SmartConnect(
            protocol=parts.scheme,
            host=host,
            port=port or (443 if parts.scheme == "https" else 80),
            user=username,
            pwd=password,
            sslContext=verify if parts.scheme == "https" else None,
            httpConnectionTimeout=CALL_SECONDS,
        )

    def open_in_thread() -> Session:
        try:
            return Session(connect, concurrency)
        except Exception as error:
            raise as_ours(error, reads=True) from error

    session = await trio.to_thread.run_sync(open_in_thread, abandon_on_cancel=True)
    try:
        yield session
    finally:
        with trio.move_on_after(10, shield=True):
            await trio.to_thread.run_sync(session.close, abandon_on_cancel=True)
