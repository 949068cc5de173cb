"""Values of the REST API of a Hardware Management Console of IBM Power: entries of its Atom feeds, which are read, and
documents that it is sent. The schema fixes the order of elements in a document; amounts of processing units are in
hundredths, the smallest step that they have."""

from __future__ import annotations

import base64
import re
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final, NamedTuple, TypeAlias
from xml.etree import ElementTree

from ..protocol import Guest, GuestSpec, GuestState, Mark, Node

UOM: Final = "http://www.ibm.com/xmlns/systems/power/firmware/uom/mc/2012_10/"
"""Namespace of managed objects."""
WEB: Final = "http://www.ibm.com/xmlns/systems/power/firmware/web/mc/2012_10/"
"""Namespace of sessions, jobs and errors."""
ATOM: Final = "http://www.w3.org/2005/Atom"
for _prefix, _space in (("uom", UOM), ("web", WEB)):
    ElementTree.register_namespace(_prefix, _space)
SCHEMA: Final = "V1_0"
"""Version of the schema that documents are written in: the first one, which every console takes."""

STATES: Final[Mapping[str, GuestState]] = {
    "error": "error",
    "hardware discovery": "building",
    "migrating not active": "off",
    "migrating running": "on",
    "not activated": "off",
    "not available": "error",
    "open firmware": "on",
    "resuming": "paused",
    "running": "on",
    "shutting down": "on",
    "starting": "building",
    "suspended": "paused",
    "suspending": "paused",
}
"""PartitionState of partitions; any other is an error."""
SILENT: Final = "not available"
"""State of partitions of a managed system that is off, or does not answer."""
PASSING: Final = frozenset({"hardware discovery", "resuming", "shutting down", "starting", "suspending"})
"""States that end by themselves."""
MOST: Final = 10**12
"""The largest amount that is read; all of a managed system is less."""
UP: Final = "operating"
"""State of a managed system that runs partitions."""
ACTIVE: Final = "active"
"""ResourceMonitoringControlState of a partition whose operating system takes orders."""

LONGEST_DESCRIPTION: Final = 200
"""Characters of a description that are written; the limit of the console is not documented."""
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
"""What the console refuses in a description (HSCLC63B)."""


class Link(NamedTuple):
    """A reference to another object."""

    href: str


Parts: TypeAlias = "Sequence[tuple[str, str | Link | Parts]]"
"""Elements of a document in their order, each with its text, its reference or its own elements."""


class System(NamedTuple):
    """A managed system. ``hundredths`` of processing units and ``memory_mb``: what partitions can have, without what
    its hypervisor takes; ``taken_*``: what of that is not available now, by active partitions or for another reason,
    such as a pool of memory. ``block_mb``, of which the memory of a partition is a multiple."""

    key: str
    name: str
    state: str
    hundredths: int
    memory_mb: int
    taken_hundredths: int
    taken_mb: int
    block_mb: int

    @property
    def up(self) -> bool:
        """True while it runs partitions."""
        return self.state == UP

    def rounded(self, memory_mb: int) -> int:
        """The memory that a partition gets which needs so much."""
        return -(-memory_mb // self.block_mb) * self.block_mb


class Partition(NamedTuple):
    """A logical partition. ``vcpus``: its virtual processors, or processors that it has for itself; ``hundredths``: of
    processing units that it is entitled to. ``etag``: of what was read; ``element``: all of that."""

    key: str
    name: str
    system: str
    state: str
    vcpus: int
    hundredths: int
    memory_mb: int
    description: str
    monitored: bool
    etag: str
    element: ElementTree.Element

    @property
    def off(self) -> bool:
        """True if it is not activated."""
        return STATES.get(self.state) == "off"

    @property
    def mark(self) -> Mark | None:
        """The mark in its description; None if its name is not that of the mark's uuid: a copy, made by others."""
        mark = Mark.parse(self.description.partition(" ")[0])
        return mark if mark is not None and self.name == name_of(mark.uuid) else None


class Network(NamedTuple):
    """A virtual network of a managed system. ``switch``: the reference to its virtual switch."""

    name: str
    vlan: int
    switch: str

    @property
    def port(self) -> tuple[str, int]:
        """What an adapter on it is connected to: the id of the switch, and the VLAN."""
        return _last_part(self.switch), self.vlan


class Job(NamedTuple):
    """A job. ``results``: what it says of its outcome; ``text``: why it failed."""

    key: str
    status: str
    results: Mapping[str, str]
    text: str


# Names.


def name_of(uuid: str) -> str:
    """The name of a guest's partition: its uuid in 22 characters of base 64 in place of 36, as a name has 31 at most,
    of letters, digits and few others, and is unique on a managed system."""
    return f"hostler-{base64.urlsafe_b64encode(uuids.UUID(uuid).bytes).decode().rstrip('=')}"


def description_of(mark: Mark, name: str) -> str:
    """The description of a partition: the mark, and the name that users gave the guest, as far as it can be written."""
    return f"{mark} {_UNPRINTABLE.sub('_', name)}"[:LONGEST_DESCRIPTION].rstrip()


# Reading.


def parsed(content: bytes) -> ElementTree.Element:
    """The root of a document. ValueError for a text that is not XML in UTF-8, or has a document type, whose entities
    could make a short document a long one."""
    text = content.decode("utf-8")
    if "<!DOCTYPE" in text:
        raise ValueError("the document has a document type")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"the document is no XML: {error}") from None


def entries(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The entries of a feed, or the entry that a document is. ValueError for any other document, which must not pass
    for an empty feed."""
    if root.tag not in (f"{{{ATOM}}}entry", f"{{{ATOM}}}feed"):
        raise ValueError(f"{root.tag} is neither a feed nor an entry")
    yield from [root] if root.tag == f"{{{ATOM}}}entry" else root.iterfind(f"{{{ATOM}}}entry")


def content_of(entry: ElementTree.Element) -> ElementTree.Element:
    """The object in an entry. ValueError if there is none."""
    content = entry.find(f"{{{ATOM}}}content")
    if content is None or not len(content):
        raise ValueError("an entry has no content")
    return content[0]


def found_in(element: ElementTree.Element, path: str, space: str = UOM) -> ElementTree.Element | None:
    """An element by the names of those that it is in."""
    return element.find("/".join(f"{{{space}}}{name}" for name in path.split("/")))


def text_in(element: ElementTree.Element, path: str, space: str = UOM) -> str:
    """The text of an element; nothing if there is none."""
    found = found_in(element, path, space)
    return "" if found is None else (found.text or "").strip()


def _number(element: ElementTree.Element, path: str, scale: int = 1, *, up: bool = True) -> int:
    """A number, times ``scale``, as a whole one; 0 if there is none, or one below. ValueError for other texts, and for
    more than MOST."""
    text = text_in(element, path)
    try:
        value = Decimal(text or "0") * scale
        if value <= MOST:
            return max(0, int(value.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR)))
    except (ArithmeticError, ValueError):
        pass
    raise ValueError(f"{path} is no number, or too large a one: {text[:40]}")


def _reference(element: ElementTree.Element, path: str) -> str:
    """The reference that an element is."""
    found = found_in(element, path)
    return "" if found is None else found.get("href", "")


def _last_part(href: str) -> str:
    """The id at the end of a reference."""
    return href.partition("?")[0].rstrip("/").rpartition("/")[2]


def system_of(entry: ElementTree.Element) -> System:
    """A managed system. ValueError if it is none, or lacks what identifies it."""
    element = content_of(entry)
    memory, processors = "AssociatedSystemMemoryConfiguration", "AssociatedSystemProcessorConfiguration"
    configurable = _number(element, f"{memory}/ConfigurableSystemMemory", up=False)
    memory_mb = max(0, configurable - _number(element, f"{memory}/MemoryUsedByHypervisor"))
    hundredths = _number(element, f"{processors}/ConfigurableSystemProcessorUnits", 100, up=False)
    return System(
        key=_key(element),
        name=_needed(element, "SystemName"),
        state=text_in(element, "State"),
        hundredths=hundredths,
        memory_mb=memory_mb,
        taken_hundredths=_taken(element, f"{processors}/CurrentAvailableSystemProcessorUnits", hundredths, 100),
        taken_mb=_taken(element, f"{memory}/CurrentAvailableSystemMemory", memory_mb),
        block_mb=max(1, _number(element, f"{memory}/CurrentLogicalMemoryBlockSize")),
    )


def _taken(element: ElementTree.Element, path: str, whole: int, scale: int = 1) -> int:
    """What is missing of a whole; nothing if it is not told what is available."""
    return max(0, whole - _number(element, path, scale, up=False)) if text_in(element, path) else 0


def partition_of(entry: ElementTree.Element, etag: str = "") -> Partition:
    """A logical partition. ``etag``: that of the answer, for an entry which is not told its own. ValueError if it is
    none, or lacks what identifies it."""
    element = content_of(entry)
    own = found_in(entry, "etag")
    state = text_in(element, "PartitionState")
    vcpus, hundredths = _processors(element, off=STATES.get(state) == "off")
    memory = "PartitionMemoryConfiguration"
    return Partition(
        key=_key(element),
        name=_needed(element, "PartitionName"),
        system=_last_part(_reference(element, "AssociatedManagedSystem")),
        state=state,
        vcpus=vcpus,
        hundredths=hundredths,
        memory_mb=_larger(
            element, f"{memory}/DesiredMemory", f"{memory}/CurrentMemory", off=STATES.get(state) == "off"
        ),
        description=text_in(element, "Description"),
        monitored=text_in(element, "ResourceMonitoringControlState") == ACTIVE,
        etag=((own.text or "").strip() if own is not None else "") or etag,
        element=element,
    )


def _processors(element: ElementTree.Element, *, off: bool) -> tuple[int, int]:
    """Processors of a partition, and hundredths of processing units that it is entitled to."""
    root = "PartitionProcessorConfiguration"
    if text_in(element, f"{root}/HasDedicatedProcessors") == "true":
        wanted = f"{root}/DedicatedProcessorConfiguration/DesiredProcessors"
        count = _larger(element, wanted, f"{root}/CurrentDedicatedProcessorConfiguration/CurrentProcessors", off=off)
        return count, 100 * count
    wanted, now = f"{root}/SharedProcessorConfiguration", f"{root}/CurrentSharedProcessorConfiguration"
    return (
        _larger(element, f"{wanted}/DesiredVirtualProcessors", f"{now}/AllocatedVirtualProcessors", off=off),
        _larger(element, f"{wanted}/DesiredProcessingUnits", f"{now}/CurrentProcessingUnits", off=off, scale=100),
    )


def _larger(element: ElementTree.Element, wanted: str, now: str, *, off: bool, scale: int = 1) -> int:
    """What a partition is to have, or what it has now while it is on, if that is more."""
    amount = _number(element, wanted, scale)
    return amount if off else max(amount, _number(element, now, scale))


def _needed(element: ElementTree.Element, path: str) -> str:
    text = text_in(element, path)
    if not text:
        raise ValueError(f"an entry has no {path}")
    return text


def _key(element: ElementTree.Element) -> str:
    return _needed(element, "Metadata/Atom/AtomID")


def network_of(entry: ElementTree.Element) -> Network:
    """A virtual network. ValueError if it is none."""
    element = content_of(entry)
    switch, vlan = _reference(element, "AssociatedSwitch"), _number(element, "NetworkVLANID")
    return Network(_needed(element, "NetworkName"), vlan, switch)


def port_of(entry: ElementTree.Element) -> tuple[str, int]:
    """What an adapter of a partition is connected to, as ``Network.port``. ValueError if it is none."""
    element = content_of(entry)
    return _last_part(_reference(element, "AssociatedVirtualSwitch/link")), _number(element, "PortVLANID")


def job_of(entry: ElementTree.Element) -> Job:
    """A job. ValueError if it is none."""
    element = content_of(entry)
    key, status = text_in(element, "JobID", WEB), text_in(element, "Status", WEB)
    if not key or not status:
        raise ValueError("an entry is no job")
    results = {
        text_in(each, "ParameterName", WEB): text_in(each, "ParameterValue", WEB)
        for each in element.iterfind(f"{{{WEB}}}Results/{{{WEB}}}JobParameter")
    }
    text = results.get("result") or results.get("ExceptionText") or text_in(element, "ResponseException/Message", WEB)
    return Job(key, status, results, text)


# What the protocol is told.


def node_of(system: System, partitions: Sequence[Partition], per_vcpu: int) -> Node:
    """A managed system as a node, with what its partitions are entitled to, active or not, or what is not available, if
    that is more. ``per_vcpu``: hundredths of processing units that a CPU stands for."""
    hundredths = max(system.taken_hundredths, sum(each.hundredths for each in partitions))
    memory_mb = max(system.taken_mb, sum(each.memory_mb for each in partitions))
    return Node(
        system.name,
        system.hundredths // per_vcpu,
        system.memory_mb,
        0,
        -(-hundredths // per_vcpu),
        memory_mb,
        state="up" if system.up else "down",
        hypervisor="PowerVM",
    )


def guest_of(partition: Partition, node: str) -> Guest:
    """A partition as a guest."""
    mark, name = partition.mark, partition.description.partition(" ")[2]
    return Guest(
        key=partition.key,
        mark=mark,
        name=name if mark is not None else partition.name,
        node=node,
        state=STATES.get(partition.state, "error"),
        vcpus=partition.vcpus,
        memory_mb=partition.memory_mb,
    )


# Documents.


def document(space: str, name: str, parts: Parts) -> bytes:
    """An object as the console takes it: every element that holds others begins with metadata."""
    root = ElementTree.Element(f"{{{space}}}{name}")
    _fill(root, space, parts)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _fill(element: ElementTree.Element, space: str, parts: Parts) -> None:
    element.set("schemaVersion", SCHEMA)
    metadata = ElementTree.SubElement(element, f"{{{space}}}Metadata")
    ElementTree.SubElement(metadata, f"{{{space}}}Atom")
    for name, value in parts:
        child = ElementTree.SubElement(element, f"{{{space}}}{name}")
        if isinstance(value, str):
            child.text = value
        elif isinstance(value, Link):
            ElementTree.SubElement(child, f"{{{space}}}link", {"href": value.href, "rel": "related"})
        else:
            _fill(child, space, value)


def logon_document(user: str, password: str) -> bytes:
    """What begins a session."""
    return document(WEB, "LogonRequest", [("UserID", user), ("Password", password)])


def job_document(operation: str, parameters: Mapping[str, str]) -> bytes:
    """What begins a job on a partition."""
    given: Parts = [
        ("JobParameter", [("ParameterName", name), ("ParameterValue", value)]) for name, value in parameters.items()
    ]
    wanted: Parts = [("OperationName", operation), ("GroupName", "LogicalPartition")]
    return document(WEB, "JobRequest", [("RequestedOperation", wanted), ("JobParameters", given)])


def partition_document(want: GuestSpec, memory_mb: int, hundredths: int, slots: int) -> bytes:
    """A new partition with shared, uncapped processors. ``slots``: of virtual adapters. Its least and most are what it
    is to have, as memory that it could grow to would be taken in part."""
    units, vcpus, memory = f"{hundredths / 100:.2f}", str(want.vcpus), str(memory_mb)
    shared: Parts = [
        ("DesiredProcessingUnits", units),
        ("DesiredVirtualProcessors", vcpus),
        ("MaximumProcessingUnits", units),
        ("MaximumVirtualProcessors", vcpus),
        ("MinimumProcessingUnits", units),
        ("MinimumVirtualProcessors", vcpus),
    ]
    return document(
        UOM,
        "LogicalPartition",
        [
            ("PartitionIOConfiguration", [("MaximumVirtualIOSlots", str(slots))]),
            (
                "PartitionMemoryConfiguration",
                [("DesiredMemory", memory), ("MaximumMemory", memory), ("MinimumMemory", memory)],
            ),
            ("PartitionName", name_of(want.mark.uuid)),
            (
                "PartitionProcessorConfiguration",
                [
                    ("HasDedicatedProcessors", "false"),
                    ("SharedProcessorConfiguration", shared),
                    ("SharingMode", "uncapped"),
                ],
            ),
            ("PartitionType", "AIX/Linux"),
            ("Description", description_of(want.mark, want.name)),
        ],
    )


def adapter_document(network: Network) -> bytes:
    """A new adapter of a partition, on a virtual network."""
    parts: Parts = [
        ("UseNextAvailableSlotID", "true"),
        ("PortVLANID", str(network.vlan)),
        ("TaggedVLANSupported", "false"),
        ("AssociatedVirtualSwitch", Link(network.switch)),
    ]
    return document(UOM, "ClientNetworkAdapter", parts)


def resized_document(partition: Partition, vcpus: int, memory_mb: int, hundredths: int) -> bytes:
    """All of a partition as it was read, with another size. ValueError if it has no shared processors."""
    shared = "PartitionProcessorConfiguration/SharedProcessorConfiguration"
    amounts = {
        f"{shared}/%sProcessingUnits": f"{hundredths / 100:.2f}",
        f"{shared}/%sVirtualProcessors": str(vcpus),
        "PartitionMemoryConfiguration/%sMemory": str(memory_mb),
    }
    element = deepcopy(partition.element)
    for path, value in amounts.items():
        for bound in ("Desired", "Maximum", "Minimum"):
            found = found_in(element, path % bound)
            if found is None:
                raise ValueError(f"the partition has no {path % bound}")
            found.text = value
    return bytes(ElementTree.tostring(element, encoding="utf-8", xml_declaration=True))
