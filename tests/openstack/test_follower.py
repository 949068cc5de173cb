"""Which rows of Nova's databases are read again, whatever the clocks of the machines say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.drivers.openstack.bus.follower import SETTLED, Follower
from hostler.drivers.openstack.source.databases import Database
from hostler.drivers.openstack.source.nova_databases import cells_of

from .clouds import NOW, Cloud, moment

pytest.importorskip("sqlalchemy", reason="the extra openstack is not installed")

WHOLE_SECOND = "2026-01-01 00:00:00.000000"
STEPS = (0.0, -86_400.0, 86_400.0, -30.0)
"""By how much the wall clock is set between looks."""


class Looks:
    """A follower on a cloud with one host, whose steady clock is set here."""

    def __init__(self, folder: Path, updated_at: str) -> None:
        self.steady, self.cloud = 0.0, Cloud(folder)
        self.cloud.host(1)
        self.write(updated_at)
        api = Database("d", self.cloud.url("api"))
        self.follower = Follower(lambda: cells_of(api), api, steady=lambda: self.steady)

    def write(self, updated_at: str, **changes: int) -> None:
        columns = "".join(f", {name} = {value}" for name, value in changes.items())
        self.cloud.change(self.cloud.cell, f"UPDATE compute_nodes SET updated_at = ?{columns}", updated_at)

    def found(self, wall: float = NOW) -> list[float]:
        """Free memory of the hosts that are reported."""
        return [each.free_ram_mb for each in self.follower.look(now=wall, full=False).hosts]


@pytest.mark.parametrize("step", STEPS)
def test_a_change_within_the_second_of_another_is_seen(tmp_path: Path, step: float) -> None:
    looks = Looks(tmp_path, WHOLE_SECOND)
    assert len(looks.found()) == 1
    looks.write(WHOLE_SECOND, free_ram_mb=77)
    looks.steady += SETTLED / 2
    assert looks.found(NOW + step) == [77]
    looks.steady += SETTLED / 2
    looks.write(WHOLE_SECOND, free_ram_mb=66)
    assert looks.found(NOW + step) == [66], "it is read once more, as nothing can change it unseen any longer"
    looks.steady += 0.1
    assert looks.found(NOW + 2 * step) == []
    looks.write("2026-01-01 00:00:03.000000", free_ram_mb=55)
    assert looks.found(NOW) == [55]


@pytest.mark.parametrize("step", STEPS)
def test_a_time_with_a_fraction_is_that_of_one_change(tmp_path: Path, step: float) -> None:
    looks = Looks(tmp_path, moment(NOW + 0.25))
    assert len(looks.found()) == 1
    assert looks.found(NOW + step) == []
    looks.write(moment(NOW - 50.5), free_ram_mb=33)
    assert looks.found(NOW + step) == [33]
