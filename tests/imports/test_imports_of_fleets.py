"""Exports of platforms become fleets, and the report tells of every line that does not."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler import Drain, Engine, HostlerError, InvalidValue, NoValidHost, load_fleet, load_requests
from hostler.drivers.imports.best_host import _query as parsed_query
from hostler.drivers.imports.best_host import answered
from hostler.drivers.imports.cloud import ImportReport
from hostler.drivers.imports.command import import_files
from hostler.drivers.imports.command import read as read_files
from hostler.drivers.imports.tables import decoded, number, tables

HYPERVISORS = [
    {
        "ID": "1",
        "Hypervisor Hostname": f"cmp{n}.example",
        "Hypervisor Type": "QEMU",
        "State": "up",
        "vCPUs": 16,
        "Memory MB": 65_536,
    }
    for n in range(3)
]
FLAVORS = (
    "ID,Name,RAM,Disk,Ephemeral,VCPUs,Is Public,Swap,RXTX Factor,Properties\n"
    "1,m,4096,20,0,2,True,0,1.0,\"{'hw:boot_menu': 'true'}\"\n"
)
UUID = "00000000-0000-4000-8000-00000000000"
SERVERS: list[dict[str, Any]] = [
    {
        "ID": f"{UUID}1",
        "Status": "ACTIVE",
        "Image Name": "u",
        "Flavor": "m",
        "Availability Zone": "az1",
        "Host": "cmp0",
        "Project ID": "p",
    },
    {
        "ID": f"{UUID}2",
        "Status": "SHUTOFF",
        "Image Name": "N/A (booted from volume)",
        "Flavor": "m",
        "Availability Zone": "az1",
        "Host": "cmp1",
        "Project ID": "p",
    },
    {"ID": f"{UUID}3", "Status": "ERROR", "Image Name": "u", "Flavor": "m", "Host": None, "Project ID": "p"},
    {"ID": f"{UUID}4", "Status": "ACTIVE", "Image Name": "u", "Flavor": "gone", "Host": "cmp0", "Project ID": "p"},
    {"ID": f"{UUID}5", "Status": "ACTIVE", "Image Name": "u", "Flavor": "m", "Host": "cmp9", "Project ID": "p"},
]
VHOST = "Host,Datacenter,Cluster,in Maintenance Mode,HT Active,# CPU,Cores per CPU,# Cores,# Memory\n"
VINFO = "VM,Powerstate,Template,SRM Placeholder,CPUs,Memory,Cluster rule(s),Datacenter,Cluster,Host,VM UUID\n"
ESX = (
    f"{VHOST}esx1,DC,A,False,True,2,8,16,131072\n"
    "esx2,DC,A,True,True,2,8,16,131072\nesx3,DC,B,False,False,2,8,16,131072\n"
)
VMS = (
    f"{VINFO}a,poweredOn,False,False,4,8192,apart,DC,A,esx1,{UUID}1\n"
    f"b,poweredOff,False,False,4,8192,,DC,A,esx1,{UUID}2\n"
    f"c,poweredOn,True,False,4,8192,,DC,A,esx1,{UUID}3\nd,poweredOn,False,False,x,8192,,DC,A,esx1,{UUID}4\n"
)


def write(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    data = (
        value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value).encode()
    )
    path.write_bytes(data)
    return path


def taken(folder: Path, kind: Any, *files: Path, **options: Any) -> tuple[Engine, dict[str, Any], ImportReport]:
    """What ``hostler import`` writes and reports."""
    report = folder / "report.json"
    import_files(kind, *files, output=folder / "state", report=report, **options)
    found = msgspec.json.decode(report.read_bytes(), type=ImportReport)
    return Engine(load_fleet(folder / "state")), load_requests(folder / "state"), found


def why(report: ImportReport) -> dict[str, str]:
    return {each.what: each.why for each in report.dropped}


def test_listings_of_openstack_become_a_fleet(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "h.json", HYPERVISORS),
        write(tmp_path, "f.csv", FLAVORS),
        write(tmp_path, "s.json", SERVERS),
        write(
            tmp_path, "g.json", [{"ID": "g", "Name": "g", "Policy": "anti-affinity", "Members": f"{UUID}1, {UUID}2"}]
        ),
    ]
    engine, asked, report = taken(tmp_path, "openstack", *files)
    assert (report.hosts, report.guests, report.groups) == (3, 2, 1)
    assert why(report) == {
        f"{UUID}3": "it is ERROR and on no host",
        f"{UUID}4": "its flavor 'gone' is not in the files",
        f"{UUID}5": "its host 'cmp9' is not in the files",
    }
    assert [each.line for each in report.dropped if each.what == f"{UUID}3"] == [3]
    guest = engine.fleet.consumer(f"{UUID}1")
    assert (guest.provider, dict(guest.resources), guest.project_id) == (
        "cmp0.example",
        {"VCPU": 2, "MEMORY_MB": 4_096, "DISK_GB": 20},
        "p",
    )
    assert guest.server_group is not None
    assert dict(engine.fleet.consumer(f"{UUID}2").resources) == {"VCPU": 2, "MEMORY_MB": 4_096}, "boots from a volume"
    assert asked[f"{UUID}1"].availability_zone == "az1"
    plan = engine.plan(Drain(hosts=("cmp0.example",)), asked=asked)
    assert [each.reason for each in plan.left] == ["no host can take it"], "the other host of the zone has its group"
    engine.fleet.check()


def test_inventories_and_aggregates_say_what_listings_do_not(tmp_path: Path) -> None:
    inventory = (
        "resource_class,allocation_ratio,min_unit,max_unit,reserved,step_size,total,used\n"
        "VCPU,2.0,1,16,1,1,16,0\nDISK_GB,1.0,1,900,10,1,900,0\nVGPU,1,1,4,0,1,4,0\n"
    )
    files = [
        write(tmp_path, "h.json", HYPERVISORS),
        write(tmp_path, "cmp1.csv", inventory),
        write(
            tmp_path,
            "a.json",
            {"name": "fast", "availability_zone": "az2", "hosts": ["cmp1"], "properties": {"ssd": "true"}},
        ),
    ]
    engine, _, report = taken(tmp_path, "openstack", *files, cpu_ratio=3.0)
    stock = {
        name: (each.total, each.reserved, each.allocation_ratio)
        for name, (each, _) in engine.fleet.inventory("cmp1.example").items()
    }
    assert stock["VCPU"] == (16, 1, 2.0)
    assert stock["DISK_GB"] == (900, 10, 1.0)
    assert engine.fleet.inventory("cmp0.example")["VCPU"][0].allocation_ratio == 3.0
    assert why(report) == {"VGPU": "only VCPU, MEMORY_MB and DISK_GB of hosts are taken"}


def test_hypervisors_without_sizes_are_dropped_with_what_helps(tmp_path: Path) -> None:
    file = write(tmp_path, "h.json", [*HYPERVISORS, {"Hypervisor Hostname": "new", "vCPUs": None, "Memory MB": None}])
    _, _, report = taken(tmp_path, "openstack", file)
    assert "2.87" in why(report)["new"]


def test_rvtools_tells_what_is_dropped_and_why(tmp_path: Path) -> None:
    files = [write(tmp_path, "vHost.csv", ESX), write(tmp_path, "vInfo.csv", VMS)]
    engine, asked, report = taken(tmp_path, "rvtools", *files, anti_affinity=["apart"])
    assert (report.hosts, report.guests, report.groups) == (3, 1, 1)
    assert why(report) == {
        "b": "it is powered off (--powered-off takes it)",
        "c": "it is a template",
        "d": "CPUs is 'x', not a number",
    }
    assert [(each.file, each.line) for each in report.dropped] == [("vInfo.csv", 3), ("vInfo.csv", 4), ("vInfo.csv", 5)]
    assert engine.fleet.inventory("esx1")["VCPU"][0].total == 32, "two threads a core"
    assert engine.fleet.inventory("esx3")["VCPU"][0].total == 16
    assert not engine.fleet.column("service_up")[engine.fleet.row("esx2")], "in maintenance mode"
    assert asked[f"{UUID}1"].availability_zone == "DC/A"
    assert taken(tmp_path, "rvtools", *files, powered_off=True)[2].guests == 2
    with pytest.raises(InvalidValue, match="cluster rule 'nope'"):
        taken(tmp_path, "rvtools", *files, affinity=["nope"])


def test_a_workbook_and_what_a_german_excel_saves_are_the_same_fleet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, text in (("vHost", ESX), ("vInfo", VMS)):
        sheet = book.create_sheet(title)
        for line in text.splitlines():
            sheet.append(line.split(","))
    data = io.BytesIO()
    book.save(data)
    workbook = write(tmp_path, "export.bin", data.getvalue())
    german = [
        write(tmp_path, "h.csv", ("\ufeff" + ESX.replace(",", ";")).encode()),
        write(
            tmp_path,
            "i.csv",
            gzip.compress(VMS.replace(",", ";").replace("False", "FALSCH").replace("True", "WAHR").encode("utf-16")),
        ),
    ]
    first = taken(tmp_path, "rvtools", workbook)
    second = taken(tmp_path, "rvtools", *german)
    assert first[0].fleet.column("free_ram_mb").tolist() == second[0].fleet.column("free_ram_mb").tolist()
    assert first[1] == second[1]
    assert why(first[2]) == why(second[2])


def test_proxmox_resources_become_a_fleet(tmp_path: Path) -> None:
    resources = [
        {"type": "node", "node": "pve1", "status": "online", "maxcpu": 16, "maxmem": 64 << 30},
        {"type": "node", "node": "pve2", "status": "offline", "maxcpu": 16, "maxmem": 64 << 30},
        {"type": "qemu", "id": "qemu/100", "node": "pve1", "status": "running", "maxcpu": 4, "maxmem": 8 << 30},
        {"type": "lxc", "id": "lxc/101", "node": "pve1", "status": "stopped", "maxcpu": 1, "maxmem": 1 << 30},
        {
            "type": "qemu",
            "id": "qemu/9000",
            "node": "pve1",
            "status": "stopped",
            "template": 1,
            "maxcpu": 1,
            "maxmem": 1,
        },
        {"type": "storage", "id": "storage/pve1/local", "node": "pve1"},
    ]
    file = write(tmp_path, "r.json", {"data": resources})
    engine, _, report = taken(tmp_path, "proxmox", file)
    assert (report.hosts, report.guests) == (2, 1)
    assert engine.fleet.column("free_ram_mb").tolist() == [57_344.0, 65_536.0]
    assert set(why(report).values()) == {
        "it does not run (--powered-off takes it)",
        "it is a template",
        "it is of type storage",
    }
    assert answered({"vcpus": "2", "memory_mb": "1024", "proxmox": str(file)})["host"] == "pve1", "the other is offline"
    with pytest.raises(NoValidHost):
        answered({"vcpus": "2", "memory_mb": "99999999", "proxmox": str(file)})


def test_powercli_reads_decimal_commas(tmp_path: Path) -> None:
    hosts = write(
        tmp_path, "h.csv", '"Name";"NumCpu";"MemoryTotalGB";"ConnectionState"\n"esx1";"32";"127,5";"Connected"\n'
    )
    guests = write(
        tmp_path,
        "g.csv",
        '#TYPE Selected.VM\n"Name";"PowerState";"NumCpu";"MemoryGB";"VMHost"\n'
        '"vm";"PoweredOn";"4";"16,5";"esx1.corp"\n"off";"PoweredOff";"4";"16,5";"esx1"\n',
    )
    engine, _, report = taken(tmp_path, "powercli", hosts, guests)
    assert engine.fleet.column("free_ram_mb").tolist() == [127.5 * 1_024 - 16.5 * 1_024]
    assert [(each.what, each.line) for each in report.dropped] == [("off", 4)]
    with pytest.raises(InvalidValue, match="no file lists hosts"):
        taken(tmp_path, "powercli", guests)


CAPABILITIES = """<?xml version='1.0'?>
<capabilities><host><topology><cells num='1'><cell id='0'><memory unit='KiB'>67108864</memory>
<cpus num='2'><cpu id='0'/><cpu id='1'/></cpus></cell></cells></topology></host></capabilities>"""
DOMAIN = f"<domain><name>a</name><uuid>{UUID}7</uuid><memory unit='GiB'>4</memory><vcpu>2</vcpu></domain>"


def test_libvirt_hosts_and_guests_are_read(tmp_path: Path) -> None:
    stats = (
        "Domain: 'b'\n  state.state=1\n  balloon.maximum=2097152\n  vcpu.current=1\n\nDomain: 'c'\n  state.state=5\n"
    )
    files = [
        write(tmp_path, "kvm1.xml", CAPABILITIES),
        write(tmp_path, "a.xml", DOMAIN),
        write(tmp_path, "stats", stats),
    ]
    engine, _, report = taken(tmp_path, "libvirt", *files)
    assert (report.hosts, report.guests) == (1, 2)
    assert engine.fleet.column("free_ram_mb").tolist() == [65_536.0 - 4_096 - 2_048]
    assert why(report) == {"c": "it does not run"}
    assert why(read_files("libvirt", (files[1],)).report) == {"a": "no capabilities of a host came before it"}


@pytest.mark.parametrize(
    "xml",
    [
        '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]><domain><name>&e;</name></domain>',
        '<!DOCTYPE d [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><domain><name>&b;</name></domain>',
        "<domain><name>",
        "<other/>",
    ],
)
def test_xml_that_is_not_safe_or_not_libvirts_is_refused(tmp_path: Path, xml: str) -> None:
    with pytest.raises(InvalidValue, match=r"read safely|not capabilities"):
        read_files("libvirt", (write(tmp_path, "x.xml", xml),))


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("openstack", "a,b\n1,2\n", "none of the listings"),
        ("openstack", "", "is empty"),
        ("openstack", "{broken", "not JSON"),
        ("openstack", "[1, 2]", "holds no objects"),
        ("rvtools", "a,b\n1,2\n", "vHost"),
        ("proxmox", "a,b\n1,2\n", "resources of a cluster"),
        ("openstack", b"\x1f\x8bnot gzip", "damaged"),
        ("openstack", b"PK\x03\x04not a workbook", "not a workbook"),
    ],
)
def test_a_file_of_another_kind_is_an_error_that_names_it(tmp_path: Path, kind: Any, text: Any, problem: str) -> None:
    file = write(tmp_path, "file", text)
    with pytest.raises(InvalidValue, match=problem):
        taken(tmp_path, kind, file)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cannot be read"):
        taken(tmp_path, "proxmox", tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "comma", "value"),
    [
        ("16,5", True, 16.5),
        ("1.234,5", True, 1234.5),
        ("1,234.5", False, 1234.5),
        ("1 024", False, 1024.0),
        ("7", True, 7.0),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, comma: bool, value: float) -> None:
    assert number(text, comma=comma) == value


def test_damaged_and_cut_off_zstandard_is_refused(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    one, two = (zstandard.ZstdCompressor(write_checksum=True).compress(part) for part in (b"a;b\n" * 99_000, b"1;2\n"))
    assert len(tables(write(tmp_path, "two", one + two))[0].lines) == 99_000
    damaged = bytearray(one)
    damaged[len(one) // 2] ^= 0xFF
    for content in (one[:-1], one[: len(one) // 2], one + two[:-3], bytes(damaged)):
        with pytest.raises(InvalidValue, match="damaged"):
            tables(write(tmp_path, "cut", content))


def test_json_lines_parquet_and_zstandard_are_read_by_content(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(each) for each in HYPERVISORS)
    assert len(tables(write(tmp_path, "a", lines))[0].lines) == 3
    zstandard = pytest.importorskip("zstandard")
    assert len(tables(write(tmp_path, "b", zstandard.compress(lines.encode())))[0].lines) == 3
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(HYPERVISORS), tmp_path / "c")
    assert tables(tmp_path / "c")[0].lines[1].text("Hypervisor Hostname") == "cmp1.example"
    assert decoded("Zürich".encode("cp1252")) == "Zürich"


def test_best_host_speaks_flat_json_and_fails_with_an_exit_code(tmp_path: Path) -> None:
    taken(tmp_path, "openstack", write(tmp_path, "h.json", HYPERVISORS))

    def ask(query: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("hostler")), "best-host"]
        return subprocess.run(command, input=query, capture_output=True, text=True, check=False)

    found = ask(json.dumps({"vcpus": "2", "memory_mb": "2048", "state": str(tmp_path / "state")}))
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout)
    assert answer["host"] == "cmp0.example"
    assert all(isinstance(value, str) for value in answer.values())
    for query, problem in (
        ("[]", "one JSON object of strings"),
        ('{"vcpus": 2}', "vcpus must be a string"),
        ('{"vcpu": "2"}', "vcpus"),
        ('{"vcpus": "2"}', "one of state"),
        (json.dumps({"vcpus": "-2", "state": str(tmp_path / "state")}), "whole number"),
        (json.dumps({"vcpus": "2000", "state": str(tmp_path / "state")}), "No valid host"),
    ):
        refused = ask(query)
        assert refused.returncode == 1
        assert problem in refused.stderr
        assert refused.stdout == ""


HOSTS = "Host,Datacenter,Cluster,HT Active,# Cores,# Memory,VI SDK Server\n"
GUESTS = "VM,Powerstate,CPUs,Memory,Datacenter,Cluster,Host,VI SDK Server\n"


def rvtools(folder: Path, hosts: str, guests: str = GUESTS) -> tuple[Any, ImportReport]:
    files = write(folder, "hosts.csv", hosts), write(folder, "guests.csv", guests)
    cloud = read_files("rvtools", files)
    cloud.fleet()
    return cloud, cloud.report


def test_hosts_and_clusters_of_one_name_in_two_vcenters_stay_apart(tmp_path: Path) -> None:
    hosts = f"{HOSTS}esx1,DC,A,True,8,65536,vc1\nesx1,DC,A,True,8,65536,vc2\nesx2,DC,B,True,8,65536,vc2\n"
    guests = f"{GUESTS}web,poweredOn,2,4096,DC,A,esx1,vc1\nweb,poweredOn,2,4096,DC,A,esx1,vc2\n"
    cloud, report = rvtools(tmp_path, hosts, guests)
    assert {host.name: host.zone for host in cloud.hosts.values()} == {
        "vc1/esx1": "vc1/DC/A",
        "vc2/esx1": "vc2/DC/A",
        "esx2": "DC/B",
    }
    assert [(guest.host, guest.zone) for guest in cloud.guests] == [("vc1/esx1", "vc1/DC/A"), ("vc2/esx1", "vc2/DC/A")]
    assert (report.guests, report.dropped) == (2, [])


@pytest.mark.parametrize(
    ("cpus", "memory", "dropped"),
    [("4", "8.192", False), ("4", '"8,192"', False), ("0", "8192", True), ("", "8192", True), ("4", "0", True)],
)
def test_guests_without_sizes_are_dropped_and_thousands_are_read(
    tmp_path: Path, cpus: str, memory: str, dropped: bool
) -> None:
    hosts = f"{HOSTS}esx1,DC,A,True,8,65536,vc1\n"
    cloud, report = rvtools(tmp_path, hosts, f"{GUESTS}web,poweredOn,{cpus},{memory},DC,A,esx1,vc1\n")
    if dropped:
        assert [(each.line, each.why) for each in report.dropped] == [(2, "it has no CPUs or no memory")]
    else:
        assert [(guest.flavor.vcpus, guest.flavor.memory_mb) for guest in cloud.guests] == [(4, 8192)]


def test_headers_of_another_case_and_titles_above_them_are_read(tmp_path: Path) -> None:
    hosts = "RVTools export\n\nhost,datacenter,cluster,ht active,# cores,# memory\nesx1,DC,A,True,8,65536\n"
    cloud, _ = rvtools(tmp_path, hosts, GUESTS.upper() + "web,poweredOn,2,4096,DC,A,esx1,\n")
    assert [(host.vcpus, host.line.line) for host in cloud.hosts.values()] == [(16, 4)]
    assert len(cloud.guests) == 1


def test_what_is_not_read_and_what_may_be_in_another_unit_is_said(tmp_path: Path) -> None:
    guests = "VM;Einschaltstatus;CPUs;Arbeitsspeicher;Host\nweb;poweredOn;4;8192;esx1\n"
    _, report = rvtools(tmp_path, f"{HOSTS}esx1,DC,A,True,8,64,vc1\n", guests)
    assert any("nothing is read of guests.csv" in note for note in report.notes)
    assert any("no host has more than 64 MiB" in note for note in report.notes)
    with pytest.raises(InvalidValue, match="no column # Cores"):
        rvtools(tmp_path, "Host,# Memory\nesx1,65536\n")


def test_guests_of_one_name_are_several_and_states_are_told(tmp_path: Path) -> None:
    hosts = write(tmp_path, "h.csv", "Name;NumCpu;MemoryTotalGB\nesx1;16;128\nesx2;16;128\n")
    guests = "Name;NumCpu;MemoryGB;VMHost;PowerState\na;2;4,5;esx1;PoweredOn\na;2;4,5;esx2;PoweredOn\n"
    cloud = read_files("powercli", (hosts, write(tmp_path, "g.csv", guests + "b;2;4;esx1;Suspended\n")))
    cloud.fleet()
    assert (cloud.report.guests, [each.why for each in cloud.report.dropped]) == (
        2,
        ["it is suspended (--powered-off takes it)"],
    )
    untold = read_files("powercli", (hosts, write(tmp_path, "n.csv", "Name;NumCpu;MemoryGB;VMHost\na;2;4;esx1\n")))
    assert len(untold.guests) == 1
    assert any("does not tell which guests run" in note for note in untold.report.notes)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (b"", "got nothing"),
        (b"[]", "got something else"),
        (b'{"vcpus": 4, "state": "x"}', "vcpus must be a string, got 4"),
        (b'{"cpu": "4"}', "unknown field 'cpu'"),
        (b"[" * 100_000, "one JSON object of strings"),
    ],
)
def test_a_query_that_is_no_flat_json_of_strings_says_what_it_is(query: bytes, problem: str) -> None:
    with pytest.raises(HostlerError, match=problem):
        parsed_query(query)


def test_best_host_refuses_bytes_that_are_no_text() -> None:
    for query in (b'{"vcpus": "\xff"}', b"\xff\xfe{", b"[" * 100_000):
        with pytest.raises(InvalidValue, match="one JSON object of strings"):
            parsed_query(query)


def test_a_proxmox_node_of_which_no_size_is_told_is_dropped_with_its_state(tmp_path: Path) -> None:
    nodes = [
        {"type": "node", "node": "pve1", "status": "online", "maxcpu": 8, "maxmem": 2**35},
        {"type": "node", "node": "pve2", "status": "offline"},
    ]
    report = taken(tmp_path, "proxmox", write(tmp_path, "r.json", json.dumps(nodes)))[2]
    assert why(report) == {"pve2": "it was offline, and the export does not tell its size"}


def test_domains_of_one_file_are_reported_by_their_lines(tmp_path: Path) -> None:
    shape = "<cpu><topology sockets='1' cores='4' threads='2'/></cpu>"
    cell = "<cell id='0'><memory unit='GiB'>32</memory><cpus><cpu id='0'/></cpus></cell>"
    text = f"<capabilities><host>{shape}<topology><cells>{cell}</cells></topology></host></capabilities>"
    host = write(tmp_path, "kvm1.xml", text)
    bad = "<domain type='kvm'><name>bad</name><memory unit='parsec'>4</memory><vcpu>1</vcpu></domain>"
    good = "<domain type='kvm'><name>good</name><memory unit='GiB'>4</memory><vcpu>1</vcpu></domain>"
    report = taken(tmp_path, "libvirt", host, write(tmp_path, "d.xml", f"<domains>\n{good}\n\n{bad}\n</domains>"))[2]
    assert (report.hosts, report.guests) == (1, 1)
    assert [(each.what, each.line) for each in report.dropped] == [("bad", 4)]
