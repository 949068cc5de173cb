"""Questions about fleets and traces so small that their answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hostler import InvalidValue
from hostler.sim.pack.bounds import parts
from hostler.sim.questions.api import Source, Task, read_fleet, run, size

PLAIN = "arrival_s,lifetime_s,vcpus,memory_gb"


def task(folder: Path, rows: list[str], more: str = "", *, hosts: int = 4, kind: str = "", **options: object) -> Task:
    """A task on hosts of 64 vCPUs and 256 GiB."""
    trace, fleet = folder / "trace.csv", folder / "fleet.toml"
    trace.write_text("\n".join([PLAIN + more, *rows]) + "\n")
    fleet.write_text(f'[[hardware]]\nname = "h"\ncount = {hosts}\nvcpus = 64\nmemory_gb = 256\n{kind}')
    return Task(plan=read_fleet(fleet), source=Source(trace=str(trace)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "capacity", "bins"),
    [
        ([22] * 7, 64, 4),
        ([33] * 5, 64, 5),
        ([17] * 10, 64, 4),
        ([16] * 8, 64, 2),
        ([22, 22, 22, 43, 43], 64, 4),
        ([21, 21, 22], 64, 1),
        ([64, 100], 64, 2),
        ([], 64, 0),
    ],
)
def test_items_that_a_bin_holds_a_few_of_are_counted(sizes: list[int], capacity: int, bins: int) -> None:
    assert parts(np.array(sizes, np.int64), capacity) == bins


def test_size_knows_that_two_of_three_guests_share_a_host(tmp_path: Path) -> None:
    found = size(task(tmp_path, ["0,3600,22,1"] * 7))
    assert (found.lower_bound, found.hosts, found.gap_percent) == (4, 4, 0.0)


@pytest.mark.parametrize("specs", ["hw:numa_nodes=1", "hw:numa_nodes=2|hw:cpu_policy=dedicated"])
def test_a_topology_that_no_empty_host_has_is_an_error_and_no_endless_search(tmp_path: Path, specs: str) -> None:
    impossible = task(tmp_path, [f"0,3600,48,1,{specs}"], ",extra_specs", kind="numa_cells = 2\n")
    for ask in (run, size):
        with pytest.raises(InvalidValue, match=r"hw:numa_nodes=\d.* fits no host"):
            ask(impossible)
    assert size(task(tmp_path, ["0,3600,48,1,hw:numa_nodes=2"], ",extra_specs", kind="numa_cells = 2\n")).hosts == 1


def test_a_search_that_no_number_of_hosts_ends_says_so(tmp_path: Path) -> None:
    """Two guests of one affinity group that no host can hold together."""
    rows = ["0,3600,40,1,g,affinity", "0,3600,40,1,g,affinity"]
    with pytest.raises(InvalidValue, match=r"even with .* h, 1 of 2 guests are not served"):
        size(task(tmp_path, rows, ",group,group_policy"))


@pytest.mark.parametrize(
    ("rows", "more", "hosts"),
    [
        (["0,,1,1,g"] * 3, ",group", 2),
        (["0,,1,1,g,2"] * 5, ",group,most_per_host", 2),
        (["0,,40,1,g,affinity"] * 2, ",group,group_policy", 2),
        (["0,,40,1,g,affinity"] * 2, ",group,group_policy", 5),
    ],
)
def test_what_binds_is_the_server_group_where_a_host_had_room(
    tmp_path: Path, rows: list[str], more: str, hosts: int
) -> None:
    assert run(task(tmp_path, rows, more, hosts=hosts)).outcome.refusals == {"server group": 1}


CELLS = "numa_cells = 2\nhuge_pages = {'1GiB' = 8}\n"
PAGES = "hw:mem_page_size=1GB"


@pytest.mark.parametrize(
    ("kind", "more", "rows", "bound"),
    [
        # Two cells of 32 GiB, 24 of each given: 12 are free on no cell, and 16 on the host.
        (CELLS, ",extra_specs", ["0,,2,24,hw:numa_nodes=1"] * 2 + ["0,,2,12,hw:numa_nodes=1"], "NUMA cells"),
        # Four pages on each cell, two of each given: four are left, but not on one cell.
        (CELLS, ",extra_specs", [f"0,,2,2,{PAGES}"] * 2 + [f"0,,2,4,{PAGES}"], "NUMA cells"),
        (CELLS, ",extra_specs", [f"0,,2,4,{PAGES}"] * 2 + [f"0,,2,1,{PAGES}"], "pages of 1GB"),
        (
            CELLS,
            ",extra_specs",
            ["0,,2,4,hw:mem_page_size=large"] * 2 + ["0,,2,1,hw:mem_page_size=large"],
            "large pages",
        ),
        (
            CELLS,
            ",extra_specs,group",
            [f"0,,2,4,{PAGES},g", f"0,,2,4,{PAGES},", f"0,,2,1,{PAGES},g"],
            "pages of 1GB and server group",
        ),
        ("gpus = 2\n", ",gpus,gpu_milli", ["0,,1,1,1,600"] * 2 + ["0,,1,1,1,700"], "GPU (idle in parts)"),
        ("gpus = 2\n", ",gpus,gpu_milli", ["0,,1,1,1,600"] * 2 + ["0,,1,1,1,1000"], "GPU"),
        ("resources = {CUSTOM_FPGA = 2}\n", ",resources", ["0,,1,1,CUSTOM_FPGA=1"] * 3, "CUSTOM_FPGA"),
        ("traits = ['CUSTOM_X']\n", ",traits", ["0,,16,1,CUSTOM_X", "0,,4,1,CUSTOM_X"], "VCPU with CUSTOM_X"),
        ("zones = ['a', 'b']\n", ",zone", ["0,,16,1,b", "0,,4,1,b"], "VCPU in b"),
    ],
)
def test_what_binds_is_the_least_that_would_have_to_change(
    tmp_path: Path, kind: str, more: str, rows: list[str], bound: str
) -> None:
    """One host of 16 vCPUs and 64 GiB of the kind that the guests need; three of another have room for all but that."""
    trace, fleet = tmp_path / "trace.csv", tmp_path / "fleet.toml"
    trace.write_text("\n".join([PLAIN + more, *rows]) + "\n")
    size = "vcpus = 16\nmemory_gb = 64\n"
    others = '[[hardware]]\nname = "other"\ncount = 3\nzones = ["a"]\n' + size if "VCPU" in bound else ""
    count = 2 if "zones" in kind else 1
    fleet.write_text(f'[[hardware]]\nname = "h"\ncount = {count}\n{size}{kind}{others}')
    asked = Task(plan=read_fleet(fleet), source=Source(trace=str(trace)))
    assert run(asked).outcome.refusals == {bound: 1}


def test_the_functions_have_a_name_that_stays() -> None:
    from hostler.sim import api
    from hostler.sim.questions import api as questions

    assert set(api.__all__) == set(questions.__all__)
    assert all(getattr(api, name) is getattr(questions, name) for name in api.__all__)
