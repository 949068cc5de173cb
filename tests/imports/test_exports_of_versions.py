"""Exports as other versions, locales and programs write them: the same fleet, whatever wrote it."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hostler import HostlerError, InvalidValue
from hostler.drivers.imports.best_host import _query, answered
from hostler.drivers.imports.command import read
from hostler.drivers.imports.tables import number, tables

UUID = "00000000-0000-4000-8000-00000000000"
VCENTER_HOSTS = "Name;NumCpu;MemoryTotalGB;HyperthreadingActive\nesx1.corp;16;128;False\n"


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_bytes(
        value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    )
    return path


def dropped(cloud: Any) -> dict[str, str]:
    return {each.what: each.why for each in cloud.report.dropped}


# numbers


@pytest.mark.parametrize(
    ("text", "comma", "value"),
    [
        ("16,5", False, 16.5),
        ("16.5", True, 16.5),
        ("1.234.567", False, 1_234_567.0),
        ("1,234,567", True, 1_234_567.0),
        ("1.024", True, 1024.0),
        ("1.024", False, 1.024),
        ("1,024", True, 1.024),
        ("1,024", False, 1024.0),
        ("1.234.567,25", False, 1_234_567.25),
        ("8\u2019192", False, 8192.0),
        ("-3,25", False, -3.25),
        ("1e3", False, 1000.0),
    ],
)
def test_a_mark_is_decimal_or_between_thousands_by_where_it_stands(text: str, comma: bool, value: float) -> None:
    assert number(text, comma=comma) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1.2.3", "12.34,5", "1,23,456.0", "", "inf", "nan", "4 GB"])
def test_what_is_no_number_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        number(text, comma=False)


@pytest.mark.parametrize(
    ("guests", "memory_mb"),
    [
        ('"Name","NumCpu","MemoryGB","VMHost"\n"a","4","16,5","esx1"\n', [16_896]),
        ('"Name","NumCpu","MemoryGB","VMHost"\n"a","4","16,125","esx1"\n"b","4","0,5","esx1"\n', [16_512, 512]),
        ("Name;NumCpu;MemoryGB;Version;VMHost\na;4;16,5;7.0;esx1\nb;4;16,125;7.0;esx1\n", [16_896, 16_512]),
        ("Name;NumCpu;MemoryGB;Used;VMHost\na;4;1.125;0.5;esx1\n", [1_152]),
        ("Name;NumCpu;MemoryGB;VMHost\n" + "a;4;16;esx1\n" * 1_500 + "b;4;2,125;esx1\n", [2_176]),
        ("Name\tNumCpu\tMemoryGB\tVMHost\na\t4\t16 GB\tesx1\nb\t4\t512 MB\tesx1\n", [16_384, 512]),
        ("Name\tNumCpu\tMemoryMB\tVMHost\na\t4\t16,384 MB\tesx1\nb\t4\t1,536 KB\tesx1\n", [16_384, 2]),
        ("Name;NumCpu;MemoryMB;VMHost\na;4;16.384 MB;esx1\nb;4;1.048.576 KiB;esx1\n", [16_384, 1_024]),
        ("Name\tNumCpu\tMemoryMB\tVMHost\na\t4\t1.024 GB\tesx1\nb\t4\t16.384,5 MB\tesx1\n", [1_049, 16_385]),
    ],
)
def test_decimal_commas_are_known_by_the_column(tmp_path: Path, guests: str, memory_mb: list[int]) -> None:
    cloud = read("powercli", (write(tmp_path, "h.csv", VCENTER_HOSTS), write(tmp_path, "g.csv", guests)))
    assert [guest.flavor.memory_mb for guest in cloud.guests][-len(memory_mb) :] == memory_mb


# files


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-8-sig", "cp1252"])
def test_encodings_with_and_without_a_mark_are_read(tmp_path: Path, encoding: str) -> None:
    (table,) = tables(write(tmp_path, "a", "VM;Größe\r\nKöln;2\r\n".encode(encoding)))
    assert (table.columns, table.lines[0].text("VM"), table.lines[0].line) == (("VM", "Größe"), "Köln", 2)


def test_json_lines_are_told_by_their_lines_also_with_separators_in_texts(tmp_path: Path) -> None:
    (table,) = tables(write(tmp_path, "a", '{"id": "a\u2028b"}\n\n{"id": "c"}\n'))
    assert [(line.line, line.text("id")) for line in table.lines] == [(1, "a\u2028b"), (3, "c")]


def test_types_of_parquet_are_taken_for_what_they_mean(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    columns = {
        "id": arrow.array([b"node/a", b"qemu/1", b"qemu/2"], arrow.binary()),
        "type": arrow.array(["node", "qemu", "qemu"]).dictionary_encode(),
        "node": arrow.array(["a"] * 3, arrow.large_string()),
        "status": arrow.array(["online", "running", None]),
        "maxcpu": arrow.array([decimal.Decimal("8.00"), decimal.Decimal("2.00"), None], arrow.decimal128(9, 2)),
        "maxmem": arrow.array([float(2**35), float(2**30), float("nan")]),
        "uptime": arrow.array([at, at, None], arrow.timestamp("us", "Europe/Berlin")),
        "tags": arrow.array([["x"], [], None]),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "resources.csv")
    cloud = read("proxmox", (tmp_path / "resources.csv",))
    assert [(host.name, host.vcpus, host.memory_mb) for host in cloud.hosts.values()] == [("a", 8, 32_768)]
    assert [(guest.key, guest.flavor.vcpus, guest.flavor.memory_mb) for guest in cloud.guests] == [("qemu/1", 2, 1_024)]
    assert dropped(cloud) == {"qemu/2": "it does not run (--powered-off takes it)"}
    parquet.write_table(arrow.table(columns).slice(0, 0), tmp_path / "empty")
    assert tables(tmp_path / "empty")[0].columns == tuple(columns)


def test_a_workbook_whose_sheets_tell_a_wrong_extent_is_read_whole(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book, data, wrong = openpyxl.Workbook(), io.BytesIO(), io.BytesIO()
    book.active.append(["VM", "CPUs"])
    book.active.append(["a", 4])
    book.save(data)
    with zipfile.ZipFile(data) as old, zipfile.ZipFile(wrong, "w") as new:
        for name in old.namelist():
            new.writestr(name, re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', old.read(name)))
    (table,) = tables(write(tmp_path, "a", wrong.getvalue()))
    assert [(line.text("VM"), line.number("CPUs")) for line in table.lines] == [("a", 4)]


# OpenStack

OLD_HYPERVISOR = {"Hypervisor Hostname": "cmp1.example", "State": "up", "vCPUs": 16, "Memory MB": 65_536}
FLAVOR = {"ID": "7", "Name": "m", "RAM": 4_096, "Disk": 20, "Ephemeral": 0, "VCPUs": 2, "Swap": "", "Properties": {}}


def openstack(folder: Path, **files: Any) -> Any:
    cloud = read("openstack", tuple(write(folder, name, value) for name, value in files.items()))
    cloud.fleet()
    return cloud


def test_properties_of_old_clients_keep_commas_within_quotes(tmp_path: Path) -> None:
    told = "hw:cpu_policy='dedicated', hw:numa_cpus.0='0,1', hw:numa_cpus.1='2,3', quota=5"
    server = {"ID": f"{UUID}1", "Status": "ACTIVE", "Image Name": "u", "Flavor Name": "m", "Host": "cmp1"}
    cloud = openstack(tmp_path, h=[OLD_HYPERVISOR], f=[FLAVOR | {"Properties": told}], s=[server])
    assert dict(cloud.guests[0].flavor.extra_specs) == {
        "hw:cpu_policy": "dedicated",
        "hw:numa_cpus.0": "0,1",
        "hw:numa_cpus.1": "2,3",
        "quota": "5",
    }


def test_hypervisors_that_new_clients_list_without_sizes_have_those_of_their_inventories(tmp_path: Path) -> None:
    hosts = [{"Hypervisor Hostname": f"cmp1.{domain}", "State": "up"} for domain in ("a", "b")]
    stock = "resource_class,allocation_ratio,reserved,total\nVCPU,4.0,0,{}\nMEMORY_MB,1.0,512,65536\n"
    files = {"h": hosts, "cmp1.a.csv": stock.format(8), "cmp1.b.csv": stock.format(16)}
    cloud = openstack(tmp_path, **files)
    assert [(host.name, host.vcpus, host.cpu_ratio) for host in cloud.hosts.values()] == [
        ("cmp1.a", 8, 4.0),
        ("cmp1.b", 16, 4.0),
    ]


def test_listings_of_nothing_are_noted_and_no_error(tmp_path: Path) -> None:
    cloud = openstack(tmp_path, h=[OLD_HYPERVISOR], groups="[]\n", servers="[]")
    assert (cloud.report.hosts, cloud.report.notes[:2]) == (1, ["groups lists nothing", "servers lists nothing"])
    with pytest.raises(InvalidValue, match="name no hosts"):
        openstack(tmp_path, h="[]")


def test_the_zone_that_a_server_was_asked_with_is_taken_where_it_is_listed(tmp_path: Path) -> None:
    server = {"Status": "ACTIVE", "Image Name": "u", "Flavor": "m", "Availability Zone": "az1", "Host": "cmp1.example"}
    servers = [
        server | {"ID": f"{UUID}1", "Pinned Availability Zone": None},
        server | {"ID": f"{UUID}2", "Pinned Availability Zone": "az1"},
    ]
    cloud = openstack(tmp_path, h=[OLD_HYPERVISOR], f=[FLAVOR], s=servers)
    assert [guest.zone for guest in cloud.guests] == [None, "az1"]
    assert not any("asked with" in note for note in cloud.report.notes)


def test_a_flavor_is_named_by_the_column_that_names_it(tmp_path: Path) -> None:
    """A flavor may have for its name what is the id of another one."""
    flavors = [FLAVOR | {"ID": "1", "Name": "2", "VCPUs": 1}, FLAVOR | {"ID": "2", "Name": "1", "VCPUs": 8}]
    server = {"Status": "ACTIVE", "Image ID": "u", "Host": "cmp1"}
    by_id, by_name = {"ID": f"{UUID}1", "Flavor ID": "1"}, {"ID": f"{UUID}2", "Flavor Name": "1"}
    cloud = openstack(tmp_path, h=[OLD_HYPERVISOR], f=flavors, s=[server | by_id, server | by_name])
    assert [guest.flavor.vcpus for guest in cloud.guests] == [1, 8]


def test_servers_listed_without_images_do_not_all_boot_from_volumes(tmp_path: Path) -> None:
    server = {"ID": f"{UUID}1", "Status": "ACTIVE", "Flavor": "m", "Host": "cmp1"}
    cloud = openstack(tmp_path, h=[OLD_HYPERVISOR], f=[FLAVOR], s=[server])
    assert [guest.is_bfv for guest in cloud.guests] == [False]
    assert any("boot from volumes" in note for note in cloud.report.notes)


def test_rules_of_server_groups_are_taken(tmp_path: Path) -> None:
    group = {"id": "g", "policy": "anti-affinity", "members": [f"{UUID}1"], "rules": "{'max_server_per_host': 3}"}
    cloud = openstack(tmp_path, h=[OLD_HYPERVISOR], f=[FLAVOR], g=group)
    assert cloud.most_per_host == {"g": 3}


def test_hosts_are_found_in_any_case_and_with_another_domain(tmp_path: Path) -> None:
    hosts = [OLD_HYPERVISOR | {"Hypervisor Hostname": name} for name in ("CMP1.a", "cmp1.b", "cmp2", "10.0.0.1")]
    cloud = openstack(tmp_path, h=hosts)
    asked = ("cmp1.a", "cmp1", "cmp2.x", "10.0.0.1", "10.0.0.2")
    assert [cloud.known_host(name) for name in asked] == ["CMP1.a", None, "cmp2", "10.0.0.1", None]


# the others


def test_objects_of_powercli_as_json_are_named_by_their_names(tmp_path: Path) -> None:
    host = {
        "Name": "esx1",
        "NumCpu": 8,
        "MemoryTotalGB": 64.5,
        "ConnectionState": 0,
        "HyperthreadingActive": True,
        "Parent": {"Name": "prod"},
    }
    guest = {"Name": "a", "PowerState": 1, "NumCpu": 2, "MemoryGB": 4, "VMHost": {"Name": "esx1", "NumCpu": 8}}
    cloud = read("powercli", (write(tmp_path, "h.json", host), write(tmp_path, "g.json", [guest])))
    assert [(each.vcpus, each.zone, each.disabled) for each in cloud.hosts.values()] == [(16, "prod", "")]
    assert [(each.host, each.zone) for each in cloud.guests] == [("esx1", "prod")]


@pytest.mark.parametrize(
    ("maxmem", "room_mb"), [(68_719_476_735, 65_535), ("62.79 GiB", 64_297), ("68719476736", 65_536)]
)
def test_amounts_of_proxmox_are_bytes_or_have_a_unit(tmp_path: Path, maxmem: Any, room_mb: int) -> None:
    node = {"type": "node", "node": "a", "status": "online", "maxcpu": 8, "maxmem": maxmem}
    guests = [
        {"type": "lxc", "id": f"lxc/{status}", "node": "a", "status": status, "maxcpu": 0.5, "maxmem": 2**29}
        for status in ("running", "unknown", "paused")
    ]
    cloud = read("proxmox", (write(tmp_path, "r", {"data": [node, *guests]}),))
    assert [host.memory_mb for host in cloud.hosts.values()] == [room_mb]
    assert [(guest.flavor.vcpus, guest.flavor.memory_mb) for guest in cloud.guests] == [(1, 512)]
    assert dropped(cloud) == {
        "lxc/unknown": "it is unknown (--powered-off takes it)",
        "lxc/paused": "it is paused (--powered-off takes it)",
    }


def test_descriptions_of_guests_one_after_another_are_read(tmp_path: Path) -> None:
    cell = "<cell id='0'><memory>33554432</memory><cpus><cpu id='0'/><cpu id='1'/></cpus></cell>"
    arch = "<guest><arch name='x'><domain type='kvm'/></arch></guest>"
    host = f"<capabilities>\n<host><topology><cells>{cell}</cells></topology></host>{arch}</capabilities>"
    one = "<?xml version='1.0'?>\n<domain type='kvm' id='{}'>\n<name>{}</name><memory unit='{}'>2</memory>"
    one += "<vcpu placement='static' current='2'>8</vcpu></domain>\n\n"
    guests = one.format(1, "a", "GiB") + one.format(2, "b", "parsec") + one.format(3, "c", "GiB")
    cloud = read("libvirt", (write(tmp_path, "kvm1.xml", host), write(tmp_path, "all.xml", guests)))
    assert [(guest.key, guest.flavor.vcpus) for guest in cloud.guests] == [("kvm1/a", 2), ("kvm1/c", 2)]
    assert [(each.what, each.line) for each in cloud.report.dropped] == [("b", 6)]
    together = read("libvirt", (write(tmp_path, "kvm2.xml", host + one.format(1, "a", "GiB")),))
    assert [guest.key for guest in together.guests] == ["kvm2/a"]
    stats = "Domain: 'b'\r\n  state.state=1\r\n  balloon.maximum=2097152\r\n  vcpu.current=1\r\n"
    with_stats = read("libvirt", (tmp_path / "kvm1.xml", write(tmp_path, "stats", stats)))
    assert [guest.flavor.memory_mb for guest in with_stats.guests] == [2_048]


@pytest.mark.parametrize("word", ["WAHR", "VRAI", "VERDADERO", "True", "1", "1.0"])
def test_true_is_read_in_the_words_of_excel(tmp_path: Path, word: str) -> None:
    hosts = f"Host,# Cores,# Memory,HT Active\nesx1,8,65536,{word}\n"
    cloud = read("rvtools", (write(tmp_path, "h.csv", hosts),))
    assert [host.vcpus for host in cloud.hosts.values()] == [16]


def test_nanoseconds_of_parquet_are_no_obstacle(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    at = arrow.array([1_772_359_200_000_000_001], arrow.timestamp("ns", "UTC"))
    parquet.write_table(arrow.table({"id": ["a"], "at": at}), tmp_path / "a")
    assert tables(tmp_path / "a")[0].lines[0].text("id") == "a"


@pytest.mark.parametrize("value", ["a\0b", "1_0", "\u0663", "2.0", "9" * 30])
def test_best_host_refuses_what_is_no_amount_or_path(value: str) -> None:
    for name in ("vcpus", "state"):
        with pytest.raises(HostlerError, match=rf"{name}|cannot read"):
            answered(_query(json.dumps({"state": "absent", "vcpus": "1"} | {name: value}).encode()))


def test_traits_and_usages_of_providers_are_of_the_host_that_their_file_is_named_after(tmp_path: Path) -> None:
    files = {
        "h": [OLD_HYPERVISOR],
        "f": [FLAVOR],
        "s": [{"ID": f"{UUID}1", "Status": "ACTIVE", "Image ID": "u", "Flavor": "m", "Host": "cmp1"}],
        "cmp1.example.json": [{"name": name} for name in ("HW_CPU_X86_AVX2", "CUSTOM_FAST", "HW_FUTURE")],
        "cmp1.csv": '"resource_class","usage"\n"VCPU",2\n"MEMORY_MB",8192\n',
        "cmp9.csv": '"name"\n"CUSTOM_FAST"\n',
    }
    cloud = openstack(tmp_path, **files)
    (host,) = cloud.hosts.values()
    assert host.traits == {"HW_CPU_X86_AVX2", "CUSTOM_FAST"}
    assert dropped(cloud) == {
        "HW_FUTURE": "it is newer than os-traits here: upgrade that",
        "CUSTOM_FAST": "'cmp9', the name of the file, is not the name of a hypervisor",
    }
    said = "guests of the files take 4,096 MEMORY_MB of cmp1.example, 8,192 are used in Placement"
    assert [note for note in cloud.report.notes if "are used" in note] == [said]
