"""The scheduler in an application on asyncio: it runs under trio in a thread of its own, and the methods of
``Scheduler`` are called from asyncio."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import outcome
import trio

from ..machine.event_log import Event
from .scheduler import Scheduler, open_scheduler

T = TypeVar("T")
P = ParamSpec("P")
CLOSED: Final = "the scheduler is closed"


class _Call(Generic[T]):
    """One call: its work under trio, and the future that asyncio waits for."""

    def __init__(self, work: Callable[[], Awaitable[T]], future: asyncio.Future[None]) -> None:
        self.work, self.future, self.scope = work, future, trio.CancelScope()
        self.result: outcome.Outcome[T] | None = None
        """None: it was cancelled, by its caller or because the scheduler closes."""

    async def run(self) -> None:
        """Do the work, and wake who waits for it. In trio's thread."""
        try:
            with self.scope:
                try:
                    self.result = outcome.Value(await self.work())
                except Exception as error:
                    self.result = outcome.Error(error)
        finally:
            self.end()

    def end(self) -> None:
        """Wake who waits for it, if their loop is still there. In trio's thread."""
        with suppress(RuntimeError):
            self.future.get_loop().call_soon_threadsafe(self.finish)

    def finish(self) -> None:
        """It has ended. In asyncio's thread."""
        if not self.future.done():
            self.future.set_result(None)


def _bridged(
    method: Callable[Concatenate[Scheduler, P], Awaitable[T]],
) -> Callable[Concatenate[AsyncioScheduler, P], Coroutine[Any, Any, T]]:
    """A method of Scheduler, called from asyncio."""

    async def call(self: AsyncioScheduler, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(lambda: method(self._scheduler, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


def _bridged_question(
    method: Callable[Concatenate[Scheduler, P], T],
) -> Callable[Concatenate[AsyncioScheduler, P], Coroutine[Any, Any, T]]:
    """A method of Scheduler that does not wait, called from asyncio."""

    async def call(self: AsyncioScheduler, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def work() -> T:
            await trio.lowlevel.checkpoint()
            return method(self._scheduler, *args, **kwargs)

        return await self._run(work)

    functools.update_wrapper(call, method)
    return call


class AsyncioScheduler:
    """A scheduler for asyncio; made by ``open_asyncio_scheduler``. It has the methods of ``Scheduler``; those that
    answer at once there are awaited here. A call that is cancelled has either changed nothing, or is carried out
    whole. RuntimeError for a call when the scheduler is closed, or that is under way when it closes."""

    def __init__(self, scheduler: Scheduler, token: trio.lowlevel.TrioToken, nursery: trio.Nursery) -> None:
        self._scheduler, self._token, self._nursery = scheduler, token, nursery
        self._closed = False
        """True: no call begins. Of trio's thread."""

    def __repr__(self) -> str:
        return f"<AsyncioScheduler{', closed' if self._closed else ''}>"

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        call = _Call(work, asyncio.get_running_loop().create_future())
        self._in_trio(self._begin, call)
        try:
            await asyncio.shield(call.future)
        except asyncio.CancelledError:
            with suppress(RuntimeError):  # it has ended with the scheduler
                self._in_trio(call.scope.cancel)
            await _ended(call.future)
            raise
        if call.result is None:
            raise RuntimeError(f"{CLOSED}: a call that was under way may have been carried out")
        return call.result.unwrap()

    def _begin(self, call: _Call[Any]) -> None:
        """Begin a call, or end it at once when the scheduler is closed. It must not raise: that would crash trio."""
        if self._closed:
            call.result = outcome.Error(RuntimeError(CLOSED))
            call.end()
        else:
            self._nursery.start_soon(call.run)

    def _close(self) -> None:
        """Begin no more calls. In trio's thread."""
        self._closed = True

    def _in_trio(self, work: Callable[..., object], *args: Any) -> None:
        try:
            self._token.run_sync_soon(work, *args)
        except trio.RunFinishedError:
            raise RuntimeError(CLOSED) from None

    submit = _bridged(Scheduler.submit)
    place = _bridged(Scheduler.place)
    create_guest = _bridged(Scheduler.create_guest)
    start_guest = _bridged(Scheduler.start_guest)
    stop_guest = _bridged(Scheduler.stop_guest)
    move_guest = _bridged(Scheduler.move_guest)
    resize_guest = _bridged(Scheduler.resize_guest)
    snapshot_guest = _bridged(Scheduler.snapshot_guest)
    delete_snapshot = _bridged(Scheduler.delete_snapshot)
    console = _bridged(Scheduler.console)
    attach_volume = _bridged(Scheduler.attach_volume)
    detach_volume = _bridged(Scheduler.detach_volume)
    delete_guest = _bridged(Scheduler.delete_guest)
    until_settled = _bridged(Scheduler.until_settled)
    check_backend = _bridged(Scheduler.check_backend)
    adopt_guest = _bridged(Scheduler.adopt_guest)
    strangers = _bridged_question(Scheduler.strangers)
    guest_snapshots = _bridged_question(Scheduler.guest_snapshots)
    ask = _bridged_question(Scheduler.ask)
    guest = _bridged_question(Scheduler.guest)
    status = _bridged_question(Scheduler.status)

    async def watch(self, *, after: int | None = None) -> AsyncIterator[Event]:
        """Events, as ``Scheduler.watch``."""
        events = self._scheduler.watch(after=after)
        while True:
            yield await self._run(events.__anext__)


async def _ended(future: asyncio.Future[Any]) -> None:
    """Wait for a future, also when that is cancelled: what trio has begun ends soon after it was cancelled."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            continue


@asynccontextmanager
async def open_asyncio_scheduler(
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> AsyncIterator[AsyncioScheduler]:
    """``open_scheduler`` for applications on asyncio, with the same configuration, errors and end."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = loop.create_future()
    opened: asyncio.Future[tuple[AsyncioScheduler, trio.Event]] = loop.create_future()

    async def serve() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            loop.call_soon_threadsafe(_set, begun, (token, scope))
            async with open_scheduler(config) as scheduler, trio.open_nursery() as nursery:
                bridge, stop = AsyncioScheduler(scheduler, token, nursery), trio.Event()
                loop.call_soon_threadsafe(_set, opened, (bridge, stop))
                try:
                    await stop.wait()
                finally:
                    bridge._close()
                nursery.cancel_scope.cancel()

    served = asyncio.ensure_future(asyncio.to_thread(trio.run, serve))
    try:
        either: set[asyncio.Future[Any]] = {opened, served}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            await served  # which says why it is not open
        scheduler, stop = opened.result()
        try:
            yield scheduler
        finally:
            with suppress(RuntimeError):  # it has ended already, for the reason that is raised below
                scheduler._in_trio(stop.set)
    finally:
        if not opened.done() and not served.done():
            await _ended(begun)
            token, scope = begun.result()
            token.run_sync_soon(scope.cancel)
        await _ended(served)
        served.result()


def _set(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
