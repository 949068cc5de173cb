"""Refusals and explanations for programs: closed codes, amounts, hosts, and whether an empty fleet would do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hostler import (
    Engine,
    Flavor,
    Fleet,
    Host,
    InstanceNumaCell,
    InstanceNumaTopology,
    MemoryPages,
    NumaCell,
    NumaTopology,
    Policy,
    Request,
    RequestSpec,
    Service,
    add_hosts,
)

UUID = "00000000-0000-4000-8000-{:012}"


def engine(*hosts: Host, **options: Any) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, list(hosts))
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": options}))


def host(number: int, **changes: Any) -> Host:
    size: dict[str, Any] = {"vcpus_total": 8, "total_usable_ram_mb": 8_192, "total_usable_disk_gb": 100}
    return Host(host=f"h{number}", **(size | changes))


def asks(vcpus: int = 1, memory_mb: int = 1_024, root_gb: int = 0, **spec: Any) -> Request:
    return Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=vcpus, memory_mb=memory_mb, root_gb=root_gb), **spec))


def test_a_full_fleet_is_told_from_an_impossible_request() -> None:
    fleet = engine(host(1), host(2))
    for _ in range(2):
        assert fleet.place(asks(memory_mb=6_000))
    full = fleet.place(asks(memory_mb=6_000)).refusal
    assert full is not None
    assert (full.code, full.fits_empty, full.stage, full.resource) == ("full", True, "MEMORY_MB", "MEMORY_MB")
    assert (full.asked, full.nearest, full.cut) == (6_000, 8_192 - 6_000, 12_000 - 8_192)
    assert {stage: count for stage, count in full.removed.items() if count} == {"MEMORY_MB": 2}
    impossible = fleet.place(asks(memory_mb=9_000)).refusal
    assert impossible is not None
    assert (impossible.code, impossible.fits_empty) == ("impossible", False)
    assert engine().place(asks()).refusal == engine().explain(asks()).refusal
    assert getattr(engine().place(asks()).refusal, "code", None) == "no_hosts"


def test_the_amount_to_cut_is_just_enough_on_the_host_that_is_named() -> None:
    fleet = engine(host(1, free_ram_mb=3_000), host(2, free_ram_mb=1_000))
    refused = fleet.place(asks(memory_mb=4_000)).refusal
    assert refused is not None
    assert refused.cut is not None
    assert (refused.resource, refused.asked, refused.nearest, refused.host, refused.cut) == (
        ("MEMORY_MB", 4_000, 3_000, "h1", 1_000)
    )
    assert not fleet.what_if().place(asks(memory_mb=4_000 - refused.cut + 1))
    assert fleet.what_if().place(asks(memory_mb=4_000 - refused.cut)).selected.node == "h1"


def test_each_refused_host_has_a_code_with_the_numbers_of_its_words() -> None:
    fleet = engine(host(1), host(2, free_ram_mb=100), host(3, service=Service(disabled=True)))
    told = {each.node: each.code for each in fleet.explain(asks(memory_mb=2_000)).refused}
    assert told == {"h2": "not_enough", "h3": "service_disabled"}
    short = fleet.explain(asks(memory_mb=2_000)).reason("h2")
    assert short is not None
    assert (short.code, short.resource, short.asked, short.limit) == ("not_enough", "MEMORY_MB", 2_000, 100)
    assert short.reason == "free MEMORY_MB 100 MiB < 2000 MiB"
    extra = {"trait:HW_CPU_X86_AVX2": "required"}
    lacking = fleet.explain(
        Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1, extra_specs=extra)))
    ).reason("h1")
    assert lacking is not None
    assert (lacking.code, lacking.names) == ("missing_traits", ("HW_CPU_X86_AVX2",))


def test_the_pivotal_weigher_is_data() -> None:
    fleet = engine(host(1, total_usable_ram_mb=64_000), host(2, vcpus_total=64), cpu_weight_multiplier=1.5)
    told = fleet.explain(asks())
    (pivotal,) = [change for change in told.pivotal if change.weigher == "CPUWeigher"]
    assert (told.top[0].node, pivotal.host, pivotal.text) == ("h2", "h1", "without CPUWeigher host h1 wins")
    assert tuple(change.text for change in told.changes) == told.counterfactuals


CELLS = NumaTopology(
    cells=tuple(
        NumaCell(
            id=i,
            cpuset=frozenset(range(4 * i, 4 * i + 4)),
            memory=4_096,
            mempages=(MemoryPages(size_kb=4, total=1_048_576),),
        )
        for i in range(2)
    )
)


def in_one_cell(memory_mb: int) -> Request:
    cell = InstanceNumaCell(id=0, cpuset=frozenset({0}), memory=memory_mb)
    return asks(memory_mb=memory_mb, numa_topology=InstanceNumaTopology(cells=(cell,)), prepare=False)


def test_assume_empty_answers_for_rules_that_depend_on_what_is_there() -> None:
    rules = ["ComputeFilter", "NUMATopologyFilter"]
    fleet = engine(host(1, numa_topology=CELLS), enabled_filters=rules)
    assert all(fleet.place(in_one_cell(3_000)) for _ in range(2))
    before = fleet.fleet.column("free_ram_mb").tolist()
    told = fleet.explain(in_one_cell(2_000), assume_empty=True)
    assert told.fits_empty
    assert told.refusal is not None
    assert (told.refusal.code, told.refusal.fits_empty) == ("full", True)
    quick = fleet.what_if().place(in_one_cell(2_000)).refusal
    assert quick is not None
    assert (quick.code, quick.stage, quick.fits_empty) == ("refused", "NUMATopologyFilter", None)
    assert fleet.explain(in_one_cell(5_000), assume_empty=True).fits_empty is False
    assert fleet.explain(asks()).fits_empty is None
    assert fleet.explain(asks(), assume_empty=True).fits_empty is True
    assert fleet.fleet.column("free_ram_mb").tolist() == before


@pytest.mark.parametrize("seed", range(6))
def test_fits_empty_is_what_a_fleet_without_guests_answers(seed: int) -> None:
    draw = np.random.default_rng(seed)
    hosts = [
        host(
            i,
            vcpus_total=int(draw.integers(1, 8)),
            total_usable_ram_mb=int(draw.integers(1, 8)) * 1_024,
            service=Service(disabled=bool(draw.random() < 0.3)),
        )
        for i in range(5)
    ]
    options: dict[str, Any] = {"enabled_filters": ["ComputeFilter", "NumInstancesFilter"], "max_instances_per_host": 3}
    used, empty = engine(*hosts, **options), engine(*hosts, **options)
    for _ in range(12):
        used.place(asks(int(draw.integers(1, 4)), int(draw.integers(1, 4_000))))
    for vcpus in (1, 3, 6, 9):
        for memory_mb in (1, 2_000, 5_000, 9_000):
            refused = used.what_if().place(asks(vcpus, memory_mb)).refusal
            if refused is not None:
                fits = bool(empty.what_if().place(asks(vcpus, memory_mb)))
                assert refused.fits_empty is fits
                assert refused.code == ("full" if fits else "impossible")


def test_fits_many_divides_what_shapes_share_fairly() -> None:
    fleet = engine(host(1), host(2, vcpus_total=2))
    small, large = asks(1, 512), asks(4, 4_096)
    before = fleet.fleet.column("free_ram_mb").tolist()
    first, second = fleet.fits_many([small, large])
    assert (first.alone, second.alone) == (fleet.fits(small), fleet.fits(large))
    trial, counts = fleet.what_if(), [0, 0]
    open_to = [True, True]
    while any(open_to):
        for number, request in enumerate((small, large)):
            open_to[number] = open_to[number] and bool(trial.place(request))
            counts[number] += open_to[number]
    assert [first.shared.count, second.shared.count] == counts
    assert second.shared.count <= second.alone.count
    assert sum(first.shared.by_host.values()) == first.shared.count
    assert [each.shared.count for each in fleet.fits_many([small, large], limit=1)] == [1, 1]
    assert fleet.fits_many([]) == ()
    assert fleet.fleet.column("free_ram_mb").tolist() == before
