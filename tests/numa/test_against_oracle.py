"""NUMATopologyFilter against the slow, obvious statement of its rules: random hosts, guests, devices and networks, one
at a time and as guests fill a fleet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest

from hostler.placement.decide.engine import Engine
from hostler.placement.filters.numa import NUMATopologyFilter
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.numa.fit import Limits
from hostler.placement.numa.nova_fit import fitter
from hostler.placement.policy.policy import Policy
from hostler.placement.types.host import Host, NumaCell, NumaTopology
from hostler.placement.types.options import Options
from hostler.placement.types.request import InstanceNumaCell, Request
from tests.engine.dump import host_state
from tests.seeds import seeds

from . import oracle
from .random_values import random_guest, random_host, random_request, request

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

ALL_OPTIONS = [
    Options.from_mapping({"numa": {"fit": fit}, "compute": {"packing_host_numa_cells_allocation_strategy": packing}})
    for fit in ("nova", "exact")
    for packing in (False, True)
]


@pytest.mark.parametrize("seed", seeds(4, "numa verdicts"))
def test_the_filter_passes_the_hosts_that_its_rules_name(seed: int) -> None:
    chance, passed = Random(seed), 0
    for _ in range(1_000):
        host, asked, chosen = random_host(chance), random_request(chance), chance.choice(ALL_OPTIONS)
        judge = NUMATopologyFilter(chosen)
        expected = oracle.passes(host, asked, chosen)
        assert (not judge.applies(asked) or judge.host_passes(host, asked)) is expected, (host, asked, chosen)
        assert expected or judge.reason(host, asked)
        passed += expected
    assert 100 < passed < 900


@pytest.mark.parametrize("seed", [*seeds(4, "numa cells"), 2802797013, 2014042357])
def test_guests_go_to_the_cells_that_the_rules_prefer(seed: int) -> None:
    chance, fitting = Random(seed), 0
    for _ in range(1_000):
        host, asked, chosen = random_host(chance), random_request(chance), chance.choice(ALL_OPTIONS)
        wanted, reported = asked.spec.numa_topology, host.numa_topology
        if wanted is None or reported is None:
            continue
        fitted = fitter(chosen)(
            reported,
            wanted,
            limits=Limits(host.cpu_allocation_ratio, host.ram_allocation_ratio),
            pci_requests=asked.spec.pci_requests,
            pci_pools=host.pci_pools,
            packing=chosen.compute.packing_host_numa_cells_allocation_strategy,
            networks=asked.spec.network_metadata,
        )
        ids = None if fitted is None else [part.host_cell for part in fitted.cells]
        assert ids == oracle.chosen(host, asked, chosen), (host, asked, chosen)
        fitting += ids is not None
    assert fitting > 100


@dataclass(frozen=True)
class Left:
    """What is counted of a host cell."""

    cpu_usage: int
    memory_usage: int
    pinned: int
    pages: tuple[int, ...]


def left(cell: NumaCell) -> Left:
    return Left(cell.cpu_usage, cell.memory_usage, len(cell.pinned_cpus), tuple(each.used for each in cell.mempages))


def charged(cell: NumaCell, asked: InstanceNumaCell, emulator: int, found: int | None) -> Left:
    """The cell with the guest's: whole cores are pinned under thread policy isolate, as far as they are free."""
    pins = len(asked.pcpuset) + emulator
    counted = min((pages.size_kb for pages in cell.mempages), default=None) if found is None else found
    pages = tuple(
        each.used + (asked.memory * 1024 // each.size_kb if each.size_kb == counted else 0) for each in cell.mempages
    )
    return Left(
        cell.cpu_usage + len(asked.cpuset), cell.memory_usage + asked.memory, len(cell.pinned_cpus) + pins, pages
    )


@pytest.mark.parametrize("seed", [*seeds(10, "numa fleets"), 1569827670])
def test_guests_fill_a_fleet_as_the_rules_say(seed: int) -> None:
    """The first host that passes takes the guest, whose cells are charged to the host cells of the rules."""
    chance, placed = Random(seed), 0
    policy = Policy.from_mapping(
        {
            "filter_scheduler": {"enabled_filters": ["NUMATopologyFilter"], "weight_classes": []},
            "numa": {"fit": chance.choice(["nova", "exact"])},
        }
    )
    reported = [random_host(chance, f"h{number}") for number in range(6)]
    fleet = Fleet()
    add_hosts(fleet, reported)
    engine = Engine(fleet, policy)
    for _ in range(20):
        asked = request(random_guest(chance))
        before = {host.host: replace(host, numa_topology=cells_in(fleet, host.host)) for host in reported}
        passing = [name for name, host in before.items() if oracle.passes(host, asked, policy.options)]
        decision = engine.place(asked)
        taken = decision.host if decision.placed else None
        assert taken == (passing[0] if passing else None)
        after = {host.host: cells_in(fleet, host.host) for host in reported}
        for name, host in before.items():
            if name != taken:
                assert after[name] == host.numa_topology
        if taken is not None:
            check_charges(before[taken], after[taken], asked, policy.options)
            placed += 1
    assert placed


def cells_in(fleet: Fleet, name: str) -> NumaTopology:
    """A host's cells as filters see them now."""
    topology = host_state(fleet, fleet.row(name))["numa_topology"]
    assert topology is None or isinstance(topology, NumaTopology)
    return topology or NumaTopology(cells=())


def check_charges(host: Host, after: NumaTopology, asked: Request, options: Options) -> None:
    ids, wanted = oracle.chosen(host, asked, options), asked.spec.numa_topology
    assert ids is not None
    assert wanted is not None
    on = dict(zip(ids, wanted.cells, strict=True))
    for old, new in zip(oracle.cells_of(host), after.cells, strict=True):
        if old.id not in on:
            assert new == old
            continue
        guest = on[old.id]
        emulator = int(wanted.emulator_threads_policy == "isolate" and guest is wanted.cells[0])
        # Nova's fit keeps the page size that was found on the host cell tried last, as long as this one has it, too.
        sizes = [pages.size_kb for pages in old.mempages] if options.numa.fit == "nova" else []
        possible = [oracle.page_found(old, guest, guest.pagesize), *sizes] if guest.pagesize else [None]
        allowed = [size for size in possible if size is None or oracle.page_found(old, guest, size) == size]
        expected, *others = (charged(old, guest, emulator, size) for size in allowed)
        expected = next((each for each in others if each.pages == left(new).pages), expected)
        assert old.pinned_cpus <= new.pinned_cpus <= old.pinned_cpus | old.pcpuset
        if guest.cpu_thread_policy == "isolate" and guest.pcpuset:
            assert len(new.pinned_cpus) >= expected.pinned
            expected = replace(expected, pinned=len(new.pinned_cpus))
        assert left(new) == expected
