"""What the life of an OpenStack reads from nova-manage, how its hosts share processes, and that the way back is the
one that the documentation tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hostler.bench.openstack_back import AUDIT, HEAL, HEAL_ONE, BothWays
from hostler.bench.openstack_beside import side_of
from hostler.bench.openstack_cloud import MANY, OpenStack
from hostler.bench.openstack_life import Batch, Life

LINE = (
    "Allocations for consumer UUID {} on Resource Provider rp-1 can be deleted: "
    "{{'allocations': {{'rp-1': {{'resources': {{'VCPU': 1}}}}}}}}"
)
"""As Nova 34 prints it."""


@pytest.mark.parametrize(
    ("code", "told", "found"),
    [
        (0, "Processed 0 allocations.", []),
        (3, f"{LINE.format('left')}\nProcessed 1 allocation.", []),
        (3, f"{LINE.format('left')}\n{LINE.format('other')}\nProcessed 2 allocations.", ["other on dead"]),
        (1, "The Resource Provider rp-1 had problems", ["The Resource Provider rp-1 had problems"]),
    ],
)
def test_the_allocations_of_evacuated_guests_on_the_dead_host_are_no_orphans(
    code: int, told: str, found: list[str]
) -> None:
    providers = {"resource_providers": [{"uuid": "rp-1", "name": "dead"}]}
    placement = SimpleNamespace(get=lambda path: SimpleNamespace(json=lambda: providers))
    cloud: Any = SimpleNamespace(manage=lambda *words: (code, told), placement=placement, stock=False)
    life = Life(cloud, lambda step: None)
    life._left["left"] = "dead"
    assert life._orphans() == (code, found)


@pytest.mark.parametrize(("computes", "cells", "processes"), [(6, 1, 6), (20, 2, 20), (45, 2, 5), (400, 2, 21)])
def test_hosts_share_processes_within_their_cell_but_for_the_last(
    tmp_path: Path, computes: int, cells: int, processes: int
) -> None:
    cloud = OpenStack(tmp_path, tmp_path, computes=computes, cells=cells)
    groups = list(cloud._groups.values())
    assert len(groups) == processes
    assert sorted(host for group in groups for host in group) == sorted(cloud.computes)
    assert groups[-1] == cloud.computes[-1:]
    for group in groups:
        assert len({cloud.cell(host) for host in group}) == 1
        assert len(group) <= MANY


def test_the_rounds_of_one_side_are_counted_together() -> None:
    common: dict[str, Any] = {"hosts": ["h"], "servers": 0.3, "database": 0.1}
    batches = [
        Batch(states={"a": "ACTIVE", "b": "ACTIVE"}, seconds=[1.0, 2.0], **common),
        Batch(states={"c": "ACTIVE", "d": "ERROR"}, seconds=[3.0], **common),
    ]
    side = side_of(batches, stock=True)
    assert (side.guests, side.states, side.p50) == (4, {"ACTIVE": 3, "ERROR": 1}, 2.0)
    assert (side.servers_ms, side.database_ms) == (150.0, 50.0)


def test_the_way_back_is_that_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "beside-nova.md").read_text(encoding="utf-8")
    told = page.partition("\n## Go back\n")[2]
    assert "openstack_back" in told
    commands = [" ".join(("nova-manage", *words)) for words in (AUDIT, HEAL, HEAL_ONE)]
    places = [told.index(command) for command in commands]
    assert places == sorted(places)


def test_the_options_of_hostler_stay_in_nova_conf_on_the_way_back(tmp_path: Path) -> None:
    cloud = BothWays(tmp_path, tmp_path, computes=4)
    cloud._transport, cloud._database = "rabbit://guest@127.0.0.1/", "postgresql:///postgres?host=/tmp"
    assert "[hostler]\nmode = live\nfallback = never\n" in cloud._conf("nova")
    assert cloud.stock
