"""Answers of the REST API of a Hardware Management Console of IBM Power, in the shape of recorded ones: what a stand-in
has, as entries of Atom feeds."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

UOM: Final = "http://www.ibm.com/xmlns/systems/power/firmware/uom/mc/2012_10/"
WEB: Final = "http://www.ibm.com/xmlns/systems/power/firmware/web/mc/2012_10/"
ATOM: Final = "http://www.w3.org/2005/Atom"
HOST: Final = "https://hmc:12443/rest/api/uom"
MEMORY: Final = "PartitionMemoryConfiguration"
PROCESSORS: Final = "PartitionProcessorConfiguration"
SHARED: Final = "SharedProcessorConfiguration"
AMOUNTS: Final = ("ProcessingUnits", "VirtualProcessors")
BOUNDS: Final = ("Desired", "Maximum", "Minimum")


@dataclass
class System:
    """``block``: MiB of which memory is given out; ``hypervisor``: MiB that are not. ``pool``: MiB, and processing
    units, that no partition has for itself."""

    key: str
    name: str
    state: str = "operating"
    units: float = 20.0
    memory: int = 262_144
    hypervisor: int = 4_096
    block: int = 256
    pool: tuple[int, float] = (0, 0.0)
    networks: dict[str, int] = field(default_factory=lambda: {"VLAN1-ETHERNET0": 1, "VLAN7-ETHERNET0": 7})
    """VLANs of virtual networks by their names."""

    @property
    def switch(self) -> str:
        """The id of its virtual switch."""
        return f"switch-of-{self.key}"


@dataclass
class Partition:
    """``deaf``: its operating system does not shut down. ``monitored``: it can be told to."""

    key: str
    name: str
    system: str
    memory: int
    vcpus: int
    units: float
    description: str = ""
    kind: str = "LogicalPartition"
    state: str = "not activated"
    slots: int = 64
    deaf: bool = False
    monitored: bool = False
    changes: int = 0
    ports: list[tuple[str, int]] = field(default_factory=list)
    """Ids of virtual switches, and VLANs, that its adapters are on."""


@dataclass
class Job:
    key: str
    operation: str
    ends: float
    end: Callable[[], tuple[str, str]]
    """What it does at its end: its status and message."""
    status: str = "RUNNING"
    text: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def etag_of(partition: Partition) -> str:
    return str(zlib.crc32(repr(partition).encode()) - 2**31)


def feed(items: list[str]) -> str:
    return f'<feed xmlns="{ATOM}"><id>{uuid.uuid4()}</id>{"".join(items)}</feed>'


def entry(kind: str, key: str, inner: str, *, etag: str = "", space: str = "uom") -> str:
    names, metadata = UOM if space == "uom" else WEB, f"<Atom><AtomID>{key}</AtomID></Atom>" if key else "<Atom/>"
    own = f'<etag:etag xmlns:etag="{UOM}" xmlns="{UOM}">{etag}</etag:etag>' if etag else ""
    return (
        f'<entry xmlns="{ATOM}"><id>{key}</id><title>{kind}</title>{own}'
        f'<content type="application/vnd.ibm.powervm.{space}+xml; type={kind}">'
        f'<{kind}:{kind} xmlns:{kind}="{names}" xmlns="{names}" schemaVersion="V1_3_0">'
        f"<Metadata>{metadata}</Metadata>{inner}</{kind}:{kind}></content></entry>"
    )


def shown_system(system: System, partitions: Iterable[Partition] = ()) -> str:
    active = [each for each in partitions if each.system == system.key and each.state != "not activated"]
    memory = system.memory - system.hypervisor - system.pool[0] - sum(each.memory for each in active)
    units = round(system.units - system.pool[1] - sum(each.units for each in active), 2)
    return entry(
        "ManagedSystem",
        system.key,
        _group(
            "AssociatedSystemMemoryConfiguration",
            ConfigurableSystemMemory=system.memory,
            CurrentAvailableSystemMemory=memory,
            CurrentLogicalMemoryBlockSize=system.block,
            MemoryUsedByHypervisor=system.hypervisor,
        )
        + _group(
            "AssociatedSystemProcessorConfiguration",
            ConfigurableSystemProcessorUnits=system.units,
            CurrentAvailableSystemProcessorUnits=units,
        )
        + _leaves(State=system.state, SystemName=system.name),
    )


def shown_network(system: System, name: str) -> str:
    link = f'<AssociatedSwitch href="{HOST}/ManagedSystem/{system.key}/VirtualSwitch/{system.switch}" rel="related"/>'
    return entry("VirtualNetwork", f"{name}", link + _leaves(NetworkName=name, NetworkVLANID=system.networks[name]))


def shown_adapter(switch: str, vlan: int) -> str:
    link = f'<link href="{HOST}/ManagedSystem/x/VirtualSwitch/{switch}" rel="related"/>'
    inner = _leaves(PortVLANID=vlan) + f"<AssociatedVirtualSwitch>{link}</AssociatedVirtualSwitch>"
    return entry("ClientNetworkAdapter", f"{switch}-{vlan}", inner)


def shown(each: Partition, *, described: bool) -> str:
    sizes = {f"{bound}Memory": each.memory for bound in BOUNDS}
    shared = {
        f"{bound}{what}": amount
        for bound in BOUNDS
        for what, amount in zip(AMOUNTS, (each.units, each.vcpus), strict=True)
    }
    now = {"AllocatedVirtualProcessors": each.vcpus, "CurrentProcessingUnits": each.units}
    processors = _leaves(HasDedicatedProcessors="false") + _group(SHARED, **shared)
    processors += _leaves(SharingMode="uncapped") + _group("CurrentSharedProcessorConfiguration", **now)
    told = {"Description": each.description} if described and each.description else {}
    link = f'<AssociatedManagedSystem href="{HOST}/ManagedSystem/{each.system}" rel="related"/>'
    return entry(
        each.kind,
        each.key,
        _leaves(AvailabilityPriority=127, IsOperationInProgress="false")
        + _group("PartitionIOConfiguration", MaximumVirtualIOSlots=each.slots)
        + _group(MEMORY, **sizes, CurrentMemory=each.memory)
        + _leaves(PartitionName=each.name)
        + _nest(PROCESSORS, processors)
        + _leaves(PartitionState=each.state, PartitionType="AIX/Linux", PartitionUUID=each.key)
        + _leaves(ResourceMonitoringControlState="active" if each.monitored else "inactive")
        + link
        + _leaves(**told),
        etag=etag_of(each),
    )


def shown_job(job: Job) -> str:
    code = {"RUNNING": "", "COMPLETED_OK": "0"}.get(job.status, "1")
    results = {"returnCode": code, "result": job.text} if code else {}
    shown = "".join(_group("JobParameter", ParameterName=name, ParameterValue=value) for name, value in results.items())
    inner = _leaves(JobID=job.key, Status=job.status) + (_nest("Results", shown) if shown else "")
    return entry("JobResponse", "", inner, space="web")


def shown_error(status: int, path: str, text: str) -> str:
    inner = _leaves(HTTPStatus=status, RequestURI=path, ReasonCode="Unknown internal error.", Message=text)
    return entry("HttpErrorResponse", "", inner, space="web")


def _leaves(**texts: object) -> str:
    return "".join(f'<{name} kb="CUD" kxe="false">{escape(str(text))}</{name}>' for name, text in texts.items())


def _nest(name: str, inner: str) -> str:
    return f'<{name} kb="CUD" kxe="false" schemaVersion="V1_3_0"><Metadata><Atom/></Metadata>{inner}</{name}>'


def _group(name: str, **texts: object) -> str:
    return _nest(name, _leaves(**texts))
