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


def test_the_functions_have_a_name_that_stays() -> None:
    from hostler.sim import api
    from hostler.sim.questions import api as questions

    assert set(api.__all__) == set(questions.__all__)
    assert all(getattr(api, name) is getattr(questions, name) for name in api.__all__)
