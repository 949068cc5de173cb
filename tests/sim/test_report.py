"""Reports: one file that needs no network, pictures, tables and JSON, the same for the same run."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core.cli import main
from hostler.placement.types.errors import InvalidValue
from hostler.sim.questions.tasks import execute
from hostler.sim.report.colours import Palette
from hostler.sim.report.curves import Chart, Curve, band
from hostler.sim.report.page import table
from hostler.sim.report.report import Report, write
from hostler.sim.report.terminal import sparkline
from hostler.sim.run.fleet_plan import FleetPlan, Hardware, Outage
from hostler.sim.run.run import Outcome

from .values import plan, task, written

LIBRARIES = ("bokeh", "matplotlib", "pyarrow")


def report(folder: Path) -> Report:
    outcome = execute(task(written(folder), hosts=1))
    return Report(
        title="<b>", command="hostler simulate run", inputs={"trace": "a&b"}, plan=plan(1), outcomes=[outcome]
    )


def charts_of(page: str) -> str:
    """The charts of a page, as the script unpacks them."""
    found = re.search('CHARTS = "([^"]+)"', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1])).decode()


@pytest.mark.parametrize("ending", [".html", ".json", ".csv", ".svg"])
def test_equal_runs_write_equal_files(tmp_path: Path, ending: str) -> None:
    for name in LIBRARIES:
        pytest.importorskip(name)
    paths = [tmp_path / f"{number}{ending}" for number in range(2)]
    for path in paths:
        write(report(tmp_path), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_page_holds_everything_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    path = tmp_path / "r.html"
    write(report(tmp_path), path)
    page = path.read_text()
    assert "<script src" not in page
    assert "<link" not in page
    assert "&lt;b&gt;" in page
    assert "a&amp;b" in page
    assert page.count('<div id="chart-') >= 2
    assert len(page) < 1_500_000
    assert "Why requests were refused" in page


def test_tables_hold_every_sample(tmp_path: Path) -> None:
    made = report(tmp_path)
    write(made, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(made.outcomes[0].samples)
    assert float(lines[0]["all_VCPU_percent"]) == made.outcomes[0].samples[0].used_percent["all"]["VCPU"]
    write(made, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["outcomes"][0]["requests"] == 5
    parquet = pytest.importorskip("pyarrow.parquet")
    write(made, tmp_path / "r.parquet")
    assert parquet.read_table(tmp_path / "r.parquet").num_rows == len(lines)


def test_pictures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(report(tmp_path), tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", [["size"], ["forecast", "--days", "2", "--seeds", "2"], ["compare"]])
def test_every_question_has_a_report(tmp_path: Path, capsys: Any, command: list[str]) -> None:
    pytest.importorskip("bokeh")
    path = tmp_path / "r.html"
    shape = ["--hosts", "3", "--vcpus", "4", "--memory-gb", "8", "--report", str(path)]
    assert main(["simulate", *command, "--trace", written(tmp_path), *shape]) == 0
    assert path.stat().st_size < 1_500_000
    assert f"report: {path}" in capsys.readouterr().err


def test_other_endings_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="ends with"):
        write(report(tmp_path), tmp_path / "r.doc")
    with pytest.raises(InvalidValue, match="cannot be written"):
        write(report(tmp_path), tmp_path / "none" / "r.json")


@pytest.mark.parametrize(
    ("command", "title"),
    [
        (["run"], "nova on 3 hosts: 0.00 % refused, 50 % of the vCPUs given at the peak"),
        (["size"], "2 hosts are needed"),
        (["forecast", "--days", "1", "--seeds", "1"], "Capacity runs out on day 1"),
        (["compare", "--policies", "nova,best-fit"], "nova and best-fit on 3 hosts refuse least: 0.00 %"),
    ],
)
def test_the_title_is_the_finding(tmp_path: Path, command: list[str], title: str) -> None:
    pytest.importorskip("bokeh")
    path = tmp_path / "r.html"
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n0,600,3,2\n300,600,3,2\n")
    shape = ["--hosts", "3", "--vcpus", "4", "--memory-gb", "8", "--report", str(path)]
    assert main(["simulate", *command, "--trace", trace, *shape]) == 0
    assert f"<h1>{title}" in path.read_text()


def test_sparklines_rise() -> None:
    assert sparkline([0.0, 50.0, 100.0], 72, most=100.0) == "▁▅█"
    assert sparkline([], 72) == ""
    assert len(sparkline([1.0] * 1000, 72)) <= 72


def test_a_forecast_draws_its_band_and_is_no_interrupted_one(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    lines = "".join(f"{300 * n},2400,2,2\n" for n in range(60))
    trace, path = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + lines), tmp_path / "r.html"
    shape = ["--hosts", "6", "--vcpus", "4", "--memory-gb", "8", "--days", "30", "--growth", "60", "--seeds", "3"]
    assert main(["simulate", "forecast", "--trace", trace, *shape, "--target", "5", "--report", str(path)]) == 0
    page = path.read_text()
    assert "<h1>Capacity runs out on day" in page
    assert "interrupted" not in page[page.index("<h1>") :]
    charts = charts_of(page)
    assert "10 to 90 % of seeds" in charts
    assert "runs out" in charts
    assert "capacity" in charts
    assert "100 %" in charts


def test_a_band_follows_the_time_of_runs_that_were_sampled_at_other_hours(tmp_path: Path) -> None:
    """A run of two hours with a sample every quarter of an hour beside one of ten hours with a sample every hour: at an
    hour each counts with what it gave then, and the one that has ended with the most that it gave."""
    (first, *_) = execute(task(written(tmp_path), hosts=1)).samples

    def run(hours: list[float], given: list[float]) -> Outcome:
        samples = [
            msgspec.structs.replace(first, hours=at, used_percent={"all": {"VCPU": value}})
            for at, value in zip(hours, given, strict=True)
        ]
        return msgspec.structs.replace(long, samples=samples)

    long = execute(task(written(tmp_path), hosts=1))
    short = run([n / 4 for n in range(9)], [10, 20, 30, 40, 50, 60, 70, 80, 5])
    whole = run([float(n) for n in range(11)], [1.0] * 11)
    assert len(short.samples) < len(whole.samples)
    found = band([whole, short, short], "VCPU")
    assert found.hours == [float(n) for n in range(11)]
    assert found.middle == [10.0, 50.0, 5.0, *[80.0] * 8]
    dense = run([n / 10 for n in range(21)], [10.0 + n for n in range(21)])
    assert len(dense.samples) > len(whole.samples)
    assert band([whole, dense], "VCPU").hours == found.hours, "the longest run, not that with the most samples"


def test_an_outage_is_drawn_with_the_refusals_that_it_caused(tmp_path: Path) -> None:
    """One of two hosts is out for an hour, in which two of three guests find no room."""
    rows = "".join(f"{at},600,4,8\n" for at in (0, 3600, 3600, 3600, 10_800))
    kind = Hardware(name="small", count=2, vcpus=4, memory_gb=8, price_per_hour=1.5)
    outage = Outage(host="small-00001", at_hours=0.9, hours=1)
    made = FleetPlan(hardware=(kind,), failures=(outage,), currency="EUR")
    outcome = execute(task(written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + rows), plan=made))
    (told,) = outcome.outages
    assert (told.what, told.refused) == ("failure of host small-00001", 2)
    pytest.importorskip("bokeh")
    path = tmp_path / "r.html"
    write(Report(title="t", command="c", inputs={}, plan=made, outcomes=[outcome]), path)
    page = path.read_text()
    assert "failure of host small-00001: 2 refused meanwhile" in page
    assert f"{outcome.cost:,.2f} EUR" in page
    assert "BoxAnnotation" in charts_of(page)


def test_a_policy_has_one_colour_wherever_it_appears() -> None:
    curves = [Curve(name, [0.0], [1.0], name) for name in ("a", "b", "a")]
    palette = Palette([Chart("t", "", curves)])
    (first, _), (other, _), (again, dash) = palette.styles(["a", "b", "a"])
    assert (first == again, first == other, dash) == (True, False, "dashed")
    assert palette.styles(["b"]) == [(other, "solid")]


def test_a_policy_has_the_same_colour_in_every_report() -> None:
    """Whichever others are compared with it, and in which order."""
    reports = (["nova", "best-fit", "worst-fit"], ["best-fit", "nova"], ["own.toml", "worst-fit", "nova"])
    found = [
        dict(zip(ways, Palette([Chart("t", "", [Curve(w, [0.0], [1.0], w) for w in ways])]).styles(ways), strict=True))
        for ways in reports
    ]
    assert len({each["nova"] for each in found}) == 1
    assert found[0]["best-fit"] == found[1]["best-fit"]
    assert found[0]["worst-fit"] == found[2]["worst-fit"]
    assert len(set(found[2].values())) == 3


def test_cells_of_wide_tables_name_their_columns_for_narrow_screens() -> None:
    page = table(("a", "b", "c", "d", "e"), [("1", "2", "3", "4", "<5>")])
    assert page.startswith('<table class="wide">')
    assert '<td data-name="e">&lt;5&gt;</td>' in page
    assert "wide" not in table(("a", "b"), [("1", "2")])


def test_size_shows_the_price_of_the_last_percent(tmp_path: Path, capsys: Any) -> None:
    """Ten guests that fill a host each: each host less refuses one more."""
    pytest.importorskip("bokeh")
    trace, path = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + "0,600,4,8\n" * 10), tmp_path / "r.json"
    shape = ["--vcpus", "4", "--memory-gb", "8", "--report", str(path), str(tmp_path / "r.html")]
    assert main(["simulate", "size", "--trace", trace, *shape]) == 0
    curve = json.loads(path.read_text())["size"]["curve"]
    assert [(each["hosts"], each["unserved_percent"]) for each in curve] == [
        (n, 10.0 * (10 - n)) for n in (7, 8, 9, 10)
    ]
    assert "against hosts" in (tmp_path / "r.html").read_text()


def test_a_page_shows_the_hosts_that_are_bought_as_the_fleet(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("bokeh")
    pytest.importorskip("scipy")
    catalogue = tmp_path / "catalogue.csv"
    catalogue.write_text("name,vcpus,memory_gb,price_per_hour\nmid,4,8,1000\n")
    path = tmp_path / "r.html"
    asked = ["--trace", written(tmp_path), "--catalogue", str(catalogue), "--objective", "cost", "--report", str(path)]
    assert main(["simulate", "size", *asked]) == 0
    page = path.read_text()
    bought = re.search(r"<b>([\d,]+)</b><span>mid to buy</span>", page)
    assert bought is not None
    assert f'<td data-name="hosts">{bought[1]} to buy</td>' in page
    assert re.search(r"<b>[\d,]+</b><span>total cost over 5 years</span>", page)


def test_requests_refused_while_outages_overlap_are_said_to_count_for_each(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    first = Outage(rack="zone-1/small-r1", at_hours=0, hours=2)
    for second, overlap in ((Outage(rack="zone-1/small-r1", at_hours=1, hours=2), True), (None, False)):
        failures = (first,) if second is None else (first, second)
        fleet = msgspec.structs.replace(plan(1), failures=failures)
        made = report(tmp_path)
        made.plan, made.outcomes = fleet, [execute(task(written(tmp_path), plan=fleet))]
        write(made, tmp_path / "r.html")
        assert ("counted for each of them" in (tmp_path / "r.html").read_text()) == overlap


def test_columns_that_say_nothing_are_left_out() -> None:
    told = table(("host", "GPUs", "vCPUs"), [("a", "", "4"), ("b", "", "8")])
    assert "GPUs" not in told
    assert told.count("<td") == 4
    assert table(("host", "GPUs"), []).count("<th>") == 2


def test_a_report_of_a_size_shows_the_fleet_that_was_found(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    path = tmp_path / "r.html"
    trace = written(tmp_path, "arrival_s,lifetime_s,vcpus,memory_gb\n" + "0,3600,33,1\n" * 3)
    assert main(["simulate", "size", "--trace", str(trace), "--report", str(path)]) == 0
    assert '<td data-name="hardware">host</td><td data-name="hosts">3</td>' in path.read_text()
