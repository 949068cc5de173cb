"""A host's report replaces what is known of it; guests stay, and each of them counts once, whatever is late or lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hostler import (
    Aggregate,
    Destination,
    DuplicateName,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostReport,
    InUse,
    InvalidValue,
    Inventory,
    PciPool,
    Policy,
    Request,
    RequestSpec,
    RunningInstance,
    Service,
    add_hosts,
    load_fleet,
    report_hosts,
    save_fleet,
)

from .dump import dump
from .values import POOLS, topology

MEMORY = 65_536


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def host(name: str, **fields: Any) -> Host:
    sizes = {"vcpus_total": 16, "total_usable_ram_mb": MEMORY, "total_usable_disk_gb": 500}
    return Host(**{"host": name, **sizes, **fields})


def engine(*hosts: Host, weighers: tuple[str, ...] = ("RAMWeigher",)) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, hosts or [host("a"), host("b")])
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": {"weight_classes": list(weighers)}}))


def place(engine: Engine, number: int, *, on: str | None = None, memory_mb: int = 8192, **fields: Any) -> str | None:
    flavor = Flavor(name="m", vcpus=2, memory_mb=memory_mb, root_gb=fields.pop("root_gb", 10))
    destination = None if on is None else Destination(host=on)
    spec = RequestSpec(flavor=flavor, requested_destination=destination, **fields)
    decision = engine.place(Request(spec=spec, instance_uuids=(uuid(number),)))
    return decision.host if decision.placed else None


def figure(engine: Engine, name: str, column: str = "free_ram_mb") -> float:
    return float(engine.fleet.column(column)[engine.fleet.row(name)])


def test_a_claim_that_a_report_does_not_include_stays_charged() -> None:
    e = engine()
    for number in range(1, 6):
        place(e, number, on="a")
    report_hosts(e.fleet, [HostReport(host=host("a", free_ram_mb=MEMORY), at=10.0)])
    assert figure(e, "a") == MEMORY - 5 * 8192
    assert place(e, 9) == "b"
    assert len(e.fleet.drift()) == 0


def test_a_claim_that_a_report_includes_counts_once() -> None:
    e = engine()
    place(e, 1, on="a")
    place(e, 2, on="a")
    seen = host("a", free_ram_mb=MEMORY - 8192, vcpus_used=2, free_disk_mb=490 * 1024, instances={uuid(1): {}})
    report_hosts(e.fleet, [HostReport(host=seen, at=10.0)])
    assert figure(e, "a") == MEMORY - 2 * 8192
    assert figure(e, "a", "num_io_ops") == 1, "the guest that is being built"
    assert e.fleet.inventory("a")["VCPU"][1] == 4
    e.release(uuid(1))
    assert figure(e, "a") == MEMORY - 8192
    e.fleet.check()


def test_a_report_without_figures_derives_them_from_its_guests() -> None:
    e = engine()
    place(e, 1, on="a")
    report_hosts(e.fleet, [HostReport(host=host("a", instances={uuid(1): {}}), at=10.0)])
    assert [figure(e, "a", name) for name in ("free_ram_mb", "vcpus_used", "num_instances")] == [MEMORY - 8192, 2, 1]
    assert len(e.fleet.drift()) == 0


def test_an_older_report_is_left_aside() -> None:
    e = engine()
    newer = HostReport(host=host("a", free_ram_mb=1000), at=20.0)
    report_hosts(e.fleet, [newer])
    answer = report_hosts(e.fleet, [replace(newer, host=host("a", free_ram_mb=5000), at=19.0)])
    assert answer.stale == ("a",)
    assert figure(e, "a") == 1000


def test_every_fact_of_a_host_with_guests_follows_its_report() -> None:
    e = engine(host("a", numa_topology=topology(), pci_pools=POOLS), host("b"))
    place(e, 1, on="a")
    zone = Aggregate(uuid=uuid(900), name="z", metadata={"availability_zone": "z2"})
    facts: dict[str, Any] = {
        "hypervisor_version": 9_000_000,
        "cpu_info": "{}",
        "stats": {"x": "1"},
        "metrics": {"m": 2.5},
        "pci_pools": (PciPool(count=7, tags={"vendor_id": "1"}),),
        "numa_topology": topology(1),
        "host_ip": "10.0.0.9",
        "cell_uuid": uuid(901),
        "aggregates": (zone,),
        "supported_instances": (("x86_64", "kvm", "hvm"),),
        "cpu_allocation_ratio": 2.0,
        "failed_builds": 3,
    }
    report_hosts(e.fleet, [HostReport(host=host("a", instances={uuid(1): {}}, **facts), at=10.0)])
    view = next(v for v in [_view(e, "a")] if v)
    assert {name: getattr(view, name) for name in facts} == facts
    assert e.rank(
        Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1), availability_zone="z2"))
    ).rows.tolist() == [0]
    e.fleet.check()


def _view(engine: Engine, name: str) -> Any:
    from hostler.placement.fleet.host_view import HostView

    return HostView(engine.fleet, engine.fleet.row(name))


def test_totals_below_what_guests_take_are_drift_and_no_error() -> None:
    e = engine()
    for number in range(1, 4):
        place(e, number, on="a")
    guests: dict[str, Any] = {uuid(number): {} for number in range(1, 4)}
    answer = report_hosts(e.fleet, [HostReport(host=host("a", total_usable_ram_mb=16_384, instances=guests), at=10.0)])
    assert answer.drift == ("a",)
    assert [e.fleet.name(row) for row in e.fleet.drift()] == ["a"]
    assert place(e, 9) == "b"


def test_traits_and_service_stay_where_a_report_does_not_give_them() -> None:
    e = engine(host("a", traits=frozenset({"CUSTOM_A"})))
    e.fleet.set_service("a", disabled=True, disabled_reason="repair")
    report_hosts(e.fleet, [HostReport(host=host("a"), at=10.0)])
    assert (_view(e, "a").service.disabled, _view(e, "a").traits) == (True, {"CUSTOM_A"})
    report_hosts(e.fleet, [HostReport(host=host("a"), at=11.0, service=Service())])
    assert not _view(e, "a").service.disabled


def test_a_provider_becomes_a_host_and_its_consumers_count() -> None:
    fleet = Fleet()
    fleet.add_provider("a", uuid=uuid(700))
    fleet.set_inventory("a", {"VCPU": Inventory(total=16), "MEMORY_MB": Inventory(total=MEMORY)})
    fleet.claim(uuid(1), fleet.row("a"), fleet._shape({0: 4, 1: 8192}, 0, 0, 0))
    answer = report_hosts(fleet, [HostReport(host=host("a", uuid=uuid(700), instances={uuid(1): {}}), at=10.0)])
    assert answer.added == 1
    e = Engine(fleet)
    assert (figure(e, "a"), figure(e, "a", "vcpus_used")) == (MEMORY - 8192, 4)
    assert fleet.inventory("a")["VCPU"][1] == 4
    fleet.check()


def test_a_node_that_its_provider_contradicts_is_refused() -> None:
    fleet = Fleet()
    fleet.add_provider("a", uuid=uuid(700))
    with pytest.raises(DuplicateName, match="host a: the provider of its name has the uuid"):
        report_hosts(fleet, [HostReport(host=host("a", uuid=uuid(701)), at=10.0)])


def test_a_node_may_change_its_service_host() -> None:
    e = engine(host("s1", nodename="n"), host("s2", nodename="m"))
    place(e, 1, on="s1")
    report_hosts(e.fleet, [HostReport(host=host("s2", nodename="n", instances={uuid(1): {}}), at=10.0)])
    assert len(e.fleet._rows_of_service_host("s2")) == 2
    assert e.fleet._rows_of_service_host("s1") == []
    e.fleet.check()


def test_an_instance_may_stand_on_two_hosts() -> None:
    e = engine()
    report_hosts(e.fleet, [HostReport(host=host(name, instances={uuid(1): {"p": "1"}}), at=10.0) for name in "ab"])
    assert [uuid(1) in e.fleet.instances(e.fleet.row(name)) for name in "ab"] == [True, True]
    with pytest.raises(InUse):
        e.fleet.remove_provider("b")
    report_hosts(e.fleet, [HostReport(host=host("a"), at=20.0)])
    assert [uuid(1) in e.fleet.instances(e.fleet.row(name)) for name in "ab"] == [False, True]
    e.fleet.check()


@pytest.mark.parametrize("also", [False, True])
def test_an_instance_that_leaves_two_hosts_at_once_is_gone(*, also: bool) -> None:
    e, mine = engine(host("a"), host("b"), host("c")), {uuid(2): {"p": "1"}}
    names = ["a", "b", "c"] if also else ["a", "b"]
    report_hosts(e.fleet, [HostReport(host=host(name, instances=mine), at=10.0) for name in names])
    report_hosts(e.fleet, [HostReport(host=host(name), at=20.0) for name in ("a", "b")])
    held = [list(e.fleet.instances(e.fleet.row(name))) for name in ("a", "b", "c")]
    assert held == [[], [], list(mine) if also else []]
    e.fleet.remove_provider("a")
    e.fleet.remove_provider("b")
    e.fleet.check()


def test_an_instance_that_leaves_one_of_three_hosts_is_of_the_same_one_after_a_snapshot(tmp_path: Path) -> None:
    e, mine = engine(*(host(name) for name in "abc")), {uuid(1): {"p": "1"}}
    for at, name in enumerate("acb"):
        report_hosts(e.fleet, [HostReport(host=host(name, instances=mine), at=10.0 + at)])
    save_fleet(e.fleet, tmp_path / "fleet")
    for fleet in (e.fleet, load_fleet(tmp_path / "fleet")):
        report_hosts(fleet, [HostReport(host=host("a"), at=20.0)])
        assert fleet.consumer(uuid(1)).provider == "b"


def test_hosts_come_with_guests_that_take_what_they_take() -> None:
    guest = RunningInstance(flavor=Flavor(name="f", vcpus=4, memory_mb=8192, root_gb=20), project_id="p", user_id="u")
    bfv = replace(guest, is_bfv=True)
    e = engine(host("a", instances={uuid(1): guest, uuid(2): bfv}), host("b"))
    assert [figure(e, "a", name) for name in ("free_ram_mb", "vcpus_used", "free_disk_mb", "num_instances")] == [
        MEMORY - 16_384,
        8,
        480 * 1024,
        2,
    ]
    assert e.fleet.consumer(uuid(1)).resources == {"VCPU": 4, "MEMORY_MB": 8192, "DISK_GB": 20}
    assert len(e.fleet.drift()) == 0
    e.release(uuid(1))
    assert figure(e, "a") == MEMORY - 8192
    e.fleet.check()


def test_guests_of_unknown_size_count_among_the_instances_of_their_host() -> None:
    guest = RunningInstance(flavor=Flavor(name="f", vcpus=4, memory_mb=8192))
    e = engine(host("a", instances={uuid(1): guest, uuid(2): {}}), host("b"))
    assert figure(e, "a", "num_instances") == 2
    report_hosts(e.fleet, [HostReport(host=host("b", instances={uuid(3): {}, uuid(4): {}}), at=1.0)])
    assert figure(e, "b", "num_instances") == 2


def test_reported_figures_include_guests_that_come_with_a_size() -> None:
    guest = RunningInstance(flavor=Flavor(name="f", vcpus=4, memory_mb=8192, root_gb=0))
    e = engine(host("a", instances={uuid(1): guest}, free_ram_mb=MEMORY - 10_000, vcpus_used=5))
    assert figure(e, "a") == MEMORY - 10_000
    assert e.fleet.inventory("a")["MEMORY_MB"][1] == 10_000


@pytest.mark.parametrize("free", [-1, -4096])
def test_free_memory_may_be_negative(free: int) -> None:
    e = engine(host("a", free_ram_mb=free))
    assert figure(e, "a") == free


def test_volumes_take_no_local_disk_and_swap_does() -> None:
    e = engine()
    place(e, 1, on="a", root_gb=450, is_bfv=True)
    assert figure(e, "a", "free_disk_mb") == 500 * 1024
    flavor = Flavor(name="s", vcpus=1, memory_mb=1, root_gb=1, ephemeral_gb=2, swap=3 * 1024)
    e.place(Request(spec=RequestSpec(flavor=flavor, requested_destination=Destination(host="b"))))
    assert figure(e, "b", "free_disk_mb") == 494 * 1024
    assert len(e.fleet.drift()) == 0


def test_a_claim_that_no_report_ever_has_is_released_after_the_timeout() -> None:
    e = engine()
    place(e, 1, on="a")
    for at, expected in ((10.0, ()), (609.0, ()), (610.0, (uuid(1),))):
        answer = report_hosts(e.fleet, [HostReport(host=host("a"), at=at)])
        assert answer.expired == expected
    assert figure(e, "a") == MEMORY


def test_a_guest_that_its_host_has_lost_is_drift() -> None:
    e = engine()
    place(e, 1, on="a")
    for at, here in ((10.0, True), (20.0, False), (700.0, False)):
        instances: dict[str, Any] = {uuid(1): {}} if here else {}
        report_hosts(e.fleet, [HostReport(host=host("a", instances=instances), at=at)])
    assert e.fleet.consumer(uuid(1)).provider == "a", "its allocation is left to its owner to delete"
    assert figure(e, "a") == MEMORY
    assert [e.fleet.name(row) for row in e.fleet.drift()] == ["a"]
    e.release(uuid(1))
    assert figure(e, "a") == MEMORY
    assert len(e.fleet.drift()) == 0


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (lambda: HostReport(host=host("a"), at=float("nan")), "host a: at must be"),
        (lambda: HostReport(host=host("a"), at=0.0), "host a: at must be a time after 1970"),
        (lambda: HostReport(host=host("a"), at=1.0, includes=frozenset({"x"})), "host a: includes must be uuids"),
        (lambda: HostReport(host=host("a", instances={uuid(1): {"flavor": 3}}), at=1.0), "host a"),
        (lambda: HostReport(host=host("a"), at=1.0, inventories={"VCPU": {"total": -1}}), "host a"),
        (lambda: HostReport(host=host("a", numa_topology="x"), at=1.0), "host a"),
        (lambda: "a", "HostReport values"),
    ],
)
def test_bad_reports_change_nothing(report: Callable[[], Any], words: str) -> None:
    e = engine()
    before = dump(e.fleet)
    with pytest.raises(InvalidValue, match=words):
        report_hosts(e.fleet, [HostReport(host=host("b", free_ram_mb=5), at=1.0), report()])
    assert dump(e.fleet) == before


def test_metrics_of_the_past_are_forgotten() -> None:
    e = engine()
    for at in range(1, 3000):
        report_hosts(e.fleet, [HostReport(host=host("a", metrics={"m": float(at)}), at=float(at))])
    assert len(e.fleet._metrics) < 1100
    assert _view(e, "a").metrics == {"m": 2999.0}
    e.fleet.check()


def test_a_thousand_builds_of_which_a_tenth_fail_leave_no_drift() -> None:
    hosts = [f"h{number}" for number in range(40)]
    e = engine(*map(host, hosts))
    here: dict[str, dict[str, Any]] = {name: {} for name in hosts}
    for number in range(1, 1001):
        chosen = place(e, number, memory_mb=512, root_gb=1)
        assert chosen is not None
        if number % 10:
            here[chosen][uuid(number)] = {}
        elif number % 20:
            e.release(uuid(number))
        if number % 50 == 0:
            report_hosts(
                e.fleet, [HostReport(host=host(name, instances=dict(here[name])), at=1e6 + number) for name in hosts]
            )
    for later in (1001, 1700):
        report_hosts(e.fleet, [HostReport(host=host(name, instances=here[name]), at=1e6 + later) for name in hosts])
    assert len(e.fleet.drift()) == 0
    for name in hosts:
        assert figure(e, name) == MEMORY - 512 * len(here[name])
        assert e.fleet.inventory(name)["MEMORY_MB"][1] == 512 * len(here[name])


# any order of claims, builds, losses and reports, against a slow model of Nova's resource tracker


@dataclass
class Tracker:
    """What one compute node has: instances that were built there, by uuid."""

    memory: dict[str, int] = field(default_factory=dict)

    def report(self, name: str, at: float) -> HostReport:
        free = MEMORY - sum(self.memory.values())
        used = 2 * len(self.memory)
        known = host(name, free_ram_mb=free, vcpus_used=used, num_instances=len(self.memory), free_disk_mb=500 * 1024)
        return HostReport(host=replace(known, instances={uuid: {} for uuid in self.memory}), at=at)


class Living(RuleBasedStateMachine):
    """Reports come late, twice, out of order or never."""

    @initialize()
    def start(self) -> None:
        self.engine = engine(*map(host, "abc"))
        self.trackers = {name: Tracker() for name in "abc"}
        self.time, self.number = 1000.0, 0
        self.claims: dict[str, tuple[str, int]] = {}
        self.known: dict[str, HostReport] = {}
        self.given_back: dict[str, int] = dict.fromkeys("abc", 0)
        self.charged: dict[str, set[str]] = {name: set() for name in "abc"}
        self.under_way: list[HostReport] = []

    @rule(memory=st.sampled_from([512, 1024, 4096]))
    def claim(self, memory: int) -> None:
        self.number += 1
        chosen = place(self.engine, self.number, memory_mb=memory, root_gb=0)
        if chosen is not None:
            self.claims[uuid(self.number)] = (chosen, memory)

    @rule(pick=st.integers(0, 99))
    def build(self, pick: int) -> None:
        if self.claims:
            one = sorted(self.claims)[pick % len(self.claims)]
            name, memory = self.claims[one]
            self.trackers[name].memory[one] = memory

    @rule(pick=st.integers(0, 99), told=st.booleans())
    def delete(self, pick: int, told: bool) -> None:
        """The guest goes, on its host and here; or here first."""
        if self.claims:
            one = sorted(self.claims)[pick % len(self.claims)]
            name, memory = self.claims.pop(one)
            if told:
                self.trackers[name].memory.pop(one, None)
            self.engine.release(one)
            if one in self.charged[name]:
                self.given_back[name] += memory

    @rule(name=st.sampled_from("abc"), seconds=st.sampled_from([0.0, 1.0, 100.0]))
    def compute_report(self, name: str, seconds: float) -> None:
        self.time += seconds
        self.under_way.append(self.trackers[name].report(name, self.time))

    @rule(pick=st.integers(0, 99), again=st.booleans())
    def deliver(self, pick: int, again: bool) -> None:
        if not self.under_way:
            return
        report = self.under_way[pick % len(self.under_way)]
        if not again:
            self.under_way.remove(report)
        name = report.host.host
        answer = report_hosts(self.engine.fleet, [report], claim_timeout=1e9)
        stale = name in self.known and self.known[name].at > report.at
        assert answer.stale == ((name,) if stale else ())
        if not stale:
            self.known[name], self.given_back[name] = report, 0
            self.charged[name] = {one for one in report.host.instances if one in self.claims}

    @invariant()
    def each_guest_counts_once(self) -> None:
        for name in "abc":
            report = self.known.get(name)
            included = report.host.instances if report is not None else {}
            free = report.host.free_ram_mb if report is not None else MEMORY
            on_top = sum(memory for one, (at, memory) in self.claims.items() if at == name and one not in included)
            assert figure(self.engine, name) == free - on_top + self.given_back[name]

    def teardown(self) -> None:
        """All is quiet: builds end, those that failed are released, and each host reports."""
        for one in [one for one, (name, _) in self.claims.items() if one not in self.trackers[name].memory]:
            self.engine.release(one)
            del self.claims[one]
        for name, tracker in self.trackers.items():
            for one in [one for one in tracker.memory if one not in self.claims]:
                del tracker.memory[one]
            report_hosts(self.engine.fleet, [tracker.report(name, self.time + 1)])
            taken = sum(tracker.memory.values())
            assert figure(self.engine, name) == MEMORY - taken
            assert self.engine.fleet.inventory(name)["MEMORY_MB"][1] == taken
        assert len(self.engine.fleet.drift()) == 0
        self.engine.fleet.check()


@pytest.mark.property
@pytest.mark.kernel_twin
def test_no_order_of_claims_builds_and_reports_counts_a_guest_twice() -> None:
    machine = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Living, settings=machine)


def test_what_reports_have_said_is_in_the_file(tmp_path: Any) -> None:
    e = engine()
    place(e, 1, on="a")
    place(e, 2, on="b")
    both = {uuid(2): {"p": "1"}}
    report_hosts(e.fleet, [HostReport(host=host("a", instances=both), at=10.0)])
    save_fleet(e.fleet, tmp_path / "fleet")
    loaded = load_fleet(tmp_path / "fleet")
    assert dump(loaded) == dump(e.fleet)
    loaded.check()
