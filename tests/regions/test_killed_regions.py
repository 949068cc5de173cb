"""A region's process that is killed while its parent waits for its answer to a claim."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest

from hostler.placement.types.errors import HostlerError

from ..cluster.members import until
from .region_processes import Parent, cascade, guests_in, uuid_of, wish

GUESTS = 6


class Caller(threading.Thread):
    """Places guests one after the other; notes what was answered."""

    def __init__(self, parent: Parent, numbers: range) -> None:
        super().__init__()
        self._parent, self._numbers = parent, numbers
        self.placed: dict[int, bool] = {}
        self.begun = threading.Event()

    def run(self) -> None:
        with self._parent.client() as client:
            for number in self._numbers:
                self.begun.set()
                try:
                    self.placed[number] = client.call("place", {"request": wish(number)}).placed
                except HostlerError:
                    self.placed[number] = False


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_a_region_that_is_killed_while_it_claims_has_each_guest_once_or_not(tmp_path: Path, rounds: int) -> None:
    chance = random.Random(4)
    with cascade(tmp_path, {"eu": 8, "us": 8}, rest="[cascade]\nask_seconds = 0.5") as (parent, regions):
        answered: dict[int, bool] = {}
        for each in range(rounds):
            caller = Caller(parent, range(1 + GUESTS * each, 1 + GUESTS * (each + 1)))
            asked = parent.lines()["eu"].asked
            if each % 2 == 0:  # it dies before it has read the call
                regions["eu"].process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]  # it runs
                caller.start()
                # Where the machine is slow, the parent may see that it does not answer before it asks it.
                until(lambda before=asked, who=caller: parent.lines()["eu"].asked > before or not who.is_alive())  # type: ignore[misc]
            else:
                caller.start()
                assert caller.begun.wait(30)
                time.sleep(chance.uniform(0, 0.03))
            regions["eu"].kill()
            caller.join()
            answered |= caller.placed
            regions["eu"].start()
            parent.settle()
        with parent.client() as client:
            known = {line.uuid: line.region for line in client.call("region_guests")}
            assert set(known) == {uuid_of(number) for number, placed in answered.items() if placed}
            assert len(answered) == rounds * GUESTS
            of_regions = {name: [uuid for uuid, where in known.items() if where == name] for name in regions}
            until(lambda: all(guests_in(regions[name]) == sorted(of_regions[name]) for name in regions))
            # No claim is left, once the parent has settled those whose calls took too long.
            until(lambda: client.call("capacity")["VCPU"].used == 2 * len(known))
            assert client.call("release", {"uuids": sorted(known)}) == len(known)
        assert all(guests_in(each) == [] for each in regions.values())
