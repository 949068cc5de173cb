"""Published traces and formats are known by what is in the file: tiny ones whose guests are known."""

from __future__ import annotations

import gzip
import json
import sqlite3
from datetime import datetime, timedelta
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


def test_googles_events_come_in_any_order_by_number_or_by_name(tmp_path: Path) -> None:
    """Instance 1 is evicted at 900 s and goes on at 1200 s; instance 2 ends; instance 3 has no size."""
    head = "time,type,collection_id,priority,instance_index,resource_request.cpus,resource_request.memory\n"
    rows = [
        "1200000000,SCHEDULE,1,103,0,0.0625,0.015625\n",
        "900000000,EVICT,1,103,0,0.0625,0.015625\n",
        "1500000000,FINISH,2,103,0,,\n",
        "600000000,SUBMIT,1,103,0,0.0625,0.015625\n",
        "300000000,0,2,103,0,0.5,0.5\n",
        "300000000,0,3,103,0,,\n",
    ]
    trace = read_trace(Path(written(tmp_path, head + "".join(rows))))
    assert guests(trace) == [(300, 1500, 32, 128 * 1024), (600, None, 4, 4096)]
    assert any("1 instances that the trace gives no size" in note for note in trace.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,type,collection_id,instance_index,resource_request.cpus\n0,0,1,0,1\n", "no column"),
        ("GOOGLE0,SUBMIT,1,0,x,0.5\n", "line 3: resource_request.cpus is 'x'"),
        ("GOOGLE-5,SUBMIT,1,0,0.5,0.5\n", "line 3: time is '-5'"),
        ("GOOGLE0,LEAVE,1,0,0.5,0.5\n", "line 3: type is 'LEAVE'"),
        ("GOOGLE0,SUBMIT,1\n", "line 3: 3 fields, but 6 columns"),
        ("a,s,d,0,600,9,10,40,x,2,4\nb,s,d,0,soon,9,10,40,x,2,4\n", "line 2: deleted is 'soon'"),
        ("a,s,d,0,600,9,10,40,x,2,4\nb,s,d,0,600.5,9,10,40,x,0,4\n", "line 2: vcpus is '0'"),
        ("a,s,d,0,600,9,10,40,x,2,4\nb,s,d,0,600\n", "line 2: 5 fields, but 11 columns"),
        ("c_0,m_0,0,a,started,400,400,1.5\nc_1,m_0,5,a,started,400,400,many\n", "line 2: mem_size is 'many'"),
        ("c_0,m_0,0,a,started,400,400,1.5\nc_1,m_0,5,a,started,0,400,1\n", "line 2: vcpus is '0'"),
        ("vmId,vmTypeId,starttime,endtime\n0,1,0.5,\n1,1,noon,\n", "line 3: starttime is 'noon'"),
    ],
)
def test_rows_at_fault_of_published_traces_are_named_by_their_lines(tmp_path: Path, text: str, words: str) -> None:
    google = "time,type,collection_id,instance_index,resource_request.cpus,resource_request.memory\n0,0,9,0,1,1\n"
    written(tmp_path, "vmTypeId,machineId,core,memory\n1,3,0.5,0.25\n", "types.csv")
    (tmp_path / "other.gz").write_bytes(b"\x1f\x8bdamaged")
    with pytest.raises(InvalidValue) as error:
        read_trace(Path(written(tmp_path, text.replace("GOOGLE", google))))
    assert words in str(error.value)


def test_types_of_the_packing_trace_at_fault_are_named_by_their_lines(tmp_path: Path) -> None:
    path = Path(written(tmp_path, "vmId,vmTypeId,starttime,endtime\n0,1,0.5,\n"))
    written(tmp_path, "vmTypeId,machineId,core,memory\n1,3,half,0.25\n", "types.csv")
    with pytest.raises(InvalidValue, match=r"types.csv, line 2: core is 'half'"):
        read_trace(path)
    written(tmp_path, "vmTypeId,machineId,core,memory\n", "types.csv")
    with pytest.raises(InvalidValue, match=r"types.csv: no types of guests"):
        read_trace(path)


def test_options_that_say_nothing_of_a_trace_are_refused(tmp_path: Path) -> None:
    vmtable = Path(written(tmp_path, "a,s1,d1,0,6000,99,10,40,Unknown,2,4\n", "vmtable.csv"))
    for options in ({"machine": "8x8"}, {"time_unit": "ms"}, {"tz": "Europe/Berlin"}):
        with pytest.raises(InvalidValue, match="is a published trace: --"):
            read_trace(vmtable, **options)  # type: ignore[arg-type]  # of texts
    own = Path(written(tmp_path))
    with pytest.raises(InvalidValue, match="vcpus is '2'"):
        read_trace(own, machine="8x8")
    with pytest.raises(InvalidValue, match="--tz says nothing"):
        read_trace(own, tz="Europe/Berlin")
    usage = tmp_path / "usage.json"
    usage.write_text('{"data": {"result": [{"metric": {"id": "z"}, "values": [[0, "0.5"]]}]}}')
    with pytest.raises(InvalidValue, match="names no guest"):
        read_trace(vmtable, usage=usage)


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


def forms(folder: Path) -> dict[str, bytes]:
    """TRACE as files of several forms."""
    header, *lines = [line.split(",") for line in TRACE.splitlines()]
    objects = [
        {name: int(cell) if cell.isdecimal() else cell for name, cell in zip(header, line, strict=True) if cell}
        for line in lines
    ]
    texts = [json.dumps(each) for each in objects]
    german = TRACE.replace(",", ";").replace("0;7200;2;4;a", "0;7200;2;4,0;a")
    openpyxl, zstandard = pytest.importorskip("openpyxl"), pytest.importorskip("zstandard")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    book = openpyxl.Workbook()
    book.create_sheet("guests")
    for line in (header, *lines):
        book["guests"].append([int(cell) if cell.isdecimal() else cell or None for cell in line])
    book.save(folder / "book")
    parquet.write_table(arrow.Table.from_pylist(objects), folder / "parquet")
    workbook, columns = ((folder / name).read_bytes() for name in ("book", "parquet"))
    one, two = (zstandard.ZstdCompressor().compress(part.encode()) for part in (TRACE[:40], TRACE[40:]))
    return {
        "csv": TRACE.encode(),
        "csv, gzip": gzip.compress(TRACE.encode()),
        "csv, gzip in two members": gzip.compress(TRACE[:40].encode()) + gzip.compress(TRACE[40:].encode()),
        "csv, zstandard in two frames": one + two,
        "csv of a spreadsheet in German": b"\xef\xbb\xbf" + german.encode(),
        "Unicode text of a spreadsheet": TRACE.replace(",", "\t").encode("utf-16"),
        "workbook": workbook,
        "Parquet": columns,
        "Parquet, gzip": gzip.compress(columns),
        "JSON lines": "\n".join(texts).encode(),
        "JSON lines, zstandard": zstandard.ZstdCompressor().compress("\n".join(texts).encode()),
        "JSON": f"[{','.join(texts)}]".encode(),
    }


def test_traces_are_read_by_their_content(tmp_path: Path) -> None:
    """The same trace in all forms, under a name that says nothing."""
    plain = guests(read_trace(Path(written(tmp_path))))
    for form, content in forms(tmp_path).items():
        (tmp_path / "one").write_bytes(content)
        assert guests(read_trace(tmp_path / "one")) == plain, form


def test_files_that_are_damaged_or_cut_off_are_refused(tmp_path: Path) -> None:
    """Nothing of a file is taken for the whole."""
    text = (TRACE + "".join(f"{n},600,1,1,,,\n" for n in range(9000))).encode()
    zstandard = pytest.importorskip("zstandard")
    whole = {"gzip": gzip.compress(text), "zstandard": zstandard.ZstdCompressor(write_checksum=True).compress(text)}
    found = forms(tmp_path)
    whole |= {name: found[name] for name in ("workbook", "Parquet", "JSON")}
    for form, content in whole.items():
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 0xFF
        cut = [content[:part] for part in (len(content) // 2, len(content) - 1)]
        for each in (*cut, *([bytes(damaged)] if form in ("gzip", "zstandard") else [])):
            (tmp_path / "one").write_bytes(each)
            with pytest.raises(InvalidValue) as error:
                read_trace(tmp_path / "one")
            assert error.value.field == "trace", form


def test_rows_of_other_forms_are_named_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "one"
    head = '{"arrival_s": 0, "vcpus": 1, "memory_gb": 1}\n'
    for text, words in (
        (head + '\n{"arrival_s": 0, "vcpus": "x", "memory_gb": 1}\n', "line 3: vcpus is 'x'"),
        (head + '{"arrival_s": 0, "vcpus"\n', "line 2: no JSON"),
        (head * 1000 + '{"arrival_s": 0, "vcpus": 1, "memory_gb": 1, "gpus": 1}\n', "none of the first"),
        (f"[{head},7]", "2: '7' is no object"),
        (f'[{head},{{"arrival_s": 0, "vcpus": 1}}]', "object 2: memory_gb is missing"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidValue) as error:
            read_trace(path)
        assert words in str(error.value)
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in (("arrival_s", "vcpus", "memory_gb"), (0, 1, 1), (), (0, "x", 1)):
        book.active.append(line)
    book.save(path)
    with pytest.raises(InvalidValue, match="row 4: vcpus is 'x'"):
        read_trace(path)


def test_cells_have_the_types_of_their_file(tmp_path: Path) -> None:
    """Dates, durations, lists and objects."""
    path = tmp_path / "one"
    told = {"arrival_s": "2026-03-01T01:00:00Z", "vcpus": 1, "memory_gb": 1.5, "preemptible": True, "zone": None}
    told |= {"resources": {"CUSTOM_A": 2}, "traits": ["CUSTOM_B", "!CUSTOM_C"], "tags": {"any": 1}}
    path.write_text(json.dumps(told))
    trace = read_trace(path)
    assert trace.specs[0].flavor.extra_specs == {
        **{"trait:CUSTOM_B": "required", "trait:CUSTOM_C": "forbidden", "resources:CUSTOM_A": "2"}
    }
    assert (trace.terms[0].preemptible, trace.specs[0].flavor.memory_mb) == (True, 1536)
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in (
        ("arrival_s", "lifetime_s", "vcpus", "memory_gb"),
        (datetime(2026, 3, 1, 1), timedelta(hours=2), 1, 1),
    ):
        book.active.append(line)
    book.save(path)
    assert guests(read_trace(path)) == [(3600, 3 * 3600, 1, 1024)]
