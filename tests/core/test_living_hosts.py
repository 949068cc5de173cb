"""Reports of hosts and moves in two phases as commands of the service: in the journal's form, in quotas, by what was
asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core.machine import queries as q
from hostler.core.machine.call_uuids import with_canonical_uuids
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import PlacementWrite
from hostler.core.machine.report_columns import columns_of, reports_of
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import QuotaExceeded
from hostler.core.tenancy.tenants import LOCAL
from hostler.placement.api import commands as c_
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.fleet.host_view import HostView
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.load.reports import report_hosts
from hostler.placement.types.errors import HostlerError, InUse, InvalidValue, UnknownName
from hostler.placement.types.host import Aggregate, Host, NumaCell, NumaTopology, PciPool, RunningInstance, Service
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.networks import NetworkMetadata
from hostler.placement.types.request import Flavor

from .orders import NOW, asked, hosts, machine, order, place, uuid_of

GUEST = uuid_of(1)


def do(m: ServiceMachine, command: Any, *, now: float = NOW) -> Any:
    """Carry out a command as the journal has it."""
    return m.apply(m.decode(m.encode(order(command, now=now))))


def used(m: ServiceMachine, project: str = "p") -> dict[str, int]:
    return m.state.usage.of(f"project:{project}")


def with_project(m: ServiceMachine, **limits: int) -> None:
    do(m, c.CreateDomain(id="d"))
    do(m, c.CreateProject(id="p", domain="d"))
    if limits:
        do(m, c.SetLimits(scope="project:p", limits=limits))


def test_reports_go_through_the_journal_in_columns() -> None:
    m = machine(2)
    do(m, place(1))
    cell = NumaCell(id=0, cpuset=frozenset({0, 1}), memory=1024)
    guest = RunningInstance(flavor=Flavor(name="f", vcpus=2, memory_mb=512))
    given = [
        HostReport(
            host=Host(
                host=f"node-{number}",
                vcpus_total=32,
                total_usable_ram_mb=131_072,
                metrics={"m": float(number)},
                numa_topology=NumaTopology(cells=(cell,)) if number else None,
                instances={} if number else {GUEST: {}, uuid_of(7): guest},
            ),
            at=NOW - 1,
            includes=frozenset({GUEST}) if number == 0 else None,
            service=Service(disabled=True) if number else None,
        )
        for number in range(2)
    ]
    command = columns_of(given)
    assert command.same == {"vcpus_total": 32, "total_usable_ram_mb": 131_072, "at": NOW - 1}
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=p.ReportHosts)
    assert [each.at for each in reports_of(decoded, NOW)] == [NOW - 1] * 2
    assert do(m, command).applied == 2
    fleet = m.state.fleet
    assert fleet.column("vcpus_total").tolist() == [32, 32]
    assert fleet.consumer(uuid_of(7)).resources == {"VCPU": 2, "MEMORY_MB": 512}
    assert [fleet._host_class(row).disabled for row in range(2)] == [False, True]
    fleet.check()


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (p.ReportHosts(each={"host": ["a"], "vcpus_total": [1, 2]}), "each"),
        (p.ReportHosts(each={"host": ["a"]}, same={"host": "b"}), "same"),
        (p.ReportHosts(each={"host": ["a"], "vcpus_total": [1]}), "reports"),
        (p.ReportHosts(each={"host": ["a"], "colour": ["red"]}), "colour"),
    ],
)
def test_columns_that_are_no_reports_are_refused(command: p.ReportHosts, field: str) -> None:
    m = machine(1)
    with pytest.raises(HostlerError) as caught:
        do(m, command)
    assert field in f"{caught.value.field} {caught.value}"


def test_minus_one_mib_free_is_derived_only_in_old_commands() -> None:
    m = machine(0)
    old = Host(host="old", vcpus_total=1, total_usable_ram_mb=1024, free_ram_mb=-1)
    do(m, p.AddHosts(hosts=(old,)))
    do(m, p.AddHosts(hosts=(replace(old, host="new"),), negative_free=True))
    assert m.state.fleet.column("free_ram_mb").tolist() == [1024, -1]


def test_a_claim_that_no_report_has_leaves_its_quota() -> None:
    m = machine(1)
    with_project(m)
    do(m, place(1, project="p"))
    for later in (10, 700):
        reported = do(m, columns_of([HostReport(host=hosts(1)[0], at=NOW + later)]), now=NOW + later)
    assert reported.expired == (GUEST,)
    assert used(m) == {}


def test_a_report_leaves_a_host_in_its_pools() -> None:
    m = machine(1)
    do(m, c.CreatePool(id="gold", hosts=("node-0",)))
    zone = Aggregate(uuid=uuid_of(900), name="z", metadata={"availability_zone": "z"})
    host = Host(host="node-0", vcpus_total=1, total_usable_ram_mb=1, aggregates=(zone,))
    do(m, columns_of([HostReport(host=host, at=NOW)]))
    assert m.state.pools.hosts(m.state.fleet, "gold") == ["node-0"]


def test_a_move_counts_both_ends_and_the_instance_once() -> None:
    m = machine(2)
    with_project(m)
    do(m, place(1, project="p"))
    once = used(m)
    assert do(m, p.BeginMove(uuid=GUEST)).host == "node-1"
    assert used(m) == {"instances": 1, "VCPU": 2 * once["VCPU"], "MEMORY_MB": 2 * once["MEMORY_MB"]}
    assert do(m, p.RevertMove(uuid=GUEST)).source == "node-0"
    assert used(m) == once
    do(m, p.BeginMove(uuid=GUEST))
    do(m, p.ConfirmMove(uuid=GUEST))
    assert used(m) == once
    do(m, p.BeginMove(uuid=GUEST))
    do(m, p.Release(uuids=(GUEST,)))
    assert used(m) == {}


def test_a_resize_is_held_to_the_quota_of_both_sizes() -> None:
    m = machine(2)
    with_project(m, VCPU=4)
    do(m, place(1, project="p", vcpus=2))
    with pytest.raises(QuotaExceeded):
        do(m, p.BeginMove(uuid=GUEST, kind="resize", request=asked(vcpus=3)))
    assert do(m, p.BeginMove(uuid=GUEST, kind="resize", request=asked(vcpus=2))).placed


def test_a_move_without_a_request_is_judged_by_what_was_asked() -> None:
    m = machine(0)
    zone = (Aggregate(uuid=uuid_of(900), name="z", metadata={"availability_zone": "z"}),)
    some = hosts(3)

    do(m, p.AddHosts(hosts=(replace(some[0], aggregates=zone), some[1], replace(some[2], aggregates=zone))))
    do(m, place(1, availability_zone="z"))
    assert do(m, p.Move(uuid=GUEST)).host == "node-2"
    assert do(m, p.BeginMove(uuid=GUEST)).host == "node-0"


def test_what_was_asked_follows_a_resize_and_comes_back_with_a_revert() -> None:
    m = machine(2)
    do(m, place(1, vcpus=1))
    do(m, p.BeginMove(uuid=GUEST, kind="resize", request=asked(vcpus=4)))
    do(m, p.RevertMove(uuid=GUEST))
    assert do(m, p.Move(uuid=GUEST)).amounts()["VCPU"] == 1
    do(m, p.BeginMove(uuid=GUEST, kind="resize", request=asked(vcpus=4)))
    do(m, p.ConfirmMove(uuid=GUEST))
    assert do(m, p.Move(uuid=GUEST)).amounts()["VCPU"] == 4


def test_what_a_guest_was_asked_with_goes_with_it() -> None:
    m = machine(2)
    for number in range(1, 6):
        do(m, place(number, vcpus=number))
    do(m, p.Release(uuids=tuple(uuid_of(number) for number in range(1, 6))))
    assert m.state.requests.uuids() == []
    do(m, place(9))
    assert len(m.state.requests.specs) == 1, "places of forgotten specs are given back"


def test_a_move_whose_request_is_not_known_asks_for_it() -> None:
    m = machine(2)
    do(
        m,
        columns_of(
            [HostReport(host=Host(host="x", vcpus_total=1, total_usable_ram_mb=1, instances={GUEST: {}}), at=NOW)]
        ),
    )
    with pytest.raises(InvalidValue, match="not known what instance"):
        do(m, p.BeginMove(uuid=GUEST))
    with pytest.raises(UnknownName):
        do(m, p.ConfirmMove(uuid=GUEST))


def test_a_move_expires_with_the_time_of_any_command() -> None:
    m = machine(2)
    with_project(m)
    do(m, place(1, project="p"))
    once = used(m)
    do(m, p.BeginMove(uuid=GUEST, expires_in=60))
    do(m, p.Heartbeats(names=("node-0",)), now=NOW + 59)
    assert len(m.state.engine.moves()) == 1
    do(m, p.Heartbeats(names=("node-0",)), now=NOW + 61)
    assert m.state.engine.moves() == []
    assert used(m) == once


def test_moves_and_requests_are_in_the_snapshot(tmp_path: Path) -> None:
    m = machine(2)
    do(m, place(1, vcpus=2))
    do(m, p.BeginMove(uuid=GUEST))
    m.save(tmp_path)
    other = ServiceMachine()
    other.load(tmp_path)
    assert other.state.engine.moves() == m.state.engine.moves()
    do(other, p.RevertMove(uuid=GUEST))
    assert do(other, p.Move(uuid=GUEST)).amounts()["VCPU"] == 2


def test_drift_says_what_differs() -> None:
    m = machine(2)
    do(m, place(1, memory_mb=2048))
    small = Host(
        host="node-0", vcpus_total=16, total_usable_ram_mb=1024, total_usable_disk_gb=500, instances={GUEST: {}}
    )
    do(m, columns_of([HostReport(host=small, at=NOW)]))
    (line,) = q.answer(m.state, "@local", q.ShowDrift())
    assert (line.node, line.beyond_capacity) == ("node-0", {"MEMORY_MB": 1024})


def put(m: ServiceMachine, consumers: dict[str, c_.ConsumerAllocations]) -> None:
    do(m, PlacementWrite(command=c_.SetAllocations(consumers=consumers, now=NOW, infer_types=True)))


def with_provider(m: ServiceMachine) -> str:
    """A provider that a client of the Placement API made, with a consumer."""
    made = do(m, PlacementWrite(command=c_.CreateProvider(uuid=uuid_of(500), name="n1", now=NOW)))
    inventories = {"VCPU": Inventory(total=16), "MEMORY_MB": Inventory(total=65_536)}
    do(m, PlacementWrite(command=c_.SetInventories(provider=made.uuid, inventories=inventories, generation=0, now=NOW)))
    held = {made.uuid: {"VCPU": 2, "MEMORY_MB": 4_096}}
    put(m, {GUEST: c_.ConsumerAllocations(allocations=held, project_id="p", user_id="u")})
    return str(made.uuid)


def test_a_host_that_is_added_is_the_provider_of_its_name_and_its_consumers_count() -> None:
    m = machine(0)
    uuid = with_provider(m)
    do(
        m,
        p.AddHosts(hosts=(Host(host="n1", uuid=uuid, vcpus_total=16, total_usable_ram_mb=65_536),), negative_free=True),
    )
    (line,) = q.answer(m.state, "@local", q.Hosts())
    assert (line.node, line.vcpus_used, line.free_ram_mb, line.num_instances) == ("n1", 2, 61_440, 1)
    m.state.fleet.check()


def test_a_provider_of_placements_clients_is_removed_with_force_only() -> None:
    m = machine(0)
    with_provider(m)
    do(m, p.Release(uuids=(GUEST,)))
    with pytest.raises(InUse, match="clients of the Placement API"):
        do(m, p.RemoveHost(name="n1"))
    do(m, p.RemoveHost(name="n1", force=True))
    assert len(m.state.fleet) == 0


def test_a_consumer_that_takes_over_an_instances_allocations_is_its_migration_whatever_the_microversion() -> None:
    m = machine(0)
    uuid = with_provider(m)
    do(
        m,
        p.AddHosts(hosts=(Host(host="n1", uuid=uuid, vcpus_total=16, total_usable_ram_mb=65_536),), negative_free=True),
    )
    held, none = {uuid: {"VCPU": 2, "MEMORY_MB": 4_096}}, dict[str, dict[str, int]]()

    def instances() -> int:
        (line,) = q.answer(m.state, "@local", q.Hosts())
        return int(line.num_instances)

    def consumer(allocations: dict[str, dict[str, int]]) -> c_.ConsumerAllocations:
        return c_.ConsumerAllocations(allocations=allocations, project_id="p", user_id="u")

    migration = uuid_of(99)
    put(m, {GUEST: consumer(none), migration: consumer(held)})
    assert instances() == 0
    put(m, {migration: consumer(none), GUEST: consumer(held)})
    assert instances() == 1
    m.state.fleet.check()


def test_a_host_is_not_said_to_be_up_while_no_heartbeat_is_known() -> None:
    m = machine(1)
    assert q.answer(m.state, "@local", q.Hosts())[0].up is None
    do(m, p.Heartbeats(names=("node-0",)))
    assert q.answer(m.state, "@local", q.Hosts())[0].up is True
    do(m, p.Heartbeats(names=()), now=NOW + 600)
    assert q.answer(m.state, "@local", q.Hosts())[0].up is False


def test_figures_that_are_older_than_a_claim_do_not_undo_it() -> None:
    m = machine(1)
    free = float(m.state.fleet.column("free_ram_mb")[0])
    do(m, place(1))
    do(m, p.Report(name="node-0", figures={"free_ram_mb": free, "num_instances": 0}))
    assert m.state.fleet.column("free_ram_mb")[0] < free
    assert m.state.fleet.column("num_instances")[0] == 1
    do(m, p.Report(name="node-0", figures={"num_io_ops": 7}, at=NOW))
    do(m, p.Report(name="node-0", figures={"num_io_ops": 3}, at=NOW - 10))
    assert m.state.fleet.column("num_io_ops")[0] == 7
    assert m.state.fleet.drift().tolist() == []


def test_weighers_follow_changed_inventories() -> None:
    m = machine(2)
    bigger = {"VCPU": Inventory(total=64, allocation_ratio=2.0), "MEMORY_MB": Inventory(total=262_144, reserved=1_024)}
    do(m, p.SetInventory(name="node-1", inventories=bigger))
    fleet = m.state.fleet
    assert fleet.column("free_ram_mb")[1] == 261_120
    assert (fleet.column("vcpus_total")[1], fleet.column("free_vcpus")[1]) == (64, 128)
    assert fleet._host_class(1).cpu_allocation_ratio == 2.0
    assert do(m, place(1)).host == "node-1"
    fleet.check()
    assert fleet.drift().tolist() == []


def test_a_host_shows_its_cells_and_devices_and_none_of_a_card_of_which_another_function_is_taken() -> None:
    m = ServiceMachine()
    card = {"vendor_id": "8086", "product_id": "1572", "dev_type": "type-PF"}
    functions = {"vendor_id": "8086", "product_id": "154c", "dev_type": "type-VF"}
    pools = (
        PciPool(count=1, total=1, tags=card, card="nic0"),
        PciPool(count=3, total=4, tags=functions, card="nic0"),
    )
    cell = NumaCell(id=0, cpuset=frozenset({0, 1}), pcpuset=frozenset({2, 3}), memory=1_024, pinned_cpus=frozenset({3}))
    host = Host(
        host="a",
        vcpus_total=4,
        total_usable_ram_mb=1_024,
        pci_pools=pools,
        numa_topology=NumaTopology(cells=(cell,)),
    )
    do(m, with_canonical_uuids(p.AddHosts(hosts=(host,))))  # as it comes over RPC
    shown = q.answer(m.state, LOCAL, q.ShowHost(name="a"))
    assert [(each.tags["dev_type"], each.free, each.total) for each in shown.pci_pools] == [
        ("type-PF", 0, 1),
        ("type-VF", 3, 4),
    ]
    ((cpus, pinnable, pinned),) = [(each.cpus, each.pinnable, each.pinned) for each in shown.numa_cells]
    assert (cpus, pinnable, pinned) == ([0, 1], [2, 3], [3])


def test_a_host_shows_all_that_it_has_reported() -> None:
    m = ServiceMachine()
    networks = NetworkMetadata(physnets=frozenset({"p2", "p1"}), tunneled=True)
    cell = NumaCell(id=0, cpuset=frozenset({0, 1}), memory=1_024, network_metadata=networks)
    host = Host(
        host="svc",
        nodename="a",
        uuid=uuid_of(9),
        cell_uuid=uuid_of(8),
        host_ip="10.9.8.7",
        vcpus_total=4,
        total_usable_ram_mb=1_024,
        total_usable_disk_gb=10,
        disk_mb_used=1_024,
        cpu_allocation_ratio=2.0,
        ram_allocation_ratio=1.25,
        disk_allocation_ratio=1.5,
        hypervisor_type="QEMU",
        hypervisor_version=8_002_002,
        cpu_info='{"arch": "x86_64"}',
        num_io_ops=1,
        failed_builds=2,
        stats={"k": "v"},
        metrics={"cpu.percent": 12.5},
        supported_instances=(("x86_64", "kvm", "hvm"),),
        numa_topology=NumaTopology(cells=(cell,)),
    )
    do(m, columns_of([HostReport(host=host, at=NOW, service=Service(version=70, last_seen_up=NOW))]))
    shown = q.answer(m.state, LOCAL, q.ShowHost(name="a"))
    facts = msgspec.to_builtins(shown.facts)
    assert facts.pop("reported_at") == NOW
    assert facts.pop("supported_instances") == [["x86_64", "kvm", "hvm"]]
    assert facts == {name: getattr(host, name) for name in facts}
    assert (shown.service.version, shown.service.last_seen_up) == (70, NOW)
    assert (shown.numa_cells[0].physnets, shown.numa_cells[0].tunneled) == (["p1", "p2"], True)


def test_a_report_leaves_the_version_of_a_compute_service_or_changes_it() -> None:
    fleet = Fleet()

    def version(at: float, service: Service | None = None, own: int | None = None) -> int | None:
        host = Host(host="a", vcpus_total=4, total_usable_ram_mb=1_024, service=Service(version=own))
        report_hosts(fleet, [HostReport(host=host, at=at, service=service)])
        assert fleet.minimum_compute_version == HostView(fleet, 0).service.version
        return HostView(fleet, 0).service.version

    assert version(1.0, Service(version=66)) == 66
    assert version(2.0) == 66
    assert version(3.0, Service(version=70)) == 70
    assert version(4.0, own=71) == 71
    assert version(5.0, Service(disabled=True), own=71) == 71
    assert version(6.0, Service()) is None


def test_hosts_that_are_sent_without_a_word_on_negative_amounts_take_the_place_of_providers_too() -> None:
    m = ServiceMachine()
    do(m, p.AddProvider(name="a"))
    host = Host(host="a", vcpus_total=4, total_usable_ram_mb=1_024, free_ram_mb=-1)
    do(m, with_canonical_uuids(p.AddHosts(hosts=(host,))))
    assert m.state.fleet.column("free_ram_mb").tolist() == [1_024]
    meant = p.AddHosts(hosts=(replace(host, host="b"),), negative_free=True)
    assert with_canonical_uuids(meant) is meant
