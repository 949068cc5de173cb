"""The demo: what it prints, that it loses no guest, that its made-up day is Azure's, and how it takes a bad trace."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, RequestSpec
from hostler.sim.run.cloud import made_up, one_kind
from hostler.sim.run.day import made_up_day, mean_lifetime_s
from hostler.sim.run.replay import Replay
from hostler.sim.run.sizing import Search, lower_bound
from hostler.sim.trace import azure2017
from hostler.sim.trace.azure import BINS, read_trace
from hostler.sim.trace.workload import ALONE, NEVER, STEP_S, Workload

from ..patience import HANG_SECONDS

AZURE = Path(__file__).parents[3] / "shared" / "data" / "azure2017" / "azure_v1_dev.csv.gz"
needs_azure = pytest.mark.skipif(not AZURE.exists(), reason=f"the figures' source is not here: {AZURE}")

HEADER = ("vm", "arrival_s", "batch", "vcpu", "mem_gb", "cens", "dur_bin")
GUEST = (0, 600, 0, 2, 3.5, "U", 1)
LIFETIMES = ((0, 0, 0), (1, 300, 300), (2, 3900, 7200))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from hostler.core.cli import main; raise SystemExit(main())", "demo", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def summary(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@cache
def small_day() -> dict[str, Any]:
    return summary("--hosts", "200", "--hours", "2")


def write_trace(folder: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = HEADER) -> Path:
    path = folder / "trace.csv.gz"
    for name, lines in ((path, (header, *rows)), (folder / BINS, (("dur_bin", "min_s", "max_s"), *LIFETIMES))):
        with gzip.open(name, "wt", newline="") as file:
            csv.writer(file).writerows(lines)
    return path


def guests(*columns: tuple[int, int, int], standing: int = 0, end_s: int = 3000) -> Workload:
    """A workload of (arrival, departure, vCPUs) each."""
    arrivals, departures, vcpus = (np.array(column, np.int64) for column in zip(*columns, strict=True))
    flavors = [Flavor(name=f"f{count}", vcpus=count, memory_mb=1024 * count) for count in range(65)]
    return Workload(
        name="test",
        specs=tuple(RequestSpec(flavor=flavor) for flavor in flavors[1:]),
        arrival_s=arrivals,
        departure_s=departures,
        spec=vcpus - 1,
        batch=np.arange(len(columns)),
        group=np.full(len(columns), ALONE),
        standing=standing,
        start_s=0,
        end_s=end_s,
    )


HOST = Host(host="h", vcpus_total=8, cpu_allocation_ratio=1.0, total_usable_ram_mb=65536)


# the command


def test_a_small_day_is_summed_up_for_programs() -> None:
    day = small_day()
    assert (day["hosts"], day["zones"], day["end_s"]) == (200, ["zone-a", "zone-b", "zone-c"], 7200)
    assert day["requests"] == day["placed"] + day["refused"] > day["standing"] > 0
    assert day["refused"] == sum(each["guests"] for each in day["refusals"])
    assert sum(machines["hosts"] for machines in day["machines"]) == 200
    assert len(day["hours"]) == 2
    assert not day["interrupted"]


def test_no_guest_and_no_resource_is_lost() -> None:
    day = small_day()
    assert day["alive"] == day["placed"] - day["departed"]
    assert day["used"] == day["held"]
    at_the_end = {each["resource_class"]: each["end"] for each in day["usage"] if each["zone"] == "all"}
    assert at_the_end == day["used"]


def test_the_same_seed_gives_the_same_summary_but_for_the_timing() -> None:
    again = summary("--hosts", "200", "--hours", "2")
    assert {**again, "timing": 0} == {**small_day(), "timing": 0}


def test_another_seed_gives_another_day() -> None:
    other = summary("--hosts", "200", "--hours", "2", "--seed", "5")
    assert other["hours"] != small_day()["hours"]


def test_the_fleet_starts_half_full() -> None:
    vcpus = next(each for each in small_day()["usage"] if each["zone"] == "all" and each["resource_class"] == "VCPU")
    assert 0.4 < vcpus["start"] / vcpus["total"] < 0.6


def test_a_decision_is_explained_with_its_score_and_what_was_removed() -> None:
    decision = small_day()["decision"]
    chosen = decision["chosen"]
    assert decision["considered"] == 200
    assert sum(decision["removed"].values()) < 200
    assert chosen["weight"] == pytest.approx(sum(part["points"] for part in chosen["parts"]))
    assert chosen["second_weight"] < chosen["weight"]
    assert decision["counterfactuals"]


def test_tables_and_a_line_every_tenth_where_there_is_no_terminal() -> None:
    done = run("--hosts", "60", "--hours", "1")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "1 h on 60 hosts: 100 %"
    assert len(done.stderr.splitlines()) == 10
    for words in ("60 hosts in 3 zones", "decisions per second", "In use", "zone-c", "A decision explained"):
        assert words in done.stdout


def test_ctrl_c_prints_what_there_is_and_exits_with_130() -> None:
    arguments = command("--hosts", "300", "--hours", "240", "--json")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=HANG_SECONDS)
    partial = json.loads(output)
    assert process.returncode == 130
    assert partial["interrupted"]
    assert partial["reached_s"] < partial["end_s"]
    assert partial["used"] == partial["held"]


@pytest.mark.parametrize("option", ["--hosts", "--hours"])
def test_a_size_below_one_is_a_wrong_command_line(option: str) -> None:
    assert run(option, "0").returncode == 2


# the event loop


def test_guests_leave_before_others_arrive_at_the_same_time() -> None:
    engine = one_kind(1, HOST).engine(1)
    steps = list(Replay(engine, guests((0, 600, 8), (300, 900, 8), (600, 900, 8))).steps())
    placed = {step.at_s: step.decisions.placed for step in steps if step.requests}
    assert placed == {0: 1, 300: 0, 600: 1}
    assert {step.at_s: step.departed.tolist() for step in steps if len(step.departed)} == {600: [0], 900: [2]}


def test_a_guest_counts_as_building_for_one_step() -> None:
    engine = one_kind(1, HOST).engine(1)
    replay = Replay(engine, guests((0, 600, 1), (0, NEVER, 1), (300, NEVER, 1), end_s=1200))
    builds = [int(engine.fleet.column("num_io_ops")[0]) for _ in replay.steps()]
    assert builds == [2, 1, 0, 0]


def test_standing_guests_arrive_before_the_first_step() -> None:
    steps = list(Replay(one_kind(1, HOST).engine(1), guests((-STEP_S, NEVER, 1), (0, NEVER, 1), standing=1)).steps())
    assert [(step.at_s, len(step.requests)) for step in steps[:3]] == [(-STEP_S, 1), (0, 1), (300, 0)]


def test_members_of_a_group_keep_apart_and_of_another_do_not_mind() -> None:
    day = guests(*[(0, NEVER, 1)] * 5)
    day.group[:] = [0, 0, 0, 1, ALONE]
    engine = one_kind(2, HOST).engine(1)
    rows = next(Replay(engine, day).steps()).decisions.rows.tolist()
    assert sorted(rows[:3]) == [-1, 0, 1]
    assert min(rows[3:]) >= 0


# the made-up cloud and day


def test_the_made_up_cloud_has_what_it_is_said_to_have() -> None:
    cloud = made_up(10_000, seed=1)
    used = {index: cloud.templates[index] for index in np.unique(cloud.template_of).tolist()}
    assert np.bincount(cloud.zone_of).tolist() == [4000, 3500, 2500]
    assert len({host.vcpus_total for host in used.values()}) == 3
    assert len({host.hypervisor_version for host in used.values()}) == 2
    assert {aggregate.name for host in used.values() for aggregate in host.aggregates} > {"general", "memory", "zone-a"}
    out_of_service = np.count_nonzero(cloud.engine(1).fleet.column("service_up") == 0)
    assert 50 < out_of_service < 150


def test_arrivals_keep_pace_with_departures() -> None:
    """The standing guests are those that the arrivals would have left behind: as many come as go."""
    cloud = made_up(2_000, seed=3)
    day = made_up_day(cloud, seed=3)
    came = len(day) - day.standing
    went = np.count_nonzero(day.departure_s < day.end_s)
    assert came == pytest.approx(day.standing / mean_lifetime_s() * 86_400, rel=0.1)
    assert went == pytest.approx(came, rel=0.1)


def test_a_made_up_day_is_shaped_like_azure_s() -> None:
    day = made_up_day(made_up(2_000, seed=4), seed=4)
    arrived = slice(day.standing, None)
    sizes = np.unique(day.batch[arrived], return_counts=True)[1]
    lifetimes = (day.departure_s - day.arrival_s)[arrived]
    by_hour = np.bincount(np.unique(np.stack([day.batch, day.arrival_s // 3600])[:, arrived], axis=1)[1])
    assert np.mean(sizes == 1) == pytest.approx(azure2017.BATCH_SIZES[0][1] / 53_109, abs=0.02)
    assert sizes.mean() == pytest.approx(4.88, rel=0.15)
    assert sizes.max() <= azure2017.BATCH_SIZES[-1][0]
    assert np.mean(lifetimes <= 3_600) == pytest.approx(sum(azure2017.LIFETIMES[:12]), abs=0.03)
    assert np.mean(lifetimes > 86_400) == pytest.approx(1 - sum(azure2017.LIFETIMES[:35]), abs=0.02)
    assert np.corrcoef(by_hour, azure2017.BATCHES_BY_HOUR)[0, 1] > 0.9
    assert np.mean(day.amounts(lambda flavor: flavor.vcpus)[: day.standing]) == pytest.approx(2.153, rel=0.03)
    assert np.all(day.departure_s - day.arrival_s >= STEP_S)


# the figures, against their source


@cache
def azure_rows() -> list[dict[str, str]]:
    with gzip.open(AZURE, "rt") as file:
        return list(csv.DictReader(file))


@needs_azure
def test_the_flavors_are_the_trace_s() -> None:
    found = Counter((int(row["vcpu"]), round(float(row["mem_gb"]) * 1024)) for row in azure_rows())
    assert {(vcpus, memory_mb): count for vcpus, memory_mb, count in azure2017.FLAVORS} == dict(found)


@needs_azure
def test_the_batch_sizes_are_the_trace_s() -> None:
    sizes = Counter(Counter(row["batch"] for row in azure_rows()).values())
    least = 1
    for most, count in azure2017.BATCH_SIZES:
        assert count == sum(sizes[size] for size in range(least, most + 1))
        least = most + 1
    assert max(sizes) < least


@needs_azure
def test_the_batches_by_hour_are_the_trace_s() -> None:
    first = {row["batch"]: int(row["arrival_s"]) for row in reversed(azure_rows())}
    batches = Counter(at_s // 3600 % 24 for at_s in first.values())
    seen_s = Counter[int]()
    for at_s in range(1_800_000, 2_100_000, 300):
        seen_s[at_s // 3600 % 24] += 300
    found = [batches[hour] * 3600 / seen_s[hour] for hour in range(24)]
    assert found == pytest.approx(azure2017.BATCHES_BY_HOUR, abs=0.06)


@needs_azure
def test_the_lifetimes_are_the_trace_s() -> None:
    bins = Counter(max(int(row["dur_bin"]), 1) for row in azure_rows())
    running = Counter(max(int(row["dur_bin"]), 1) for row in azure_rows() if row["cens"] == "C")
    surviving, at_risk, found = 1.0, bins.total(), []
    for number in range(1, len(azure2017.LIFETIMES) + 1):
        ended = bins[number] - running[number]
        exposed = at_risk - (running[number] / 2 if number > 12 else 0)
        found.append(surviving * ended / exposed)
        surviving -= found[-1]
        at_risk -= bins[number]
    assert found == pytest.approx(azure2017.LIFETIMES, abs=0.0005)
    assert at_risk == 0


@needs_azure
def test_the_lifetime_bins_are_the_trace_s() -> None:
    with gzip.open(AZURE.with_name(BINS), "rt") as file:
        ends = [int(row["max_s"]) for row in csv.DictReader(file)]
    assert ends[1 : 1 + len(azure2017.LIFETIME_UP_TO_S)] == list(azure2017.LIFETIME_UP_TO_S)


@needs_azure
def test_guests_of_a_batch_live_alike_as_often_as_the_trace_s() -> None:
    batches: dict[str, Counter[str]] = {}
    for row in azure_rows():
        batches.setdefault(row["batch"], Counter())[row["dur_bin"]] += 1
    agree = [
        sum(count * (count - 1) for count in bins.values()) / (bins.total() * (bins.total() - 1))
        for bins in batches.values()
        if bins.total() > 1
    ]
    assert float(np.mean(agree)) == pytest.approx(azure2017.SAME_LIFETIME, abs=0.01)


@needs_azure
def test_the_trace_s_peak_is_the_one_that_is_known() -> None:
    trace = read_trace(AZURE)
    assert len(trace) == 259_159
    assert trace.peak(lambda flavor: flavor.vcpus) == 48_041
    assert trace.peak(lambda flavor: flavor.memory_mb) == 117_664.25 * 1024
    assert trace.peak(lambda flavor: 1) == 21_236
    assert (
        lower_bound(trace, Host(host="h", vcpus_total=64, cpu_allocation_ratio=1.0, total_usable_ram_mb=262_144)) == 751
    )


# traces


def test_a_trace_is_read_as_it_stands(tmp_path: Path) -> None:
    rows = ((0, 600, 7, 1, 1.75, "U", 0), (1, 600, 7, 8, 56, "C", 1), (2, 900, 8, 1, 1.75, "U", 2))
    trace = read_trace(write_trace(tmp_path, rows))
    assert (trace.start_s, trace.end_s, trace.standing, trace.name) == (600, 1200, 0, "trace.csv.gz")
    assert trace.arrival_s.tolist() == [600, 600, 900]
    assert trace.departure_s.tolist() == [900, NEVER, 8100]
    assert trace.batch.tolist() == [7, 7, 8]
    assert [trace.specs[spec].flavor.memory_mb for spec in trace.spec.tolist()] == [1792, 57344, 1792]
    assert trace.amounts(lambda flavor: flavor.vcpus).tolist() == [1, 8, 1]
    assert len(trace.specs) == 2


def test_a_trace_is_cut_after_the_hours_asked_for(tmp_path: Path) -> None:
    trace = read_trace(write_trace(tmp_path, (GUEST, (1, 3900, 1, 1, 1, "U", 1), (2, 4200, 1, 1, 1, "U", 1))))
    assert (len(trace.first(1)), trace.first(1).end_s) == (2, 4200)
    assert (len(trace.first(9)), trace.first(9).end_s) == (3, 4500)


def test_the_smallest_fleet_for_a_trace_is_found(tmp_path: Path) -> None:
    """Nine guests of 14 vCPU: four to a host of 64, though 126 vCPU would fit on two."""
    path = write_trace(tmp_path, [(number, 600, 0, 14, 24.5, "C", 1) for number in range(9)])
    done = summary("--trace", str(path))
    assert done["sizing"]["lower_bound"] == 2
    assert done["sizing"]["chosen"] == done["hosts"] == 3
    assert [(each["hosts"], each["refused_at_s"]) for each in done["sizing"]["tries"]] == [
        (2, 600),
        (4, None),
        (3, None),
    ]
    assert (done["placed"], done["refused"], done["alive"]) == (9, 0, 9)
    assert done["refusal"]["hosts"] == 2
    assert done["refusal"]["removed"] == {"VCPU": 2}
    assert done["used"] == done["held"] == {"VCPU": 126, "MEMORY_MB": 9 * 25_088, "DISK_GB": 0}


def test_a_trace_is_played_on_as_many_hosts_as_asked_for(tmp_path: Path) -> None:
    path = write_trace(tmp_path, [(number, 600, 0, 14, 24.5, "C", 1) for number in range(9)])
    done = summary("--trace", str(path), "--hosts", "1")
    assert (done["hosts"], done["placed"], done["refused"], done["sizing"]) == (1, 4, 5, None)


BAD_TRACES: Mapping[str, tuple[Sequence[Sequence[object]], Sequence[str], str]] = {
    "no guests": ((), HEADER, "no guests"),
    "columns missing": ((GUEST,), ("vm", "arrival", *HEADER[2:]), "no column arrival_s (the columns are vm, arrival, "),
    "a word for a number": ((GUEST, (1, "soon", *GUEST[2:])), HEADER, "line 3: arrival_s is 'soon'"),
    "fields missing": ((GUEST, GUEST[:4]), HEADER, "line 3: mem_gb is missing, there are 4 fields"),
    "an unknown bin": (((*GUEST[:6], 99),), HEADER, "line 2: dur_bin is '99'"),
    "neither U nor C": (((*GUEST[:5], "X", 1),), HEADER, "line 2: cens is 'X'"),
    "arrivals that fall": ((GUEST, (1, 300, *GUEST[2:])), HEADER, "line 3: arrival_s is 300"),
    "an arrival between steps": (((0, 601, *GUEST[2:]),), HEADER, "line 2: arrival_s is 601"),
    "a guest without vCPUs": (((*GUEST[:3], 0, *GUEST[4:]),), HEADER, "line 2: vcpu is 0"),
    "no number of memory": (((*GUEST[:4], "nan", "U", 1),), HEADER, "line 2: mem_gb is nan"),
    "endless memory": (((*GUEST[:4], "inf", "U", 1),), HEADER, "line 2: mem_gb is inf"),
    "a number out of range": (((0, 10**12, *GUEST[2:]),), HEADER, "line 2: arrival_s is '1000000000000'"),
}


@pytest.mark.parametrize("kind", BAD_TRACES)
def test_a_bad_trace_is_refused_with_file_and_line(kind: str, tmp_path: Path) -> None:
    rows, header, message = BAD_TRACES[kind]
    with pytest.raises(InvalidValue) as caught:
        read_trace(write_trace(tmp_path, rows, header))
    assert str(caught.value).startswith(str(tmp_path / "trace.csv.gz"))
    assert message in str(caught.value)


def test_a_trace_without_its_bins_is_refused(tmp_path: Path) -> None:
    path = write_trace(tmp_path, [GUEST])
    path.with_name(BINS).unlink()
    with pytest.raises(InvalidValue, match=f"{BINS}: no such file"):
        read_trace(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", gzip.compress(b"x" * 999, mtime=0)[:20], gzip.compress(b"\xff\xfe,\n", mtime=0)]
)
def test_a_file_that_is_no_trace_is_refused(content: bytes, tmp_path: Path) -> None:
    path = write_trace(tmp_path, [GUEST])
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=r"trace\.csv\.gz: "):
        read_trace(path)


def test_the_command_says_in_one_line_what_is_wrong_with_a_trace(tmp_path: Path) -> None:
    done = run("--trace", str(tmp_path / "none.csv"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"hostler: {tmp_path / 'none.csv'}: no such file\n"


def test_a_guest_that_no_host_could_hold_is_refused_before_the_search(tmp_path: Path) -> None:
    done = run("--trace", str(write_trace(tmp_path, [(0, 600, 0, 65, 10, "U", 1)])))
    assert done.returncode == 1
    assert done.stderr == "hostler: trace.csv.gz: a guest of 65 vCPUs fits no host of 64\n"


# sizing


@pytest.mark.parametrize("smallest", [5, 6, 7, 8, 11, 100, 137])
def test_the_search_ends_at_the_smallest_size_that_holds(smallest: int) -> None:
    search, tried = Search(5), []
    while (size := search.candidate) is not None:
        tried.append(size)
        search.note(size, holds=size >= smallest)
    assert search.enough == smallest
    assert len(tried) == len(set(tried)) <= 18


def test_the_lower_bound_is_what_the_peak_needs() -> None:
    day = guests((0, 300, 4), (0, 600, 4), (300, 900, 4), (300, 900, 5))
    assert day.peak(lambda flavor: flavor.vcpus) == 13
    assert lower_bound(day, HOST) == 2
