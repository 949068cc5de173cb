"""Policies by name: each plays, says what it is for, and is a policy of production as well."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.cli import main
from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec
from hostler.sim.questions.tasks import execute, start
from hostler.sim.run.fleet_plan import FleetPlan, Hardware
from hostler.sim.run.policies import ABOUT, NAMES, ON_GPUS, policy_of
from tests.storage import values as storage

from .values import TRACE, task, written

GPU_TRACE = "arrival_s,lifetime_s,vcpus,memory_gb,gpus,gpu_milli\n" + "".join(
    f"{300 * n},3000,2,4,{1 + n % 2},{500 if n % 3 else 1000}\n" for n in range(40)
)
GPU_FLEET = FleetPlan(hardware=(Hardware(name="gpu", count=4, vcpus=32, memory_gb=128, gpus=4, disk_gb=500),))
SHAPE = ["--hosts", "3", "--vcpus", "4", "--memory-gb", "8"]


@pytest.mark.parametrize("name", NAMES)
def test_every_named_policy_plays_and_is_one_of_production_in_toml(tmp_path: Path, name: str) -> None:
    asked = msgspec.structs.replace(task(written(tmp_path, GPU_TRACE), policy=name), plan=GPU_FLEET)
    outcome = execute(asked)
    assert outcome.policy == name
    assert outcome.placed + outcome.refused == outcome.requests == 40
    policy = start(asked).engine.policy
    own = tmp_path / "own.toml"
    own.write_text(policy.to_toml())
    assert Policy.from_toml(own).digest == policy.digest
    assert execute(msgspec.structs.replace(asked, policy=str(own))) == outcome


@pytest.mark.parametrize("name", sorted(ON_GPUS))
def test_policies_of_gpus_are_refused_where_there_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidValue, match="there are none"):
        execute(task(written(tmp_path), policy=name))


def test_fragmentation_is_measured_by_the_guests_of_the_trace(tmp_path: Path) -> None:
    asked = msgspec.structs.replace(task(written(tmp_path, GPU_TRACE), policy="fgd"), plan=GPU_FLEET)
    typical = start(asked).engine.policy.options.gpu.typical
    assert {"2000:500:1", "2000:500:2"} <= set(typical)
    assert sum(typical.values()) == pytest.approx(1.0)


def test_names_are_listed_with_what_they_prefer(capsys: Any) -> None:
    assert main(["simulate", "policies"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES)
    assert main(["simulate", "policies", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ABOUT


@pytest.mark.parametrize("command", [["run"], ["size"], ["forecast", "--days", "2", "--seeds", "1"], ["sweep"]])
def test_one_of_ones_own_is_named_by_module(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "ours.py").write_text(
        "from hostler import Policy\n"
        "from hostler.placement.weighers.packing import DotProductWeigher\n"
        "class Ours(DotProductWeigher):\n    name = 'Ours'\n"
        "stacking = Policy.from_mapping({'hostler': {'name': 'stacking'}})\n"
        "neither = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    asked = ["simulate", *command, "--trace", written(tmp_path), *SHAPE]
    nova_ram = ("RAMWeigher", "hostler.placement.weighers.ram:RAMWeigher")
    for name in ("ours:Ours", "ours:stacking", "DotProductWeigher", *nova_ram):
        assert main([*asked, "--policy", name]) == 0
    capsys.readouterr()
    for wrong in ("ours:neither", "ours:nothing", "nowhere:x", "DotProductWeiger"):
        assert main([*asked, "--policy", wrong]) == 1
        assert "policy" in capsys.readouterr().err


def test_one_of_ones_own_is_compared_with_others(tmp_path: Path, capsys: Any) -> None:
    asked = ["simulate", "compare", "--trace", written(tmp_path, TRACE), *SHAPE, "--workers", "1"]
    assert main([*asked, "--policies", "nova,hostler.placement.weighers.packing:CosineWeigher,CosineWeigher"]) == 0
    assert "packing:CosineWeigher, 3 hosts" in capsys.readouterr().out


def test_a_name_that_is_none_says_which_are_close() -> None:
    with pytest.raises(HostlerError, match="best-fit"):
        policy_of("bestfit")


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(
    capacities=st.lists(st.integers(50, 500), min_size=2, max_size=6, unique=True),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_cinder_prefers_the_host_whose_disk_cinders_engine_prefers_as_a_pool(
    capacities: list[int], sizes: list[int]
) -> None:
    pools = storage.engine(
        *(
            storage.report(f"h{number}@lvm", storage.pool("p", size, size, reserved_percentage=0))
            for number, size in enumerate(capacities)
        )
    )
    fleet = Fleet()
    shape: dict[str, Any] = {"vcpus_total": 10_000, "total_usable_ram_mb": 10_000_000}
    add_hosts(fleet, [Host(host=f"h{n}", total_usable_disk_gb=size, **shape) for n, size in enumerate(capacities)])
    engine = Engine(fleet, policy_of("cinder"))
    for size in sizes:
        free = fleet.column("free_disk_mb").tolist()
        volume = pools.place(storage.wish(size))
        flavor = Flavor(name=f"{size}", vcpus=1, memory_mb=1, root_gb=size)
        guest = engine.place(Request(spec=RequestSpec(flavor=flavor)))
        assert volume.placed == guest.placed
        if not volume.placed:
            return
        there, here = volume.selected.backend_id.partition("@")[0], guest.host
        assert free[int(there[1:])] == free[int(here[1:])]
        if there != here:  # equally much is free: who is first differs
            return
