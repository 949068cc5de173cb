"""Back ends whose drivers fail when they are opened, and options that are kept elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trio.testing import MockClock

from hostler.core.backends.protocol import DriverContext
from hostler.core.reconcile.backend import resolved
from hostler.drivers.model.driver import ModelDriver
from hostler.placement.types.errors import InvalidValue

from .cloud import Model, create, ready, running


class Flawed(Model):
    """Its driver fails before it is open, the first ``times``, as a fault of a driver's own does."""

    times = 3

    @asynccontextmanager
    async def _open(self, context: DriverContext) -> AsyncIterator[ModelDriver]:
        if self.times:
            self.times -= 1
            raise ZeroDivisionError("a fault of the driver")
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


async def test_why_a_driver_is_not_open_is_said(autojump_clock: MockClock) -> None:
    flawed = Flawed("a")
    flawed.times = 10**9
    async with running(flawed) as life:
        await life.until(lambda: life.reconciler.status().backends[0].problem is not None)
        assert "ZeroDivisionError: a fault of the driver" in str(life.reconciler.status().backends[0].problem)


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
