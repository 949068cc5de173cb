"""A clock that jumps: one wrong reading is not believed, what lasts is followed, tokens are judged by the stricter."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hostler.core.engine_commands import AddHosts
from hostler.core.process.clock import CONFIRM_SECONDS, HonestClock
from hostler.core.rpc.client import BlockingClient
from hostler.core.tenancy.errors import NotAuthenticated
from hostler.core.tenancy.records import Token
from tests.core.orders import hosts

from ..patience import HANG_SECONDS
from .processes import Daemon, metrics

YEAR = 365 * 86_400.0
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


class Clocks:
    """A wall clock and a steady one, set by hand."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_700_000_000.0, 50.0
        self.honest = HonestClock(lambda: self.wall, lambda: self.steady)

    def go(self, seconds: float) -> float:
        """Time passes; what the clock says then."""
        self.wall += seconds
        self.steady += seconds
        return self.honest()


def test_time_passes_as_the_clocks_say_while_they_agree() -> None:
    clocks = Clocks()
    assert clocks.go(10) == 1_700_000_010.0
    clocks.wall += 0.5  # as NTP does
    assert clocks.go(10) == 1_700_000_020.5
    assert clocks.honest.jumps == 0


@pytest.mark.parametrize("jump", [YEAR, -YEAR, 3_600.0, -2.0])
def test_a_reading_far_off_is_not_believed_and_counted_once(jump: float) -> None:
    clocks = Clocks()
    clocks.wall += jump
    for _ in range(5):
        clocks.go(1)
    assert clocks.honest() == 1_700_000_005.0
    assert clocks.honest.disagreement == jump
    assert clocks.honest.latest() == 1_700_000_005.0 + max(jump, 0.0)
    clocks.wall -= jump
    assert clocks.go(1) == 1_700_000_006.0
    assert (clocks.honest.jumps, clocks.honest.followed) == (1, 0)


@pytest.mark.parametrize("jump", [YEAR, -3_600.0])
def test_a_jump_that_lasts_is_followed(jump: float) -> None:
    clocks = Clocks()
    clocks.wall += jump
    clocks.honest()
    assert clocks.go(CONFIRM_SECONDS) == 1_700_000_000.0 + CONFIRM_SECONDS + jump
    assert (clocks.honest.jumps, clocks.honest.followed) == (1, 1)


def test_a_clock_that_jumps_to_and_fro_is_never_followed() -> None:
    clocks = Clocks()
    for number in range(100):
        clocks.wall += YEAR if number % 2 == 0 else -YEAR
        clocks.go(1)
    assert clocks.honest.followed == 0


def test_a_token_made_while_the_clock_was_ahead_is_not_good_before_that_time() -> None:
    token = Token("ann", b"", expires=YEAR + 86_400.0, created=YEAR)
    assert not token.good_at(0.0)
    assert token.good_at(YEAR)
    assert not token.good_at(YEAR + 86_400.0)
    assert Token("ann", b"", expires=10.0).good_at(5.0), "of a journal that does not know when it was made"


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
def test_a_service_under_a_clock_that_is_a_year_ahead_for_a_moment(tmp_path: Path) -> None:
    control = tmp_path / "clock"
    control.write_text("+0\n")
    env = os.environ | {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(control),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with Daemon(tmp_path, "--http", "127.0.0.1:0", env=env) as daemon, daemon.client() as client:
        client.call("add_hosts", AddHosts(hosts=hosts(2)))
        client.call("create_domain", {"id": "d"})
        client.call("create_user", {"id": "ann", "domain": "d"})
        control.write_text("+365d\n")
        client.call("heartbeats", {"names": ["node-0", "node-1"]})
        token = client.call("create_token", {"user": "ann", "days": 1.0})
        control.write_text("+0\n")
        client.call("heartbeats", {"names": ["node-0", "node-1"]})
        assert abs(token.expires - time.time() - 86_400) < 600
        assert all(each.up for each in client.call("hosts"))
        assert metrics(daemon)["hostler_clock_jumps_total", "no"] >= 1
        control.write_text("+30d\n")
        with BlockingClient(daemon.address, within=HANG_SECONDS) as other, pytest.raises(NotAuthenticated):
            other.call("hello", {"token": token.token})
        assert "Traceback" not in daemon.log(), "no thread has ended"
