"""Files that are broken, or made to break a reader: an error that names the file, and never a traceback."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from hostler.drivers.imports import tables as imports
from hostler.drivers.imports.command import Kind, _read
from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.sim.trace import rows as traces
from hostler.sim.trace.files import read_trace

NODE = b'[{"id": "node/a", "node": "a", "type": "node", "maxcpu": %s, "maxmem": 1e9, "status": "online"}]'
HOSTILE = {
    "deep list": b"[" * 200_000,
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a million columns": b",".join(b"c%d" % number for number in range(200_000)) + b"\n" + b"1," * 200_000,
    "zero bytes": b"VM,CPUs\n\0,\0\n",
    "an open quote": b'VM,CPUs\n"abc,1\n' * 50,
    "a long field": b"VM,CPUs\n1," + b"9" * 300_000,
    "not a number": NODE % b"NaN",
    "no end": NODE % b"1e400",
    "a large number": NODE % (b"9" * 5_000),
    "another type": NODE % b'{"a": [1]}',
    "any bytes": bytes(range(256)) * 99,
    "nothing": b"",
    "no objects": b"[1, 2, 3]",
    "a zip": b"PK\3\4" + b"x" * 99,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_each_is_an_error_or_a_report(tmp_path: Path, what: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(HOSTILE[what])
    said: list[str] = []
    for kind in get_args(Kind):
        try:
            _read(kind, (path,), None, None, False, [], [])
        except HostlerError as error:
            said.append(str(error))
    assert all(len(each) < 1_000 for each in said)
    with pytest.raises(HostlerError) as caught:
        read_trace(path)
    assert len(str(caught.value)) < 1_000


def test_json_nested_too_deeply_says_so(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_bytes(HOSTILE["deep list"])
    with pytest.raises(InvalidValue, match="nested too deeply"):
        imports.tables(path)
    with pytest.raises(InvalidValue, match="nested too deeply"):
        read_trace(path)


def test_a_workbook_that_grows_without_end_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * 3_000_000)
    path = tmp_path / "bomb.xlsx"
    path.write_bytes(packed.getvalue())
    assert path.stat().st_size < 10_000
    for module in (imports, traces):
        monkeypatch.setattr(module, "MOST_BYTES", 1_000_000)
    with pytest.raises(InvalidValue, match="after decompression"):
        imports.tables(path)
    with pytest.raises(InvalidValue, match="after decompression"):
        read_trace(path)


def test_line_separators_within_a_cell_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    path.write_text("VM,Note\na,one\u2028two\vthree\nb,x\n", encoding="utf-8")
    (table,) = imports.tables(path)
    assert [(line.line, line.text("VM"), line.text("Note")) for line in table.lines] == [
        (2, "a", "one\u2028two\vthree"),
        (3, "b", "x"),
    ]


def test_a_trace_of_windows_western_letters_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes("id;arrival_s;lifetime_s;vcpus;memory_gb\nKöln€1;0;60;1;2,5\n".encode("cp1252"))
    assert [spec.flavor.memory_mb for spec in read_trace(path).specs] == [2560]


def test_json_lines_that_end_too_early_are_an_error_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "servers.jsonl"
    path.write_text('{"ID": "a"}\n{"ID": "b"}\n{"ID": "c')
    with pytest.raises(InvalidValue, match=r"servers\.jsonl:3 is not JSON: Unterminated string.*, column 8"):
        list(imports.tables(path))
    path.write_text('{"ID": ')
    with pytest.raises(InvalidValue, match=r"servers\.jsonl is not JSON"):
        list(imports.tables(path))


@pytest.mark.parametrize(
    ("host", "guest", "words"),
    [
        ("64,524288", "2,4", r"hosts\.csv:2: esx1 has 524,288 GiB of memory for 64 CPUs"),
        ("64,512", "1,2048", r"guests\.csv:2: .*vm1.* has 2,048 GiB of memory for 1 CPU"),
        ("64,512", "2,512", ""),
    ],
)
def test_memory_in_another_unit_than_its_column_says_is_an_error_with_the_line(
    tmp_path: Path, host: str, guest: str, words: str
) -> None:
    hosts, guests = tmp_path / "hosts.csv", tmp_path / "guests.csv"
    hosts.write_text(f"Name,NumCpu,MemoryTotalGB,ConnectionState,Parent\nesx1,{host},Connected,C\n")
    guests.write_text(f"Name,PowerState,NumCpu,MemoryGB,VMHost\nvm1,PoweredOn,{guest},esx1\n")
    if not words:
        assert len(_read("powercli", (hosts, guests), None, None, False, [], [])[1]) == 1
        return
    with pytest.raises(InvalidValue, match=words):
        _read("powercli", (hosts, guests), None, None, False, [], [])


def test_guests_that_are_dropped_are_not_looked_at_for_their_unit(tmp_path: Path) -> None:
    hosts, guests = tmp_path / "hosts.csv", tmp_path / "guests.csv"
    hosts.write_text("Name,NumCpu,MemoryTotalGB,ConnectionState,Parent\nesx1,64,512,Connected,C\n")
    guests.write_text(
        "Name,PowerState,NumCpu,MemoryGB,VMHost\nvm1,PoweredOn,1,2048,elsewhere\nvm2,PoweredOn,1,4,esx1\n"
    )
    _, requests, report = _read("powercli", (hosts, guests), None, None, False, [], [])
    assert (len(requests), [each.line for each in report.dropped]) == (1, [2])


@pytest.mark.parametrize(("listed", "dedicated", "taken"), [("128", 126, True), ("", 126, True), ("", 0, False)])
def test_memory_of_a_host_is_held_against_its_dedicated_cpus_as_well(
    tmp_path: Path, listed: str, dedicated: int, taken: bool
) -> None:
    hypervisors, inventories = tmp_path / "hypervisors.csv", tmp_path / "cmp0.csv"
    hypervisors.write_text(
        f"ID,Hypervisor Hostname,Hypervisor Type,State,vCPUs,Memory MB\n1,cmp0,QEMU,up,{listed},2097152\n"
    )
    inventories.write_text(
        "resource_class,allocation_ratio,min_unit,max_unit,reserved,step_size,total\n"
        f"VCPU,4.0,1,2,0,1,2\nPCPU,1.0,1,126,0,1,{dedicated}\nMEMORY_MB,1.0,1,2097152,512,1,2097152\n"
    )
    if not taken:
        with pytest.raises(InvalidValue, match=r"cmp0 has 2,048 GiB of memory for 2 CPUs"):
            _read("openstack", (hypervisors, inventories), None, None, False, [], [])
        return
    fleet, _, _ = _read("openstack", (hypervisors, inventories), None, None, False, [], [])
    assert fleet.inventory("cmp0")["VCPU"][0].total == 2
