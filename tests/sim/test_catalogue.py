"""Catalogues of instance types, and traces that name flavors of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.sim.questions.tasks import Source, execute
from hostler.sim.run.fleet_plan import FleetPlan, Hardware
from hostler.sim.trace.catalogue import read_flavors
from hostler.sim.trace.files import read_trace

from .values import plan, task, written

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "flavor_catalogs"
CATALOGUE = "name,class,cpus,ram,disk,GPU\nsmall,x,2,4096,20,0\nlarge,x,4,8192,,2\n"


def test_flavors_have_their_sizes_and_gpus(tmp_path: Path) -> None:
    flavors = read_flavors(Path(written(tmp_path, CATALOGUE)))
    assert [(f.vcpus, f.memory_mb, f.root_gb, len(f.extra_specs)) for f in flavors.values()] == [
        (2, 4096, 20, 0),
        (4, 8192, 0, 3),
    ]


@pytest.mark.skipif(not DATA.exists(), reason="the catalogues (shared/data/flavor_catalogs) are not here")
@pytest.mark.parametrize(
    ("name", "count"), [("aws_instance_types", 1108), ("azure_instance_types", 1370), ("openstack_scs_flavors", 31)]
)
def test_public_catalogues_are_read_as_they_are(name: str, count: int) -> None:
    assert len(read_flavors(DATA / f"{name}.csv.gz")) == count


def test_a_trace_may_name_flavors(tmp_path: Path) -> None:
    catalogue = written(tmp_path, CATALOGUE, "flavors.csv")
    trace = written(tmp_path, "arrival_s,flavor,disk\n0,small,\n0,small,\n300,small,\n")
    workload = read_trace(Path(trace), None, read_flavors(Path(catalogue)))
    assert [spec.flavor.name for spec in workload.specs] == ["small"]
    hosts = FleetPlan(hardware=(Hardware(name="small", count=3, vcpus=4, memory_gb=8, disk_gb=100),))
    named = msgspec.structs.replace(task(trace), plan=hosts, source=Source(trace=trace, flavors=catalogue))
    assert execute(named).requests == 3
    without_disk = msgspec.structs.replace(named, plan=plan())
    with pytest.raises(HostlerError, match="fits no host, not even an empty one"):
        execute(without_disk)
    with pytest.raises(HostlerError, match="line 2"):
        read_trace(Path(written(tmp_path, "arrival_s,flavor\n0,tiny\n")), None, read_flavors(Path(catalogue)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column"),
        ("name,vcpus,memory_mb\n", "no flavors"),
        ("name,vcpus,memory_mb\na,1,1\na,1,1\n", "twice"),
        ("name,vcpus,memory_mb\na,-1,1\n", "vcpus is '-1'"),
        ("name,vcpus\na,1\n", "no column memory_mb"),
    ],
)
def test_catalogues_that_make_no_sense_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(HostlerError, match=words):
        read_flavors(Path(written(tmp_path, text)))


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no such file"):
        read_flavors(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "text",
    [
        """"ID","Name","RAM","Disk","VCPUs","Properties"\n"1","m1",2048,20,1,"{'hw:cpu_policy': 'dedicated'}"\n""",
        '[{"Name": "m1", "RAM": 2048, "Disk": 20, "VCPUs": 1, "Properties": {"hw:cpu_policy": "dedicated"}}]',
        "name,vcpus,ram,disk,properties\nm1,1,2048,20,hw:cpu_policy='dedicated'\n",
    ],
)
def test_openstacks_flavor_list_is_a_catalogue_with_extra_specs(tmp_path: Path, text: str) -> None:
    (tmp_path / "flavors").write_text(text)
    (flavor,) = read_flavors(tmp_path / "flavors").values()
    assert (flavor.name, flavor.vcpus, flavor.memory_mb, flavor.root_gb) == ("m1", 1, 2048, 20)
    assert flavor.extra_specs == {"hw:cpu_policy": "dedicated"}
