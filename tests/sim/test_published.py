"""Published traces and formats are known by what is in the file: tiny ones whose guests are known."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from hostler.placement.types.errors import InvalidValue
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.workload import NEVER, Workload

from .values import TRACE, written

EXPORTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "exports"
DAY = 86_400


def guests(trace: Workload) -> list[tuple[int, int | None, int, int]]:
    """Arrival, departure, vCPUs and MiB of each guest."""
    columns = zip(trace.arrival_s.tolist(), trace.departure_s.tolist(), trace.spec.tolist(), strict=True)
    return [
        (
            come,
            None if go == NEVER else go,
            trace.specs[spec].flavor.vcpus,
            trace.specs[spec].flavor.memory_mb,
        )
        for come, go, spec in columns
    ]


def test_azures_vmtable_has_no_header_and_open_buckets(tmp_path: Path) -> None:
    rows = "a,s1,d1,0,6000,99,10,40,Unknown,2,4\nb,s1,d1,3000,9000,99,5,9,Unknown,>24,>64\n"
    trace = read_trace(Path(written(tmp_path, rows)))
    assert guests(trace) == [(-300, 6000, 2, 4096), (3000, None, 30, 70 * 1024)]
    assert trace.standing == 1
    usage = [trace.terms[spec].usage for spec in trace.spec.tolist()]
    assert [(each.mean, each.p95) for each in usage if each is not None] == [(0.1, 0.4), (0.05, 0.09)]
    assert any(">24" in note for note in trace.notes)


def test_azures_packing_trace_counts_days_and_fractions(tmp_path: Path) -> None:
    path = tmp_path / "packing.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE vm (vmId, tenantId, vmTypeId, priority, starttime REAL, endtime REAL)")
        database.execute("CREATE TABLE vmType (id, vmTypeId, machineId, core REAL, memory REAL)")
        database.executemany("INSERT INTO vm VALUES (?,?,?,?,?,?)", [(0, 7, 1, 0, -1.5, 2.0), (1, 7, 1, 1, 1.0, None)])
        database.execute("INSERT INTO vmType VALUES (0, 1, 3, 0.0625, 0.03125)")
    database.close()
    trace = read_trace(path, machine="32x128")
    assert guests(trace) == [(-129_600, 2 * DAY, 2, 4096), (DAY, None, 2, 4096)]
    assert [trace.terms[spec].preemptible for spec in trace.spec.tolist()] == [True, False]


def test_azures_packing_trace_may_be_two_tables(tmp_path: Path) -> None:
    written(tmp_path, "id,vmTypeId,machineId,core,memory\n0,1,3,0.5,0.25\n", "types.csv")
    text = "vmId,tenantId,vmTypeId,priority,starttime,endtime\n0,7,1,1,0.5,\n"
    assert guests(read_trace(Path(written(tmp_path, text, "vm.csv")))) == [(43_200, None, 32, 64 * 1024)]
    (tmp_path / "types.csv").unlink()
    with pytest.raises(InvalidValue, match="sizes of its guests"):
        read_trace(tmp_path / "vm.csv")


def test_googles_events_are_instances_from_first_to_last(tmp_path: Path) -> None:
    text = (
        "time,type,collection_id,priority,instance_index,resource_request.cpus,resource_request.memory\n"
        "600000000,0,1,103,0,0.0625,0.015625\n900000000,6,1,103,0,0.0625,0.015625\n"
        "0,0,2,103,5,0.5,0.5\n"
    )
    trace = read_trace(Path(written(tmp_path, text)))
    assert guests(trace) == [(-300, None, 32, 128 * 1024), (600, 900, 4, 4096)]


def test_alibabas_containers_stay(tmp_path: Path) -> None:
    rows = "c_0,m_0,0,app_0,started,400,400,1.5625\nc_0,m_0,500,app_0,started,400,400,1.5625\n"
    rows += "c_1,m_1,1000,a,started,50,50,50\n"
    assert guests(read_trace(Path(written(tmp_path, rows)))) == [(0, None, 4, 4096), (900, None, 1, 128 * 1024)]


def test_a_machine_is_vcpus_and_memory(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="not a machine"):
        read_trace(Path(written(tmp_path)), machine="64")


@pytest.mark.parametrize(
    "name",
    ["ali2018_container_meta.csv", "azp_vm.csv", "google2019_instance_events.csv", "packing_trace_zone_a_v1.sqlite"],
)
def test_published_samples_are_read(name: str) -> None:
    if not (EXPORTS / name).is_file():
        pytest.skip("the samples of published traces are not there")
    assert len(read_trace(EXPORTS / name)) in (20, 50)


def test_traces_are_read_by_their_content(tmp_path: Path) -> None:
    """The same trace, compressed, of a spreadsheet in German, and as Parquet, under names that say nothing."""
    plain = guests(read_trace(Path(written(tmp_path))))
    german = TRACE.replace(",", ";").replace("0;7200;2;4;a", "0;7200;2;4,0;a")
    forms = {"one": gzip.compress(TRACE.encode()), "two": b"\xef\xbb\xbf" + german.encode()}
    zstandard = pytest.importorskip("zstandard")
    forms["three"] = zstandard.ZstdCompressor().compress(TRACE.encode())
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        assert guests(read_trace(tmp_path / name)) == plain
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    header, *lines = [line.split(",") for line in TRACE.splitlines()]
    columns = {name: [line[place] or None for line in lines] for place, name in enumerate(header)}
    numbers = {name: [None if cell is None else int(cell) for cell in columns[name]] for name in header[:4]}
    parquet.write_table(arrow.table(columns | numbers), tmp_path / "four")
    assert guests(read_trace(tmp_path / "four")) == plain
