"""How the times of traces are read, and what of a trace cannot be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.workload import NEVER, Workload

from .values import written

MIDNIGHT = 1_772_323_200
"""2026-03-01, UTC."""


def read(folder: Path, rows: str, header: str = "arrival_s,departure_s,vcpus,memory_gb", **options: str) -> Workload:
    return read_trace(Path(written(folder, f"{header}\n{rows}")), **options)  # type: ignore[arg-type]  # of texts


def times(trace: Workload) -> list[tuple[int, int]]:
    return list(zip(trace.arrival_s.tolist(), trace.departure_s.tolist(), strict=True))


HOURS = [(3600, 7200), (7200, NEVER)]


@pytest.mark.parametrize(
    "rows",
    [
        "2026-03-01T01:00:00Z,2026-03-01 02:00:00+00:00,1,1\n2026-03-01T02:00:00,,1,1\n",
        f"{MIDNIGHT + 3600},{MIDNIGHT + 7200},1,1\n{MIDNIGHT + 7200},,1,1\n",
        f"{MIDNIGHT + 3600}000,{MIDNIGHT + 7200}000,1,1\n{MIDNIGHT + 7200}000,,1,1\n",
        f"{MIDNIGHT + 3600}000000,{MIDNIGHT + 7200}000000,1,1\n{MIDNIGHT + 7200}000000,,1,1\n",
        "46082.0416666667,46082.0833333333,1,1\n46082.0833333333,,1,1\n",
        "01.03.2026 01:00,1.3.2026 02:00:00,1,1\n01.03.2026 02:00,,1,1\n",
    ],
    ids=["iso", "seconds", "milliseconds", "microseconds", "excel", "dotted"],
)
def test_points_in_time_are_known_by_their_looks_and_that_is_said(tmp_path: Path, rows: str) -> None:
    trace = read(tmp_path, rows)
    assert times(trace) == HOURS
    assert trace.epoch_s == MIDNIGHT
    assert "times are taken for" in trace.notes[0]


def test_fractions_of_small_times_are_said_to_count_in_hours_or_days_perhaps(tmp_path: Path) -> None:
    rows = "0.5,1.25,1,1\n0.75,2,1,1\n2.5,,1,1\n"
    assert "0.5 to 2.5 with fractions" in read(tmp_path, rows).notes[0]
    assert times(read(tmp_path, rows, time_unit="hours")) == [(1800, 4500), (2700, 7200), (9000, NEVER)]
    assert not read(tmp_path, "0.5,4000,1,1\n300.25,,1,1\n4000,,1,1\n").notes


@pytest.mark.parametrize("decimals", [5, 6, 7, 9, 12])
def test_days_and_hours_of_few_decimals_mean_whole_seconds(tmp_path: Path, decimals: int) -> None:
    """Excel writes five decimals where a cell has no format: 12:30 is 46082.52083, 0.29 s before."""
    steps = [3, 50, 51, 143, 150, 287]
    days = "".join(f"{46082 + at / 288:.{decimals}f},{46082 + (at + 1) / 288:.{decimals}f},1,1\n" for at in steps)
    trace = read(tmp_path, days)
    assert times(trace) == [(at * 300, (at + 1) * 300) for at in steps]
    lives = "".join(f"{at / 12:.{decimals}f},{1 / 12:.{decimals}f},1,1\n" for at in steps)
    trace = read(tmp_path, lives, "arrival_s,lifetime_s,vcpus,memory_gb", time_unit="hours")
    assert [(start - 900, end - 900) for start, end in times(trace)] == [
        ((at - 3) * 300, (at - 2) * 300) for at in steps
    ]


def test_dates_without_an_offset_are_of_the_time_zone(tmp_path: Path) -> None:
    rows = "2026-03-01T02:00:00,2026-03-01T03:00:00,1,1\n2026-03-01T03:00:00,,1,1\n"
    assert times(read(tmp_path, rows, tz="Europe/Berlin")) == HOURS
    excel = "46082.0833333333,46082.125,1,1\n46082.125,,1,1\n"
    assert times(read(tmp_path, excel, tz="Europe/Berlin")) == HOURS
    with pytest.raises(HostlerError, match="time zone"):
        read(tmp_path, rows, tz="Europe/Nowhere")


def test_days_of_excel_follow_the_time_zone_through_the_year(tmp_path: Path) -> None:
    """As the same times in ISO 8601: one guest before daylight saving time begins, on 29 March, and one after it."""
    iso = "2026-03-28T12:00:00,2026-03-29T12:00:00,1,1\n2026-03-29T06:00:00,,1,1\n"
    excel = "46109.5,46110.5,1,1\n46110.25,,1,1\n"
    wanted = read(tmp_path, iso, tz="Europe/Berlin")
    assert times(wanted) == [(11 * 3600, 34 * 3600), (28 * 3600, NEVER)]
    assert times(read(tmp_path, excel, tz="Europe/Berlin")) == times(wanted)


def test_seconds_of_the_traces_own_stay(tmp_path: Path) -> None:
    trace = read(tmp_path, "3600,7200,1,1\n7200,,1,1\n")
    assert (times(trace), trace.epoch_s, trace.notes) == (HOURS, None, [])


def test_a_unit_that_is_named_counts(tmp_path: Path) -> None:
    rows = "3600000,3600000,1,1\n7200000,,1,1\n"
    header = "arrival_s,lifetime_s,vcpus,memory_gb"
    assert times(read(tmp_path, rows, header, time_unit="ms")) == HOURS
    with pytest.raises(HostlerError, match="time unit"):
        read(tmp_path, rows, header, time_unit="weeks")
    with pytest.raises(InvalidValue, match="20 years"):
        read(tmp_path, "0,,1,1\n2500000000000,,1,1\n")


def test_guests_from_before_the_beginning_stand_at_it(tmp_path: Path) -> None:
    trace = read(tmp_path, "-7200,7200,1,1\n-7200,-600,1,1\n600,,1,1\n")
    assert (trace.standing, trace.start_s, len(trace)) == (1, 0, 2)
    assert times(trace)[0] == (-7200, 7200)


def test_a_guest_is_there_once(tmp_path: Path) -> None:
    header = "id,arrival_s,vcpus,memory_gb"
    assert len(read(tmp_path, "a,0,1,1\nb,0,1,1\n,0,1,1\n,0,1,1\n", header)) == 4
    with pytest.raises(InvalidValue, match=r"line 4: id is 'a', which was there before"):
        read(tmp_path, "a,0,1,1\nb,0,1,1\na,5,1,1\n", header)
    with pytest.raises(InvalidValue, match=r"line 1202: id is '7'"):
        read(tmp_path, "".join(f"{n},0,1,1\n" for n in [*range(1200), 7]), header)
    with pytest.raises(InvalidValue, match="vcpus is 'x'"):
        read(tmp_path, "a,0,x,1\n", header)
