"""Back ends whose drivers fail when they are opened, and options that are kept elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hostler.core.backends.protocol import DriverContext
from hostler.core.lifecycle_commands import SetBackend
from hostler.core.reconcile.backend import resolved
from hostler.drivers.model.driver import ModelDriver
from hostler.placement.types.errors import InvalidValue

from ..core.orders import uuid_of
from .cloud import Model, create, ready, running


class Unreadable(RuntimeError):
    def __str__(self) -> str:
        raise ValueError


class Flawed(Model):
    """Its driver fails before it is open, the first ``times``, as a fault of a driver's own does."""

    times = 3
    fault: Exception = ZeroDivisionError("a fault of the driver")

    @asynccontextmanager
    async def _open(self, context: DriverContext) -> AsyncIterator[ModelDriver]:
        if self.times:
            self.times -= 1
            raise self.fault
        async with super()._open(context) as driver:
            yield driver


async def test_a_driver_that_fails_when_it_is_opened_is_opened_again_and_others_go_on(
    autojump_clock: MockClock,
) -> None:
    flawed = Flawed("a")
    async with ready(flawed, Model("b")) as life:
        await life.until(lambda: len(life.state.lives.backends["a"].nodes) == 2)
        assert flawed.times == 0
        await life.submit(create(1))
        await life.until(lambda: life.status(1) == "active")


class Breaking(Model):
    """Its driver breaks while it is open, and once more when it is closed, as one with tasks of its own can."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.breaks = trio.Event()

    @asynccontextmanager
    async def _open(self, context: DriverContext) -> AsyncIterator[ModelDriver]:
        async def watch() -> None:
            await self.breaks.wait()
            self.breaks = trio.Event()
            raise ZeroDivisionError("a fault of the driver")

        async with super()._open(context) as driver, trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield driver


async def test_a_driver_that_breaks_while_it_is_open_is_opened_again_and_others_go_on(
    autojump_clock: MockClock,
) -> None:
    breaking, other = Breaking("a"), Model("b")
    async with ready(breaking, other) as life:
        await life.submit(SetBackend(name="b", enabled=False))
        breaking.wire.hanging = trio.Event()
        await life.submit(create(1))
        await life.until(lambda: breaking.wire.in_flight > 0)
        inventories = life.reconciler.status().backends[1].inventories
        breaking.breaks.set()
        breaking.wire.hanging = None
        await life.until(lambda: life.status(1) == "active")
        assert len(breaking.of(uuid_of(1))) == 1
        assert life.reconciler.status().backends[1].inventories >= inventories, "it was not opened again"


async def test_why_a_driver_is_not_open_is_said(autojump_clock: MockClock) -> None:
    flawed = Flawed("a")
    flawed.times = 10**9
    async with running(flawed) as life:
        await life.until(lambda: life.reconciler.status().backends[0].problem is not None)
        assert "ZeroDivisionError: a fault of the driver" in str(life.reconciler.status().backends[0].problem)


async def test_a_driver_whose_error_cannot_be_read_stops_no_other(autojump_clock: MockClock) -> None:
    flawed = Flawed("a")
    flawed.times, flawed.fault = 10**9, Unreadable()
    async with running(flawed, Model("b")) as life:
        await life.until(lambda: len(life.state.lives.backends) == 1)
        await life.until(lambda: "Unreadable: its message" in str(life.reconciler.status().backends[0].problem))


def test_options_may_stand_in_the_environment_and_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_SECRET", "a")
    (tmp_path / "key").write_text("b c\n")
    options = {"one": "env:THE_SECRET", "two": f"file:{tmp_path}/key", "three": "file:relative", "four": 4}
    assert resolved(options) == {"one": "a", "two": "b c", "three": "file:relative", "four": 4}


@pytest.mark.parametrize("value", ["env:NO_SUCH_VARIABLE", "file:/no/such/file"])
def test_an_option_that_is_not_where_it_is_said_to_be_is_refused(value: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        resolved({"password": value})
    assert caught.value.field == "options.password"
