"""What the conformance suite needs to know of a back end, and the tools with which it disturbs a driver."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import trio

from ..protocol import (
    ComputeDriver,
    Conflict,
    Connection,
    DriverContext,
    DriverError,
    GuestSpec,
    Mark,
    Page,
    StorageDriver,
    Transient,
    Unknown,
    VolumeSpec,
)

T = TypeVar("T")
OURS = "conformance-a"
OTHERS = "conformance-b"
"""Ids of two installations that share the back end."""
PATIENCE = 60.0
"""Seconds that a back end may take to finish what it has begun."""
MOST_STEPS = 1_000
DriverT = TypeVar("DriverT", ComputeDriver, StorageDriver)


@dataclass
class Outage:
    """A back end that goes away. ``requests``: it has had so many since then; ``reached``: it is gone."""

    requests: int = 0
    reached: bool = False


MakeOutage = Callable[[int, bool], AbstractContextManager[Outage]]


@dataclass(frozen=True, kw_only=True)
class _Bench(Generic[DriverT]):
    """``open``: connects to the back end for an installation. ``lose_answers``: within the context the back end carries
    out calls that make or remove something, and their answers are lost; None if the back end cannot be made to do
    that. ``make_stranger``: makes an object that is not Hostler's, returns its key; None if that is impossible.
    ``outage``: within the context the back end answers so many requests, and then none until the context ends, as if
    it were killed and started again; if the second argument is true, the request during which it goes is carried out.
    ``hang``: within the context it answers nothing; requests are carried out when the context ends, as if it were
    stopped and went on. ``steps``: of the requests that one life takes, so many are taken at random for an outage
    (None: each of them).
    ``page``: more objects than one page of a listing has, for the test of paging; small where the back end has no
    pages."""

    open: Callable[[DriverContext], AbstractAsyncContextManager[DriverT]]
    lose_answers: Callable[[], AbstractContextManager[None]] | None = None
    outage: MakeOutage | None = None
    hang: Callable[[], AbstractContextManager[None]] | None = None
    steps: int | None = 2
    make_stranger: Callable[[], Awaitable[str]] | None = None
    page: int = 5

    def driver(self, installation: str = OURS) -> AbstractAsyncContextManager[DriverT]:
        """The driver, open for an installation."""
        return self.open(DriverContext("bench", installation))


@dataclass(frozen=True, kw_only=True)
class ComputeBench(_Bench[ComputeDriver]):
    """A compute back end: ``node`` is where guests are made, of the size given, and ``other_node`` one that they can
    move to, while they run if ``moves_live``. ``change_outside``: stops or removes a guest without the driver.
    ``make_volume``: makes a volume that guests on ``node`` reach; ``lets_go``: guests let go of volumes while they run,
    for which most back ends need an operating system in them. ``other_node_down``: within the context ``other_node``
    does not answer, and ``node`` does. ``other_size``: CPUs and MiB that guests can be resized to. ``disk_gb``: of
    guests of which snapshots are made."""

    node: str
    vcpus: int = 1
    memory_mb: int = 64
    other_size: tuple[int, int] = (2, 128)
    disk_gb: int = 0
    image: str = ""
    other_node: str | None = None
    moves_live: bool = True
    change_outside: Callable[[str, Literal["stop", "remove"]], Awaitable[None]] | None = None
    make_volume: Callable[[], Awaitable[Connection]] | None = None
    lets_go: bool = True
    other_node_down: Callable[[], AbstractContextManager[None]] | None = None

    def spec(self, installation: str = OURS, claim: int = 1, name: str = "guest") -> GuestSpec:
        """A guest that is not there yet."""
        mark = Mark(installation, new_uuid(), claim)
        return GuestSpec(mark, name, self.node, self.vcpus, self.memory_mb, image=self.image)


@dataclass(frozen=True, kw_only=True)
class StorageBench(_Bench[StorageDriver]):
    """A storage back end: ``pool`` is where volumes are made, ``node`` one that can reach them."""

    pool: str
    node: str = "node"

    def spec(self, installation: str = OURS, claim: int = 1, name: str = "volume", size_gb: int = 1) -> VolumeSpec:
        """A volume that is not there yet."""
        return VolumeSpec(Mark(installation, new_uuid(), claim), name, self.pool, size_gb)


def new_uuid() -> str:
    """A random uuid."""
    return str(uuid.uuid4())


async def gone_in_each_step(
    make: MakeOutage, steps: int | None, live: Callable[[], Awaitable[None]], recover: Callable[[], Awaitable[None]]
) -> int:
    """Have a back end go away in the midst of a life, once in each of ``steps`` requests (None: in all). The life fails
    by an error that leaves open what the back end has. Returns the number of requests that a life takes."""
    with make(1_000_000, False) as whole:
        await live()
    assert not whole.reached
    await recover()
    for carried_out in (False, True):
        every = range(whole.requests)
        for at in every if steps is None else random.sample(every, min(steps, len(every))):
            with make(at, carried_out), trio.fail_after(PATIENCE):
                try:
                    await live()
                except (Transient, Unknown):
                    pass
                except DriverError as error:
                    raise AssertionError(f"in request {at} it is gone, which is no {error.failure}: {error}") from error
            await recover()
    return whole.requests


async def all_of(pages: AsyncIterator[Page[T]]) -> list[T]:
    """All items of a listing."""
    return [item async for page in pages for item in page.items]


async def settled(call: Callable[[], Awaitable[T]]) -> T:
    """The result of a repeatable call, repeated while its outcome is not known or the object is being changed."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return await call()
            except (Transient, Unknown, Conflict):
                await trio.sleep(0.05)


class _CancelAfter(trio.abc.Instrument):
    """Cancels a task after a number of its steps."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, steps: int) -> None:
        self._task, self._scope, self._left = task, scope, steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


@asynccontextmanager
async def _cancelled_after(steps: int) -> AsyncIterator[trio.CancelScope]:
    with trio.CancelScope() as scope:
        instrument = _CancelAfter(trio.lowlevel.current_task(), scope, steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def cancelled_at_every_await(
    call: Callable[[], Awaitable[object]], after_each: Callable[[], Awaitable[None]]
) -> int:
    """Make a call again and again, cancelled at its first await, its second one and so on, until it ends before it is
    cancelled. ``after_each`` checks, and prepares the next. Returns the number of awaits."""
    for steps in range(1, MOST_STEPS):
        async with _cancelled_after(steps) as scope:
            with suppress(Transient, Unknown):
                await call()
        await after_each()
        if not scope.cancelled_caught:
            return steps
    raise AssertionError(f"the call has more than {MOST_STEPS} awaits")
