"""Fleets as lists of named hosts: where they stand, what they have, what is used, and errors that name the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler import save_fleet
from hostler.placement.types.errors import HostlerError
from hostler.sim.questions.api import run
from hostler.sim.questions.planning import size
from hostler.sim.questions.tasks import Source, Task, execute, start
from hostler.sim.run.fleet_plan import FleetPlan, read_fleet
from hostler.sim.run.policies import policy_of
from hostler.sim.run.site import Site
from hostler.sim.run.standing_state import with_state

from .values import written

LISTED = """
[[hardware]]
name = "blade"
vcpus = 16
memory_gb = 64
disk_gb = 100
zones = ["a"]
[[host]]
name = "n1"
hardware = "blade"
zone = "a"
rack = "a/r1"
row = "row-1"
cluster = "prod"
used_vcpus = 6
used_memory_gb = 8
[[host]]
name = "n2"
hardware = "blade"
zone = "b"
reserved_memory_gb = 32
traits = ["CUSTOM_FAST"]
resources = {CUSTOM_FPGA = 2}
[[host]]
name = "n3"
vcpus = 8
memory_gb = 32
gpus = 2
gpu_model = "T4"
numa_cells = 2
cpu_allocation_ratio = 2.0
"""
TABLE = """name,zone,rack,vcpus,memory_gb,disk_gb,traits,used_vcpus
n1,a,r1,16,64,100,CUSTOM_A|CUSTOM_B,
n2,a,r2,16,64,100,CUSTOM_A|CUSTOM_B,4
n3,b,r1,32,64,100,,
"""


def fleet(folder: Path, text: str = LISTED, name: str = "fleet.toml") -> FleetPlan:
    return read_fleet(Path(written(folder, text, name)))


def test_named_hosts_stand_where_the_list_says_with_what_it_says(tmp_path: Path) -> None:
    site = Site(fleet(tmp_path), policy_of("nova"), seed=1)
    found = {place.host: (place.zone, place.rack, place.row, place.cluster) for place in site.places}
    assert found == {
        "n1": ("a", "a/r1", "row-1", "prod"),
        "n2": ("b", "b/n2", "", ""),
        "n3": ("zone-1", "zone-1/n3", "", ""),
    }
    inventory = {name: site.fleet.inventory(name) for name in found}
    assert inventory["n1"]["VCPU"][1] == 6
    assert inventory["n1"]["MEMORY_MB"][1] == 8192
    assert inventory["n2"]["MEMORY_MB"][0].reserved == 32 * 1024
    assert inventory["n2"]["CUSTOM_FPGA"][0].total == 2
    assert inventory["n3"]["VCPU"][0].allocation_ratio == 2.0
    assert site.fleet.pci_pools(site.fleet.row("n1")) == ()
    assert len(site.fleet.tree(site.fleet.row("n3"))) == 3
    site.fleet.check()


def test_a_table_of_hosts_is_a_fleet_and_equal_hosts_are_of_one_kind(tmp_path: Path) -> None:
    plan = fleet(tmp_path, TABLE, "hosts.csv")
    assert plan.hosts == 3
    assert [host.hardware for host in plan.named] == ["16 vCPU, 64 GiB", "16 vCPU, 64 GiB", "32 vCPU, 64 GiB"]
    assert plan.zones_of("16 vCPU, 64 GiB") == {"a"}


def test_a_fleet_file_names_a_table_of_hosts(tmp_path: Path) -> None:
    written(tmp_path, TABLE, "hosts.csv")
    plan = fleet(tmp_path, 'hosts_file = "hosts.csv"\n[[failures]]\nrack = "r1"\nat_hours = 1\nhours = 1\n')
    assert plan.hosts == 3
    assert Site(plan, policy_of("nova"), seed=0).hosts_of(plan.failures[0]) == ["n1", "n3"]


def test_guests_find_only_the_room_that_is_not_used(tmp_path: Path) -> None:
    """16 vCPUs of which 6 are used, for guests of 5: two of three are placed."""
    plan = fleet(tmp_path, LISTED.partition('[[host]]\nname = "n2"')[0])
    trace = written(tmp_path, "arrival_s,vcpus,memory_gb\n" + "0,5,1\n" * 3)
    outcome = execute(Task(plan=plan, source=Source(trace=trace)))
    assert (outcome.placed, outcome.refused, outcome.hosts) == (2, 1, 1)


def test_size_counts_the_hosts_that_are_needed_beside_the_named_ones(tmp_path: Path) -> None:
    """10 vCPUs are free on the named host; of four guests of 8, three need two hosts more of 16."""
    plan = fleet(tmp_path, LISTED.partition('[[host]]\nname = "n2"')[0])
    trace = written(tmp_path, "arrival_s,vcpus,memory_gb\n" + "0,8,1\n" * 4)
    found = size(Task(plan=plan, source=Source(trace=trace)))
    assert (found.hosts, found.lower_bound) == (2, 2)
    few = written(tmp_path, "arrival_s,vcpus,memory_gb\n0,8,1\n", "few.csv")
    assert size(Task(plan=plan, source=Source(trace=few))).hosts == 0


def test_a_guest_that_asks_for_numa_cells_finds_the_host_that_has_them(tmp_path: Path) -> None:
    text = '[[host]]\nname = "flat"\nvcpus = 16\nmemory_gb = 64\n[[host]]\nname = "two"\nvcpus = 8\nmemory_gb = 32\n'
    plan = fleet(tmp_path, text + "numa_cells = 2\n")
    topology = Site(plan, policy_of("nova"), seed=0)
    row = topology.fleet.row("two")
    from hostler.placement.fleet.host_view import HostView

    cells = HostView(topology.fleet, row).numa_topology
    assert cells is not None
    assert [(len(cell.cpuset), cell.memory) for cell in cells.cells] == [(4, 16384), (4, 16384)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[host]]\nname = "a"\nmemory_gb = 1\n', "host[0] (a): vcpus is missing"),
        ('[[host]]\nname = "a"\nhardware = "x"\n', "host[0].hardware: 'x'"),
        ('[[host]]\nname = "a"\nvcpus = 1\nmemory_gb = 1\n' * 2, "host a is there twice"),
        ('[[host]]\nname = "a"\nvcpus = 0\nmemory_gb = 1\n', "host[0] (a): Expected `int` >= 1"),
        ('[[host]]\nname = "h-00001"\nvcpus = 1\nmemory_gb = 1\n[[hardware]]\nname = "h"\ncount = 1\nvcpus = 1\n'
         'memory_gb = 1\n', "host h-00001 has the name of one that hardware h counts"),
        ('state = "x"\n', "named on the command line"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_named_host_is_said(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(HostlerError) as caught:
        fleet(tmp_path, text)
    assert words in str(caught.value)


def test_a_column_that_no_host_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostlerError, match="column"):
        fleet(tmp_path, "name,vcpu,memory_gb\na,1,1\n", "hosts.csv")
    with pytest.raises(HostlerError, match=r"hosts.csv, line 2: vcpus"):
        fleet(tmp_path, "name,vcpus,memory_gb\na,much,1\n", "hosts.csv")


def test_a_row_of_racks_fails_together(tmp_path: Path) -> None:
    text = LISTED + '[[failures]]\nrow = "row-1"\nat_hours = 0.5\nhours = 1\n'
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb,zone\n0,7200,5,1,a\n")
    outcome = start(Task(plan=fleet(tmp_path, text), source=Source(trace=trace))).play()
    assert outcome.disruption is not None
    assert outcome.disruption.lost_for


def test_what_is_used_of_a_failed_host_needs_as_much_elsewhere(tmp_path: Path) -> None:
    """Six of eight CPUs are used on the first host, five on the second: neither may fail, and what is used is lost."""
    text = """
[[host]]
name = "n1"
vcpus = 8
memory_gb = 32
used_vcpus = 6
used_memory_gb = 1
[[host]]
name = "n2"
vcpus = 8
memory_gb = 32
[[failures]]
host = "n1"
at_hours = 1
hours = 1
"""
    rows = "arrival_s,lifetime_s,vcpus,memory_gb\n0,14400,4,1\n0,14400,1,1\n"
    task = Task(plan=fleet(tmp_path, text), source=Source(trace=written(tmp_path, rows)), policy="worst-fit")
    ran = run(task)
    assert ran.outcome.peak_guests == 2
    assert ran.outcome.disruption is not None
    told = ran.outcome.disruption
    assert (told.stopped, told.lost_for) == (1, {"VCPU": 1})
    assert ran.headroom is not None
    assert [each.survives for each in ran.headroom.survives if each.kind == "host"] == [0]


CELLED = """
[[host]]
name = "pinned"
vcpus = 16
memory_gb = 64
numa_cells = 2
dedicated_vcpus = 12
threads_per_core = 2
huge_pages = {"2MiB" = 8192, "1GB" = 16}
[[host]]
name = "plain"
vcpus = 16
memory_gb = 64
"""
"""Each cell: 2 shared and 6 dedicated CPUs, 8 pages of 1 GiB, 4,096 of 2 MiB, 16 GiB in small pages."""


@pytest.mark.parametrize(
    ("guests", "refusals"),
    [
        (["6,8,hw:cpu_policy=dedicated"] * 2, {}),
        (["6,8,hw:cpu_policy=dedicated"] * 2 + ["1,1,hw:cpu_policy=dedicated"], {"PCPU": 1}),
        (["7,8,hw:cpu_policy=dedicated"], {"NUMA cells": 1}),
        (["4,8,hw:cpu_policy=dedicated|hw:cpu_thread_policy=require"], {}),
        (["1,8,hw:mem_page_size=1GB"] * 2 + ["1,1,hw:mem_page_size=1GB"], {"pages of 1GB": 1}),
        (["1,8,hw:mem_page_size=2MB"] * 3, {"pages of 2MB": 1}),
        (["1,17,hw:numa_nodes=1"], {"NUMA cells": 1}),
        (["16,60,", "4,1,"], {}),
        (["16,60,", "4,1,", "1,1,"], {"VCPU": 1}),
    ],
)
def test_dedicated_cpus_and_huge_pages_are_given_as_the_fleet_file_says(
    tmp_path: Path, guests: list[str], refusals: dict[str, int]
) -> None:
    rows = [f"{300 * number},{guest}" for number, guest in enumerate(guests)]
    trace = written(tmp_path, "\n".join(["arrival_s,vcpus,memory_gb,extra_specs", *rows]) + "\n")
    outcome = execute(Task(plan=fleet(tmp_path, CELLED), source=Source(trace=trace), refuse_impossible=True))
    assert outcome.refusals == refusals
    assert outcome.placed == len(guests) - sum(refusals.values())


def test_size_counts_dedicated_cpus_by_themselves(tmp_path: Path) -> None:
    """Hosts of two dedicated CPUs: five guests of two need five hosts, whatever is shared."""
    text = '[[hardware]]\nname = "h"\nvcpus = 64\nmemory_gb = 64\ndedicated_vcpus = 2\n'
    rows = "arrival_s,vcpus,memory_gb,extra_specs\n" + "0,2,1,hw:cpu_policy=dedicated\n" * 5
    found = size(Task(plan=fleet(tmp_path, text), source=Source(trace=written(tmp_path, rows))))
    assert (found.hosts, found.lower_bound) == (5, 5)
    assert found.outcome is not None
    assert found.outcome.peak_percent["PCPU"] == 100.0


def test_a_table_of_hosts_and_a_state_tell_dedicated_cpus_and_pages(tmp_path: Path) -> None:
    table = "name,vcpus,memory_gb,numa_cells,dedicated_vcpus,threads_per_core,huge_pages\n"
    listed = fleet(tmp_path, f"{table}a,16,64,2,16,2,2MiB=8192|1GiB=16\nb,8,32,,,,\n", "hosts.csv")
    path = tmp_path / "cloud.hostler"
    save_fleet(Site(listed, policy_of("nova"), seed=1).fleet, path)
    first, second = with_state(None, path).hardware
    assert (first.vcpus, first.dedicated_vcpus, first.numa_cells, first.threads_per_core) == (16, 16, 2, 2)
    assert first.huge_pages == {"2048 KiB": 8192, "1048576 KiB": 16}
    assert (second.vcpus, second.dedicated_vcpus, second.numa_cells, second.huge_pages) == (8, 0, 0, {})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('huge_pages = {"3XB" = 4}', "'3XB' is not the size of a huge page"),
        ('huge_pages = {"2MiB" = 4, "2048KiB" = 5}', "there twice"),
        ('huge_pages = {"1GiB" = 65}', "65 GiB of pages, and 64 GiB of memory"),
        ("dedicated_vcpus = 17", "17 of 16 vCPUs are dedicated"),
        ("numa_cells = 17", "16 CPUs for 17 NUMA cells"),
        ("dedicated_vcpus = 12\nreserved_vcpus = 5", "5 are reserved, and 4 vCPUs are shared"),
    ],
)
def test_cells_that_a_host_cannot_have_are_an_error(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(HostlerError, match="hardware") as caught:
        fleet(tmp_path, f'[[host]]\nname = "p"\nvcpus = 16\nmemory_gb = 64\n{line}\n')
    assert words in str(caught.value)
