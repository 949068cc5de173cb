"""Fleet files and traces: what they mean, and that whatever is wrong with them is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.placement.persist.file import load, save
from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.placement.types.request import Flavor, Request, RequestSpec
from hostler.sim.run.fleet_plan import FleetPlan, Outage, read_fleet
from hostler.sim.run.policies import policy_of
from hostler.sim.run.run import Run
from hostler.sim.run.site import Site, check_zones
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.workload import ALONE, NEVER

from .values import plan, written

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"

FLEET = """
name = "two kinds"
burst_price_per_vcpu_hour = 0.05
[[hardware]]
name = "general"
count = 5
vcpus = 8
memory_gb = 32
zones = ["a", "b"]
racks = 2
cpu_allocation_ratio = 2.0
[[hardware]]
name = "gpu"
count = 1
vcpus = 8
memory_gb = 32
gpus = 2
gpu_model = "T4"
[[growth]]
hardware = "general"
add = 2
at_hours = 5
[[maintenance]]
zone = "a"
at_hours = 1
hours = 2
notice_hours = 0.25
"""


def fleet(folder: Path, text: str = FLEET) -> FleetPlan:
    path = folder / "fleet.toml"
    path.write_text(text)
    return read_fleet(path)


def test_hosts_stand_in_zones_and_racks_with_their_gpus(tmp_path: Path) -> None:
    site = Site(fleet(tmp_path), policy_of("nova"), seed=1)
    assert [place.zone for place in site.places] == ["a", "b", "a", "b", "a", "zone-1"]
    assert {place.rack for place in site.places[:5]} == {"a/general-r1", "b/general-r1", "a/general-r2", "b/general-r2"}
    assert len(site.fleet) == 8
    assert site.fleet.inventory("general-00001")["VCPU"][0].allocation_ratio == 2.0
    site.fleet.check()


def test_racks_are_dealt_to_cells_and_known_to_filters(tmp_path: Path) -> None:
    cells = FLEET.replace("racks = 2", 'racks = 2\ncells = ["c1", "c2"]')
    site = Site(fleet(tmp_path, cells), policy_of("nova"), seed=1)
    assert [place.cell for place in site.places] == ["c1", "c1", "c2", "c2", "c1", ""]
    classes = [site.fleet._host_class(site.fleet.row(place.host)) for place in site.places]
    assert len({each.cell_uuid for each in classes}) == 3
    metadata = [site.fleet.aggregates[number].metadata for number in classes[2].aggregates]
    assert metadata == [{"availability_zone": "a"}, {"rack": "a/general-r2"}]


def test_growth_and_maintenance_happen_in_their_hour(tmp_path: Path) -> None:
    site = Site(fleet(tmp_path), policy_of("nova"), seed=1)

    def out_of_service() -> int:
        return int((site.fleet.column("service_up")[site.fleet.is_host] == 0).sum())

    found = []
    for hour in (0, 0.75, 1, 2.9, 3, 5):
        site.happen(hour)
        found.append((out_of_service(), len(site.places)))
    assert found == [(0, 6), (3, 6), (3, 6), (3, 6), (0, 6), (0, 8)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("count = 5", "count = -5", "hardware[0].count"),
        ("count = 5", "cuont = 5", "cuont"),
        ('name = "gpu"', 'name = "general"', "twice"),
        ('hardware = "general"\nadd', 'hardware = "genral"\nadd', "genral"),
        ('zone = "a"\nat', "at", "maintenance[0]: names one of"),
        ("vcpus = 8", "vcpus = ", "Invalid value"),
        ('zone = "a"\nat', 'rack = "a/general-r3"\nat', "maintenance[0].rack"),
        ('zone = "a"\nat', 'cell = "c"\nat', "maintenance[0].cell"),
        ("hours = 2\n", "hours = -2\n", "maintenance[0].hours"),
        ("racks = 2", 'traits = ["fast"]', "hardware[0].traits"),
        ("racks = 2", 'cells = ["c", "c"]', "hardware[0].cells"),
        ("gpus = 2\n", "", "hardware[1].gpu_model"),
        ('zones = ["a", "b"]', 'zones = ["a", "a"]', "each once"),
        ("racks = 2", 'traits = ["HW_CPU_X86_AVX3"]', "hardware[0].traits: 'HW_CPU_X86_AVX3' (closest: HW_CPU_X86_AVX"),
        ("racks = 2", "price_per_hour = inf", "hardware[0].price_per_hour"),
        ("at_hours = 5", "at_hours = nan", "growth[0].at_hours"),
        ("add = 2", "add = 10000000", "at most 10,000,000 hosts"),
    ],
)
def test_fleet_files_that_make_no_sense_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(HostlerError) as error:
        fleet(tmp_path, FLEET.replace(old, new))
    assert words in str(error.value)
    assert "fleet.toml" in str(error.value)


def test_fleet_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.toml", "none.toml: No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InvalidValue, match=words):
            read_fleet(path)


def test_outages_of_what_is_not_there_are_refused() -> None:
    with pytest.raises(HostlerError, match=r"zone in failures\[0\].zone"):
        Site(plan(failures=(Outage(zone="x", at_hours=0, hours=1),)), policy_of("nova"), seed=0)
    with pytest.raises(HostlerError, match="No such file"):
        read_fleet(Path("/nowhere.toml"))


def test_times_fall_on_steps_and_what_is_missing_lasts(tmp_path: Path) -> None:
    workload = read_trace(Path(written(tmp_path)))
    assert workload.arrival_s.tolist() == [0, 0, 300, 600, 3900]
    assert workload.departure_s.tolist() == [3600, 7200, 900, NEVER, 4500]
    assert workload.batch.tolist() == [0, 0, 1, 2, 3]
    assert set(workload.group.tolist()) == {ALONE}
    assert len(workload.specs) == 4


def test_columns_may_have_other_names_zones_groups_and_gpus(tmp_path: Path) -> None:
    text = "when,cores,mem,gpus,gpu_milli,az,apart\n600,2,1024,1,500,a,g\n0,1,512,,,,\n"
    path = Path(written(tmp_path, text))
    names = {"arrival_s": "when", "vcpus": "cores", "memory_mb": "mem", "zone": "az", "group": "apart"}
    workload = read_trace(path, names)
    first, second = (workload.specs[index] for index in workload.spec.tolist())
    assert (first.flavor.vcpus, second.flavor.memory_mb, second.availability_zone) == (1, 1024, "a")
    assert second.flavor.extra_specs == {"resources_GPU0:CUSTOM_GPU_MILLI": "500"}
    assert workload.group.tolist() == [ALONE, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no arrival_s"),
        ("arrival_s,vcpus,memory_gb\n", "no guests"),
        ("arrival_s,vcpus\n0,1\n", "no memory_mb"),
        ("arrival_s,vcpus,memory_gb\nx,1,1\n", "line 2: arrival_s is 'x'"),
        ("arrival_s,vcpus,memory_gb\n,1,1\n", "line 2: arrival_s is missing"),
        ("arrival_s,vcpus,memory_gb\n0,0,1\n", "line 2: vcpus is '0'"),
        ("arrival_s,vcpus,memory_gb\n0,1\n", "2 fields"),
    ],
)
def test_traces_that_make_no_sense_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidValue) as error:
        read_trace(Path(written(tmp_path, text)))
    assert words in str(error.value)


def test_unknown_columns_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HostlerError, match="trace column"):
        read_trace(Path(written(tmp_path)), {"cores": "vcpus"})
    with pytest.raises(InvalidValue, match="no such file"):
        read_trace(tmp_path / "none.csv")


@pytest.mark.skipif(not DATA.exists(), reason="the OpenB lists (shared/data) are not here")
def test_openb_pods_are_a_trace_too() -> None:
    workload = read_trace(DATA / "openb" / "openb_pod_list_default.csv.gz")
    assert len(workload) == 8152
    assert any(spec.flavor.extra_specs for spec in workload.specs)


def test_guests_of_a_zone_without_hosts_are_given_none_elsewhere(tmp_path: Path) -> None:
    zones = FLEET.replace('zones = ["a", "b"]', 'zones = ["a", "b", "c", "d", "e", "f", "g"]')
    trace = written(tmp_path, "arrival_s,vcpus,memory_gb,zone\n0,1,1,f\n0,1,1,a\n21600,1,1,f\n21600,1,1,g\n")
    run = Run(fleet(tmp_path, zones), read_trace(Path(trace)), policy_of("nova"))
    outcome = run.play()
    assert outcome.refusals == {"no host in f": 1}
    assert outcome.placed == 3  # the sixth and seventh host come after five hours


def test_a_zone_without_hosts_is_known_after_a_resumption(tmp_path: Path) -> None:
    site = Site(
        fleet(tmp_path, FLEET.replace('zones = ["a", "b"]', 'zones = ["a", "b", "c", "d", "e", "f"]')),
        policy_of("nova"),
        seed=1,
    )
    save(site.fleet, tmp_path / "kept")
    site.replace_fleet(load(tmp_path / "kept"), 0)
    asked = RequestSpec(flavor=Flavor(name="m", vcpus=1, memory_mb=1024), availability_zone="f")
    assert not site.engine.place(Request(spec=asked)).placed


def test_zones_that_are_nowhere_are_named() -> None:
    flavor = Flavor(name="m", vcpus=1, memory_mb=1024)
    check_zones(plan(), [RequestSpec(flavor=flavor), RequestSpec(flavor=flavor, availability_zone="zone-1")])
    with pytest.raises(HostlerError, match=r"'zone-2' .closest: zone-1"):
        check_zones(plan(), [RequestSpec(flavor=flavor, availability_zone="zone-2")])
