"""``hostler host add --state``: the hosts of a fleet's file and their guests in a service that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostler import (
    Aggregate,
    Engine,
    Flavor,
    Fleet,
    Host,
    NumaCell,
    NumaTopology,
    PciPool,
    PciRequest,
    Policy,
    Request,
    RequestSpec,
    Service,
    add_gpus,
    add_hosts,
    save_fleet,
)
from hostler.placement.types.host import MemoryPages
from tests.core.orders import uuid_of

from .commands import Run
from .processes import Daemon

ZONE = Aggregate(uuid=uuid_of(901), name="east", metadata={"availability_zone": "east"})
APART = uuid_of(801)
CELLS = NumaTopology(
    cells=tuple(
        NumaCell(
            id=cell,
            cpuset=frozenset(),
            pcpuset=frozenset(range(4 * cell, 4 * cell + 4)),
            memory=32_768,
            siblings=tuple(frozenset({cpu}) for cpu in range(4 * cell, 4 * cell + 4)),
            mempages=(MemoryPages(size_kb=4, total=32_768 * 256),),
            socket=cell,
        )
        for cell in range(2)
    )
)
CARD = PciPool(count=2, total=2, numa_node=0, tags={"vendor_id": "10de", "product_id": "1db4", "dev_type": "type-PCI"})


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon")) as started:
        yield started


def fleet(specs: dict[str, str]) -> tuple[Fleet, dict[str, RequestSpec]]:
    """Plain hosts with guests two of which stay apart, and one with a guest that has a device."""
    made, asked = Fleet(), {}
    size = {"vcpus_total": 8, "total_usable_ram_mb": 65_536, "total_usable_disk_gb": 500, "aggregates": (ZONE,)}
    add_hosts(
        made,
        [
            Host(host="a", **size, cpu_allocation_ratio=2.0, reserved_ram_mb=1024, traits=frozenset({"CUSTOM_SSD"})),  # type: ignore[arg-type]
            Host(host="b", **size, cpu_allocation_ratio=2.0),  # type: ignore[arg-type]
            Host(host="c", **size, service=Service(disabled=True, disabled_reason="old")),  # type: ignore[arg-type]
            Host(host="n", **size, numa_topology=CELLS, pci_pools=(CARD,)),  # type: ignore[arg-type]
        ],
    )
    made.add_server_group(APART, "anti-affinity")
    filters = '"ComputeFilter", "NUMATopologyFilter", "PciPassthroughFilter", "ServerGroupAntiAffinityFilter"'
    engine = Engine(made, Policy.from_toml(f"[filter_scheduler]\nenabled_filters = [{filters}]"))
    plain = RequestSpec(flavor=Flavor(name="m", vcpus=4, memory_mb=8_192, root_gb=20))
    device = RequestSpec(
        flavor=Flavor(name="p", vcpus=2, memory_mb=4_096, root_gb=10, extra_specs=specs),
        pci_requests=(PciRequest(count=1, spec=({"vendor_id": "10de", "product_id": "1db4"},)),),
    )
    for number, (spec, group) in enumerate([(plain, APART), (plain, APART), (plain, None), (device, None)]):
        uuid = uuid_of(number + 1)
        placed = engine.place(Request(spec=spec, instance_uuids=(uuid,), server_group=group))
        assert placed.host == "n" or spec is plain
        asked[uuid] = spec
    return made, asked


def told(run: Run, name: str) -> dict[str, Any]:
    code, said = run("host", "show", name, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(said)
    return found


def test_hosts_come_with_what_their_guests_hold(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    made, asked = fleet({})
    save_fleet(made, tmp_path / "state.hostler", requests=asked)
    assert run("host", "add", "--state", str(tmp_path / "state.hostler")) == (0, "4 hosts with 4 guests added\n")
    for name in ("a", "b", "c", "n"):
        found = told(run, name)
        stock = {each: (line["total"], line["limit"], line["used"]) for each, line in found["inventory"].items()}
        here = {
            each: (
                inventory.total,
                int((inventory.total - inventory.reserved) * inventory.allocation_ratio),
                used,
            )
            for each, (inventory, used) in made.inventory(name).items()
        }
        assert stock == here
        assert found["aggregates"] == ["east"]
    assert "CUSTOM_SSD" in told(run, "a")["traits"]
    line = told(run, "c")["line"]
    assert (line["disabled"], told(run, "c")["service"]["forced_down"]) == (True, False)
    assert [(pool["free"], pool["total"]) for pool in told(run, "n")["pci_pools"]] == [(1, 2)]
    with daemon.client() as client:
        client.call("release", {"uuids": [uuid_of(4)]})
    assert [(pool["free"], pool["total"]) for pool in told(run, "n")["pci_pools"]] == [(2, 2)]
    listed = json.loads(run("server-group", "list", "--json")[1])
    assert [(each["uuid"], each["policy"], each["members"]) for each in listed] == [(APART, "anti-affinity", 2)]


def test_what_no_report_of_a_host_has_is_refused_with_what_helps(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    nested, asked = fleet({})
    add_gpus(nested, {"a": 2})
    save_fleet(nested, tmp_path / "gpus.hostler", requests=asked)
    pinned, asked = fleet({"hw:cpu_policy": "dedicated"})
    save_fleet(pinned, tmp_path / "pinned.hostler", requests=asked)
    for name, problem in (("gpus", "such as GPUs"), ("pinned", f"{uuid_of(4)} on n has NUMA cells")):
        code, said = run("host", "add", "--state", str(tmp_path / f"{name}.hostler"))
        assert code == 1
        assert problem in said
        assert "--data FOLDER" in said
    assert json.loads(run("host", "list", "--json")[1]) == []


@pytest.mark.parametrize("arguments", [(), ("hosts.json", "--state", "state.hostler")])
def test_one_source_of_hosts_is_named(run: Run, daemon: Daemon, arguments: tuple[str, ...]) -> None:
    code, said = run("host", "add", *arguments)
    assert code == 1
    assert "either a JSON file of hosts or --state" in said
