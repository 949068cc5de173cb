"""What the driver hmc reads and writes agrees with what consoles answered. The package pypowervm has recorded answers
among its tests, and the order of elements in its source, both of which are read here; nothing of it is run."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

import httpx

from hostler.drivers.compute import hmc_api, hmc_values
from hostler.drivers.protocol import Conflict, GuestSpec, Mark, Permanent, Transient

from .hmc_answers import UOM, Partition, etag_of
from .hmc_console import SCHEMA, Console

T = TypeVar("T")
SPEC = importlib.util.find_spec("pypowervm")
if SPEC is None or SPEC.origin is None:
    pytest.skip("pypowervm, with recorded answers, is not installed (pip install --no-deps)", allow_module_level=True)
PACKAGE = Path(SPEC.origin).parent


pytestmark = pytest.mark.usefixtures("no_collections")


def recorded(name: str) -> str:
    """The text of the first answer in a file."""
    text = (PACKAGE / "tests" / "data" / name).read_text(encoding="utf-8")
    found = re.search(r"BODY\{(.*?)END OF SECTION\}", text, re.DOTALL)
    return (found[1] if found else text).strip()


def read(name: str, make: Callable[[ElementTree.Element], T]) -> list[T]:
    return [make(entry) for entry in hmc_values.entries(hmc_values.parsed(recorded(name).encode()))]


def texts(name: str, element: str) -> list[str]:
    """The texts of an element in the order of a file, without reading its XML."""
    return [each.strip() for each in re.findall(rf"<{element}[ >][^<]*?>?([^<>]*)</{element}>", recorded(name))]


@pytest.mark.parametrize("name", ["lpar.txt", "fake_lpar_feed.txt", "lpar_ibmi.txt", "fake_vios_feed.txt"])
def test_partitions_are_read(name: str) -> None:
    found = read(name, hmc_values.partition_of)
    assert [each.name for each in found] == texts(name, "PartitionName")
    assert [each.state for each in found] == texts(name, "PartitionState")
    assert [each.key for each in found] == texts(name, "PartitionUUID")
    assert {each.state for each in found} <= set(hmc_values.STATES)
    assert [each.etag for each in found if each.etag] == texts(name, "etag:etag")
    assert all(each.system in recorded(name) and len(each.system) == 36 for each in found)
    assert all(each.mark is None for each in found)
    assert all(each.hundredths <= 100 * each.vcpus for each in found)


@pytest.mark.parametrize(
    ("name", "key", "size"),
    [
        ("lpar.txt", "z3-9-5-126-127-00000001", ("off", 2, 150, 512)),  # 1 and 0.5 of it at present
        ("lpar.txt", "z3-9-5-127-7-00000029", ("on", 1, 100, 512)),  # a processor of its own
        ("lpar.txt", "linux1", ("off", 0, 0, 0)),  # without any amounts
        ("fake_lpar_feed.txt", "PowerVC_Import_RHEL59", ("on", 2, 20, 8_192)),
        ("fake_lpar_feed.txt", "vm_2-9093a051-00000015", ("error", 1, 50, 2_048)),
        ("fake_vios_feed.txt", "nimbus-ch03-p2-vios1", ("on", 2, 100, 24_576)),
    ],
)
def test_sizes_of_partitions_are_read(name: str, key: str, size: tuple[str, int, int, int]) -> None:
    (found,) = [each for each in read(name, hmc_values.partition_of) if each.name == key]
    guest = hmc_values.guest_of(found, "node")
    assert (guest.state, guest.vcpus, found.hundredths, guest.memory_mb) == size
    assert (guest.name, guest.mark, guest.node) == (key, None, "node")


@pytest.mark.parametrize(
    ("name", "key", "size"),
    [
        ("fake_managedsystem.txt", "Server-8247-21L-SN9999999", (1_000, 126_208, 256, 940, 38_912)),
        ("managedsystem.txt", "HV4", (50_000, 5_242_880, 64, 0, 128)),
        ("managedsystem.txt", "Server-8246-L1C-SN0604CAA", (800, 97_024, 256, 40, 8_192)),
        ("sys_with_sriov.txt", "z1403ce-8408-E8E-SN10678CV", (4_000, 516_096, 256, 400, 25_088)),
    ],
)
def test_managed_systems_are_read(name: str, key: str, size: tuple[int, ...]) -> None:
    (found,) = [each for each in read(name, hmc_values.system_of) if each.name == key]
    amounts = (found.hundredths, found.memory_mb, found.block_mb, found.taken_hundredths, found.taken_mb)
    assert (amounts, found.up) == (size, True)


def test_networks_and_adapters_are_read() -> None:
    (network,) = read("fake_virtual_network_feed.txt", hmc_values.network_of)
    assert (network.name, network.port) == ("VLAN2227-ETHERNET0", ("ec8aaa54-9837-3c23-a541-a4e4be3ae489", 2_227))
    assert network.switch.startswith("https://")
    assert read("cna_feed.txt", hmc_values.port_of)[0] == ("ec8aaa54-9837-3c23-a541-a4e4be3ae489", 1)


def test_a_session_and_the_console_are_read() -> None:
    token = hmc_values.text_in(hmc_values.parsed(recorded("logon.xml").encode()), "X-API-Session", hmc_values.WEB)
    assert (token[:12], len(token)) == ("PUIoR6x0kP6f", 236)
    assert read("managementconsole.txt", hmc_values.content_of)[0].get("schemaVersion") == "V1_0"


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("job_response_completed_ok.txt", "COMPLETED_OK", None),
        ("job_response_completed_failed.txt", "COMPLETED_WITH_ERROR", Conflict),
        ("job_response_exception.txt", "FAILED_BEFORE_COMPLETION", Permanent),
    ],
)
def test_jobs_are_read(name: str, status: str, kind: type[Exception] | None) -> None:
    (job,) = read(name, hmc_values.job_of)
    assert (job.status, job.status in hmc_api.DONE) == (status, kind is None)
    assert job.key in recorded(name)
    if kind is not None:
        error = hmc_api.error_of_job("PowerOff", job)
        assert type(error) is kind
        assert error.backend_code in ("HSCL05DF", "FAILED_BEFORE_COMPLETION")
        assert "PowerOff: " in str(error)


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [("fake_httperror.txt", 500, "busy"), ("fake_httperror_service_unavail.txt", 503, "Test error")],
)
def test_errors_are_read(name: str, status: int, text: str) -> None:
    request = httpx.Request("PUT", "https://hmc:12443/rest/api/uom/SharedStoragePool/x")
    error = hmc_api.error_of(httpx.Response(status, content=recorded(name).encode(), request=request))
    assert (type(error), error.backend_code) == (Transient, str(status))
    assert text in str(error)


# What is sent.


def names_in(root: ElementTree.Element) -> dict[str, list[str]]:
    """Names of the elements within each element that has some."""
    found = {}
    for each in root.iter():
        if len(each):
            found[each.tag.rpartition("}")[2]] = [child.tag.rpartition("}")[2] for child in each]
    return found


def in_order(names: list[str], order: list[str]) -> bool:
    """True if names come in an order, as far as both have them."""
    common = [each for each in names if each in order]
    return common == [each for each in order if each in common]


def test_a_new_partition_has_its_elements_in_the_order_of_recorded_ones() -> None:
    text = (PACKAGE / "tests" / "data" / "lpar_builder.txt").read_text(encoding="utf-8")
    known = re.search(r"SECTION:shared_lpar\n(.*?)END OF SECTION", text, re.DOTALL)
    assert known is not None
    order = names_in(ElementTree.fromstring(known[1]))
    want = GuestSpec(Mark("a", "8702dd36-e405-407f-bd75-224babc04da5", 1), "web", "node", 2, 1_024)
    sent = ElementTree.fromstring(hmc_values.partition_document(want, 1_024, 100, 64))
    assert sent.tag == f"{{{UOM}}}LogicalPartition"
    for name, names in names_in(sent).items():
        assert in_order(names, order[name]), name
        assert set(names) - set(order[name]) <= {"Description"}


def tuples_of(file: str) -> Mapping[str, list[str]]:
    """Tuples of texts that a module of the package has, by their names."""
    found: dict[str, Any] = {}
    for node in ast.parse((PACKAGE / "wrappers" / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value
            if isinstance(value, ast.Constant):
                found[node.targets[0].id] = value.value
            elif isinstance(value, ast.Tuple):
                names = [each.id for each in value.elts if isinstance(each, ast.Name)]
                found[node.targets[0].id] = [found.get(name, name) for name in names]
    return {name: value for name, value in found.items() if isinstance(value, list)}


def test_the_stand_in_demands_the_order_of_elements_that_the_package_knows() -> None:
    known = tuples_of("base_partition.py")
    orders = {
        "LogicalPartition": known["BP_EL_ORDER"],
        "PartitionMemoryConfiguration": known["_MEM_EL_ORDER"],
        "PartitionProcessorConfiguration": known["_PC_EL_ORDER"],
        "SharedProcessorConfiguration": known["_SPC_EL_ORDER"],
        "ClientNetworkAdapter": tuples_of("network.py")["_VADPT_EL_ORDER"],
    }
    for name, order in orders.items():
        assert in_order(list(SCHEMA[name]), order), name
    assert "Description" in known["BP_EL_ORDER"]


def test_a_recorded_partition_is_sent_back_with_another_size_only() -> None:
    before = {each.name: each for each in read("fake_lpar_feed.txt", hmc_values.partition_of)}[
        "RHEL_1-0c472430-00000001"
    ]
    old = ElementTree.tostring(before.element, encoding="unicode")
    sent = ElementTree.fromstring(hmc_values.resized_document(before, 3, 4_096, 60))
    was = ElementTree.fromstring(old)
    assert [each.tag for each in sent.iter()] == [each.tag for each in was.iter()]
    changed = {
        new.tag.rpartition("}")[2] for new, one in zip(sent.iter(), was.iter(), strict=True) if new.text != one.text
    }
    assert changed == {
        f"{bound}{what}"
        for bound in ("Desired", "Maximum", "Minimum")
        for what in ("Memory", "ProcessingUnits", "VirtualProcessors")
    }
    entry = ElementTree.Element(f"{{{hmc_values.ATOM}}}entry")
    ElementTree.SubElement(entry, f"{{{hmc_values.ATOM}}}content").append(sent)
    after = hmc_values.partition_of(entry)
    assert (after.vcpus, after.hundredths, after.memory_mb) == (3, 60, 4_096)
    assert (after.key, after.name, after.system, after.state) == (before.key, before.name, before.system, before.state)


def test_what_the_stand_in_answers_has_elements_that_recorded_answers_have() -> None:
    console = Console()
    made = console.make("www", description="d")
    shown = names_in(ElementTree.fromstring(console._shown(made)))
    known = names_in(ElementTree.fromstring(recorded("lpar.txt").encode()))
    for name in ("LogicalPartition", "PartitionMemoryConfiguration", "SharedProcessorConfiguration", "AtomID"):
        assert set(shown.get(name, [])) - {"Description"} <= set(known.get(name, [])), name
    assert isinstance(made, Partition)
    assert etag_of(made) in console._shown(made)
