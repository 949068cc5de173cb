"""How long messages may have waited with a broker that does not say."""

from __future__ import annotations

import math

import pytest

from hostler.drivers.openstack.bus.waiting import QUIET_SECONDS, WaitBound, age_of


class Bus:
    """A bound on a clock that is set here, in a process that runs."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.bound = WaitBound(lambda: self.now)
        self.passes(0.0)

    def passes(self, seconds: float, *, runs: bool = True) -> None:
        """Time passes; ``runs``: whether the process runs meanwhile."""
        self.now += seconds
        if runs:
            self.bound.beat()
            self.bound.beat()

    def taken(self, age: float | None = None) -> float:
        found = self.bound.taken(age)
        self.bound.ready()
        return found


@pytest.fixture
def bus() -> Bus:
    return Bus()


def test_at_the_start_a_call_may_have_waited_as_long_as_its_request_is_old(bus: Bus) -> None:
    assert bus.taken() == math.inf
    assert bus.taken(90.0) == 90.0
    assert bus.taken(300.0) == 90.0, "it was sent after the one before it"
    assert bus.taken(20.0) == 20.0
    assert bus.taken(300.0) == 20.0


def test_after_a_pause_nothing_waits(bus: Bus) -> None:
    bus.bound.ready()
    bus.passes(QUIET_SECONDS)
    assert bus.taken(300.0) == 0.0
    bus.passes(0.5)
    assert bus.taken(300.0) == 0.5


def test_a_process_that_was_stopped_has_had_no_pause(bus: Bus) -> None:
    bus.bound.ready()
    bus.passes(1.0)
    assert bus.taken() == 0.0
    bus.passes(100.0, runs=False)
    assert bus.taken(300.0) == 100.0
    bus.bound.beat()  # and its first beat after that says nothing yet
    assert bus.taken(300.0) == 100.0


def test_a_connection_that_was_lost_is_no_pause(bus: Bus) -> None:
    bus.bound.ready()
    bus.passes(1.0)
    assert bus.taken() == 0.0
    bus.bound.interrupted()
    bus.passes(100.0)
    assert bus.taken(70.0) == 70.0


@pytest.mark.parametrize(
    ("timestamp", "age"),
    [
        ("2026-01-01T00:00:00.000000", 60.0),
        ("2026-01-01T00:00:00+00:00", 60.0),
        ("2026-01-01T00:02:00", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_the_age_of_a_request_is_what_its_context_says(timestamp: str | None, age: float | None) -> None:
    assert age_of({"timestamp": timestamp}, 1_767_225_660.0) == age
