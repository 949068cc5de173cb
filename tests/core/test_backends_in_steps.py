"""Reports and settings of back ends and of volume backends are taken in some nodes or pools at a time: with the outcome
and the state that they have at once, and with sound fleet and pools at each pause."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hostler.core import lifecycle_commands as l
from hostler.core import storage_commands as s
from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine import backend_changes, storage_backends
from hostler.core.machine.machine import ServiceMachine
from hostler.placement.storage.pools import pools as pools_of_backends
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec
from tests.core.orders import NOW, order
from tests.core.test_reports_in_steps import pools_of, reports_a_step
from tests.core.test_several_in_steps import look, outcome_of
from tests.seeds import seeds
from tests.volumes.values import place, report, reports, storage_machine

BACKENDS, NODES = ("one", "two"), 6


@contextmanager
def a_step(few: int) -> Iterator[None]:
    """With so many nodes or pools a step."""
    with pytest.MonkeyPatch.context() as patch, reports_a_step(few):
        patch.setattr(storage_backends, "POOLS", few)
        patch.setattr(storage_backends, "CHECKED", few)
        patch.setattr(storage_backends, "READ", few)
        patch.setattr(pools_of_backends, "POOLS", few)
        patch.setattr(pools_of_backends, "READ", few)
        for name in ("LOOKED_AT", "READ", "FEW_POOLS", "SERVICES"):
            patch.setattr(backend_changes, name, few)
        yield


def command(chance: random.Random, now: float) -> Any:
    """What is said of a back end, or of the volume backend of one, which may be refused."""
    name = chance.choice(BACKENDS)
    volume_host = chance.choice([f"{name}@lvm", "node-0@lvm", "node-1@lvm"])
    at = now - chance.choice([0, 0, 0, 50])
    match chance.randrange(7):
        case 0 | 1:
            numbers = chance.sample(range(NODES), chance.randrange(NODES))
            other = "" if chance.random() < 0.8 else "shared-"
            nodes = [
                l.NodeReport(
                    f"{other or name}{number}",
                    *(chance.choice([4, 8]), 8_192, 90, chance.randrange(4), 512, 5),
                    state=chance.choice(["up", "down", "maintenance"]),
                )
                for number in numbers
            ]
            return l.ReportBackend(name=name, at=at, nodes=tuple(nodes))
        case 2 | 3:
            pools = [
                l.PoolReport(f"p{number}", 90, chance.randrange(90), 10, chance.random() < 0.5)
                for number in chance.sample(range(NODES), chance.randrange(NODES))
            ]
            return l.ReportPools(name=name, kind=chance.choice(["lvm"] * 9 + ["nfs"]), at=at, pools=tuple(pools))
        case 4:
            return l.SetBackend(name=name, enabled=chance.random() < 0.5, reason="repair")
        case 5:
            up, frozen = (chance.choice([None, True, False]) for _ in range(2))
            return s.SetVolumeBackend(host=volume_host, up=up, frozen=frozen, disabled=chance.random() < 0.3)
    each = [
        report(volume_host, *((pool, chance.randrange(500)) for pool in chance.sample("abcdefg", chance.randrange(7))))
        for _ in range(chance.randrange(3))
    ]
    if chance.random() < 0.2:
        each.append(s.VolumeBackendReport(host=volume_host, capabilities={"pools": [{"pool_name": "a"}, {}, {}, {}]}))
    return reports(*each)


def check(made: ServiceMachine) -> None:
    made.state.fleet.check()
    made.state.storage._context.pools.check()


@pytest.mark.parametrize("seed", seeds(6, "back ends in steps"))
def test_what_back_ends_say_ends_as_at_once(seed: int) -> None:
    chance, meanwhile = random.Random(seed), random.Random(seed)
    made, at_once = storage_machine(), storage_machine()
    refused = paused = 0

    def pause() -> None:
        nonlocal paused
        paused += 1
        check(made)
        if meanwhile.random() < 0.5:
            made.state.storage.what_if().place(VolumeRequest(spec=VolumeSpec(size_gb=1), now=NOW))
            look(made, meanwhile)

    for turn in range(60):
        now = NOW + 20.0 * turn
        given = command(chance, now)
        if chance.random() < 0.2:
            given = place(1_000 + turn, 1)
        with a_step(1):
            found = outcome_of(made, given, pause, now=now)
        with a_step(10**6):
            assert found == outcome_of(at_once, given, now=now)
        refused += isinstance(found, tuple)
        check(made)
        assert state_digest(made.state) == state_digest(at_once.state)
        assert pools_of(made) == pools_of(at_once)
    assert paused > 60
    assert 0 < refused < 60


def test_a_volume_backend_that_is_disabled_half_way_shows_only_pools_that_are_there() -> None:
    made = storage_machine()
    each = [l.PoolReport(f"p{number}", 90, 80, 10) for number in range(9)]
    made.apply(order(l.ReportPools(name="one", kind="lvm", at=NOW, pools=tuple(each))))
    seen: list[int] = []

    def pause() -> None:
        pools = made.state.storage._context.pools
        seen.append(sum(name.startswith("one@lvm#") for name in pools.row_of))

    with a_step(2):
        outcome_of(made, l.SetBackend(name="one", enabled=False), pause)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 0
    assert len(set(seen)) > 3
