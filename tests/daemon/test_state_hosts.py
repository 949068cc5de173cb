"""``hostler host add --state``: the hosts of a fleet's file and their guests in a service that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
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
    RunningInstance,
    Service,
    add_gpus,
    add_hosts,
    save_fleet,
)
from hostler.core.console import state_hosts
from hostler.core.rpc.client import BlockingClient
from hostler.core.rpc.connection import Limits
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


def test_no_message_of_hosts_is_longer_than_a_service_takes() -> None:
    guest = RunningInstance(resources={"VCPU": 1, "MEMORY_MB": 512}, project_id="p" * 32, user_id="u" * 32)
    size: dict[str, Any] = {"vcpus_total": 64, "total_usable_ram_mb": 1 << 20, "total_usable_disk_gb": 9}
    guests = [{uuid_of(1_000 * number + each): guest for each in range(900)} for number in range(100)]
    hosts = tuple(Host(host=f"h{number}", instances=each, **size) for number, each in enumerate(guests))
    messages = list(state_hosts.in_messages(hosts))
    assert [host for some in messages for host in some] == list(hosts)
    assert len(msgspec.msgpack.encode(hosts)) > Limits().frame_bytes
    assert max(len(msgspec.msgpack.encode(some)) for some in messages) < Limits().frame_bytes
    assert [len(some) for some in state_hosts.in_messages([Host(host="h", **size)] * 1_001)] == [500, 500, 1]


@pytest.mark.parametrize("arguments", [(), ("hosts.json", "--state", "state.hostler")])
def test_one_source_of_hosts_is_named(run: Run, daemon: Daemon, arguments: tuple[str, ...]) -> None:
    code, said = run("host", "add", *arguments)
    assert code == 1
    assert "either a JSON file of hosts or --state" in said


def saved(path: Path, *names: str, first: int = 1, policy: str = "anti-affinity") -> str:
    """A file with hosts of 8 vCPUs, a guest on each, numbered from ``first``, all in one server group."""
    made, asked = Fleet(), {}
    add_hosts(made, [Host(host=name, vcpus_total=8, total_usable_ram_mb=65_536) for name in names])
    made.add_server_group(APART, policy)
    engine, spec = Engine(made), RequestSpec(flavor=Flavor(name="m", vcpus=4, memory_mb=8_192))
    for number in range(first, first + len(names)):
        engine.place(Request(spec=spec, instance_uuids=(uuid_of(number),), server_group=APART))
        asked[uuid_of(number)] = spec
    save_fleet(made, path, requests=asked)
    return str(path)


def listed(run: Run) -> dict[str, int]:
    lines = json.loads(run("host", "list", "--json")[1])
    assert len({each["uuid"] for each in lines}) == len(lines)
    return {each["node"]: each["num_instances"] for each in lines}


def test_files_are_added_one_after_another_beside_hosts_of_a_service(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    """Each of the fleets has made the same uuids for its hosts."""
    with daemon.client() as client:
        client.call("add_hosts", {"hosts": [{"host": "old", "vcpus_total": 8, "total_usable_ram_mb": 65_536}]})
    for number, names in enumerate((("a", "b"), ("c", "d"))):
        path = saved(tmp_path / f"{number}.hostler", *names, first=1 + 10 * number)
        assert run("host", "add", "--state", path) == (0, "2 hosts with 2 guests added\n")
    assert listed(run) == {"old": 0, "a": 1, "b": 1, "c": 1, "d": 1}


def test_what_an_interrupted_call_has_added_is_not_added_again(
    run: Run, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is killed after the first of three commands."""
    path = saved(tmp_path / "state.hostler", "a", "b", "c")
    monkeypatch.setattr(state_hosts, "AT_A_TIME", 1)
    asked, call = [], BlockingClient.call

    def interrupted(client: BlockingClient, method: str, *rest: Any) -> Any:
        asked.append(method)
        if asked.count("add_hosts") == 2:
            daemon.restart()
            raise KeyboardInterrupt
        return call(client, method, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(BlockingClient, "call", interrupted)
        with pytest.raises(KeyboardInterrupt), daemon.client() as client:
            state_hosts.add_to(client, state_hosts.read_hosts(Path(path)))
    assert listed(run) == {"a": 1}
    said = "2 hosts with 2 guests added\n1 host of the file was there already\n"
    assert run("host", "add", "--state", path) == (0, said)
    assert run("host", "add", "--state", path)[1].startswith("0 hosts with 0 guests added\n3 hosts")
    assert listed(run) == {"a": 1, "b": 1, "c": 1}
    assert json.loads(run("server-group", "list", "--json")[1])[0]["members"] == 3


def test_nothing_is_added_where_the_service_has_something_else(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    assert run("host", "add", "--state", saved(tmp_path / "1", "a", "b"))[0] == 0
    for problem, path in (
        ("b is there already, with other guests", saved(tmp_path / "2", "n", "b", first=11)),
        ("a group", saved(tmp_path / "3", "n", first=21, policy="soft-anti-affinity")),
        (f"{uuid_of(2)} of n is there already, on b", saved(tmp_path / "4", "n", first=2)),
    ):
        code, said = run("host", "add", "--state", path)
        assert code == 1
        assert (f"{APART} is there already, as anti-affinity" if problem == "a group" else problem) in said
        assert listed(run) == {"a": 1, "b": 1}
    larger = {"host": "c", "vcpus_total": 16, "total_usable_ram_mb": 65_536}
    with daemon.client() as client:
        client.call("add_hosts", {"hosts": [larger]})
    code, said = run("host", "add", "--state", saved(tmp_path / "5", "n", "c", first=31))
    assert (code, "c is there already, with another inventory" in said) == (1, True)
    assert listed(run) == {"a": 1, "b": 1, "c": 0}


def test_members_and_readers_add_no_hosts(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    """Not the server groups either."""
    with daemon.client() as client:
        client.call("create_domain", {"id": "d"})
        client.call("create_project", {"id": "p", "domain": "d"})
        client.call("create_user", {"id": "u", "domain": "d"})
        for role, scope in (("member", "project:p"), ("reader", "cloud")):
            client.call("grant", {"user": "u", "role": role, "scope": scope})
            token = client.call("create_token", {"user": "u"}).token
            code, said = run("host", "add", "--state", saved(tmp_path / role, "a"), "--token", token)
            assert (code, "in cloud" in said or "of cloud" in said) == (5, True), said
    assert listed(run) == {}
    assert json.loads(run("server-group", "list", "--json")[1]) == []
