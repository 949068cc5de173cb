"""Faults of a back end and of its callers, and what must hold afterwards: the same for guests and volumes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from ..protocol import GuestSpec, VolumeSpec
from .bench import (
    PATIENCE,
    ComputeBench,
    MakeOutage,
    StorageBench,
    cancelled_at_every_await,
    gone_in_each_step,
    settled,
)

SpecT = TypeVar("SpecT", GuestSpec, VolumeSpec)


@dataclass(frozen=True, kw_only=True)
class Subject(Generic[SpecT]):
    """What is done with objects of one kind. ``create`` and ``delete`` are one call each; ``made`` and ``removed``
    repeat it until the back end has the whole object, or nothing of it. ``ours``: those of a uuid that are there."""

    new: Callable[[], SpecT]
    create: Callable[[SpecT], Awaitable[object]]
    made: Callable[[SpecT], Awaitable[object]]
    delete: Callable[[str], Awaitable[None]]
    removed: Callable[[str], Awaitable[None]]
    ours: Callable[[str], Awaitable[Sequence[object]]]

    async def check_one(self, spec: SpecT) -> None:
        """There is one object, not two."""
        assert len(await self.ours(spec.mark.uuid)) == 1


async def goes_away(
    make: MakeOutage,
    bench: ComputeBench | StorageBench,
    subject: Subject[SpecT],
    live: Callable[[SpecT], Awaitable[None]],
    finish: Callable[[SpecT], Awaitable[object]],
) -> int:
    """A back end that goes away in the steps of a life: what was not confirmed is made once, or removed. ``live``: the
    life up to the deletion; ``finish``: what is left of it once the object is there, repeatable. Returns the number of
    requests that a life takes."""
    spec, deleting = subject.new(), False

    async def whole() -> None:
        nonlocal deleting
        deleting = False
        await live(spec)
        deleting = True
        await subject.delete(spec.mark.uuid)

    async def recover() -> None:
        nonlocal spec
        found = await settled(lambda: subject.ours(spec.mark.uuid))
        assert len(found) <= 1
        if not deleting:
            if not found:
                await subject.made(spec)
            await settled(lambda: finish(spec))
            await subject.check_one(spec)
        await subject.removed(spec.mark.uuid)
        assert not await subject.ours(spec.mark.uuid)
        spec = subject.new()

    return await gone_in_each_step(make, bench.steps, whole, recover)


async def hangs(hang: Callable[[], AbstractContextManager[None]], concurrency: int, subject: Subject[SpecT]) -> None:
    """A back end that hangs: calls that are given up end at once, more of them than may be under way, and what it does
    later is done once."""
    spec = subject.new()
    with hang(), trio.fail_after(PATIENCE):
        for _ in range(concurrency + 1):
            with trio.move_on_after(0.02) as scope:
                await subject.create(spec)
            assert scope.cancelled_caught
    await subject.made(spec)
    await subject.check_one(spec)
    await subject.removed(spec.mark.uuid)


async def creation_is_cancelled(subject: Subject[SpecT]) -> int:
    """A creation that is cancelled at each of its awaits leaves one object or none, and the same creation again makes
    exactly one. Returns the number of awaits."""
    specs = [subject.new()]

    async def create() -> None:
        await subject.create(specs[-1])

    async def check() -> None:
        spec = specs[-1]
        assert len(await subject.ours(spec.mark.uuid)) <= 1
        await subject.made(spec)
        await subject.check_one(spec)
        await subject.delete(spec.mark.uuid)
        specs.append(subject.new())

    return await cancelled_at_every_await(create, check)
