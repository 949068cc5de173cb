"""A made-up cloud to measure on: a seeded fleet that is in use, and the requests that come to it. Nothing here takes a
time.

Three kinds of hardware in three zones and four tiers; every host is filled to about the same fraction, one in fifty
takes no guests. Usage is loaded as figures, as a compute node reports them, so a fleet of any size costs arrays and not
objects.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..placement.fleet.fleet import Fleet
from ..placement.load.bulk import add_hosts, load_hosts
from ..placement.numa.derive import derive
from ..placement.policy.policy import Policy
from ..placement.types.host import Aggregate, Host, MemoryPages, NumaCell, NumaTopology, Service
from ..placement.types.ordered_sum import ordered_sum
from ..placement.types.request import Flavor, Image, Request, RequestSpec

POLICIES: Final = ("nova", "heavy", "numa", "affinity")

HEAVY_FILTERS: Final = (
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "AggregateInstanceExtraSpecsFilter",
    "AggregateMultiTenancyIsolation",
    "AggregateImagePropertiesIsolation",
    "DifferentHostFilter",
    "SameHostFilter",
    "IoOpsFilter",
    "NumInstancesFilter",
    "PciPassthroughFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
)
NUMA_FILTERS: Final = (
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "AggregateInstanceExtraSpecsFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
    "NUMATopologyFilter",
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of machine, with the version of the hypervisor that its generation runs."""

    vcpus: int
    memory_mb: int
    disk_gb: int
    hypervisor_version: int


HARDWARE: Final = (
    Hardware(64, 262_144, 2_000, 8_002_000),
    Hardware(96, 393_216, 3_500, 9_001_000),
    Hardware(128, 1_048_576, 7_000, 10_000_000),
)
ZONES: Final = ("zone-a", "zone-b", "zone-c")
TIERS: Final = {"general": 0.70, "compute": 0.15, "memory": 0.10, "gpu": 0.05}
"""Tier -> share of the hosts. A tier is an aggregate that the heavy and numa requests ask for by extra specs."""
OUT_OF_SERVICE: Final = 0.02
CPU_RATIO: Final = 4.0
SUPPORTED: Final = (("x86_64", "kvm", "hvm"), ("x86_64", "qemu", "hvm"), ("i686", "kvm", "hvm"))

FLAVORS: Final = (
    Flavor(name="tiny", vcpus=1, memory_mb=512, root_gb=1),
    Flavor(name="small", vcpus=1, memory_mb=2_048, root_gb=20),
    Flavor(name="medium", vcpus=2, memory_mb=4_096, root_gb=40),
    Flavor(name="large", vcpus=4, memory_mb=8_192, root_gb=80),
    Flavor(name="xlarge", vcpus=8, memory_mb=16_384, root_gb=160),
)
IMAGE: Final = Image(
    disk_format="qcow2", properties={"hw_architecture": "x86_64", "hw_vif_model": "virtio", "os_distro": "ubuntu"}
)
WANTED_TIERS: Final = {"general": 0.6, "<or> general <or> compute": 0.3, "memory": 0.1}
"""Extra spec -> share of the heavy and numa requests that have it."""
PROJECTS: Final = tuple(f"project-{number:02}" for number in range(20))

HEAVY_GROUP: Final = 30
"""Members of an anti-affinity group of the heavy and numa requests."""
AFFINITY_GROUP: Final = 10
GROUP_KINDS: Final = ("anti-affinity",) * 4 + ("soft-anti-affinity",) + ("affinity",) * 4 + ("soft-affinity",)
"""Policies of the affinity requests' groups, in turn: half keep members apart, half together, a fifth of each only
if it can."""


# Fleet


def make_policy(name: str) -> Policy:
    """The policy that a benchmark is named after. nova and affinity: Nova's default; heavy and numa: their filters
    beside it."""
    filters = {"heavy": HEAVY_FILTERS, "numa": NUMA_FILTERS}.get(name)
    return (
        Policy.nova_default()
        if filters is None
        else Policy.from_mapping({"filter_scheduler": {"enabled_filters": list(filters)}})
    )


@dataclass(frozen=True, slots=True)
class FleetArrays:
    """What ``load_hosts`` takes: names, templates, which template each host follows, and figures in use."""

    names: NDArray[np.bytes_]
    templates: tuple[Host, ...]
    template_of: NDArray[np.int64]
    figures: Mapping[str, NDArray[np.int64]]


def make_arrays(hosts: int, *, seed: int = 1, fill: float = 0.6) -> FleetArrays:
    """A fleet of ``hosts`` hosts as arrays; the same for the same seed. ``fill``: fraction of memory in use, on
    average."""
    rng = np.random.default_rng(seed)
    templates, shares = _templates()
    template_of = rng.choice(len(templates), hosts, p=shares)
    vcpus, memory_mb, disk_gb = (
        np.array([getattr(host, name) for host in templates])[template_of]
        for name in ("vcpus_total", "total_usable_ram_mb", "total_usable_disk_gb")
    )
    spread = min(fill, 1.0 - fill) * 0.875
    used = fill + rng.uniform(-spread, spread, hosts)
    vcpus_used = (vcpus * CPU_RATIO * used * rng.uniform(0.8, 1.0, hosts)).astype(np.int64)
    figures = {
        "vcpus_used": vcpus_used,
        "free_ram_mb": memory_mb - (memory_mb * used).astype(np.int64),
        "disk_mb_used": (disk_gb * used * rng.uniform(0.4, 1.0, hosts)).astype(np.int64) * 1024,
        "num_instances": vcpus_used // 8,
        "num_io_ops": rng.choice([0, 0, 0, 1, 1, 2, 3], hosts),
    }
    return FleetArrays(np.char.add(b"host-", np.arange(hosts).astype("S")), templates, template_of, figures)


def _templates() -> tuple[tuple[Host, ...], NDArray[np.float64]]:
    """Every kind of host there is, and how large a share of the fleet it has."""
    zones = [_aggregate(1 + i, zone, {"availability_zone": zone}) for i, zone in enumerate(ZONES)]
    tiers = [_aggregate(11 + i, tier, {"tier": tier, "ssd": "true"}) for i, tier in enumerate(TIERS)]
    templates, shares = [], []
    for hardware, zone, tier, disabled in itertools.product(HARDWARE, zones, tiers, (False, True)):
        templates.append(_template(hardware, (zone, tier), disabled))
        share = TIERS[tier.name] / len(HARDWARE) / len(ZONES)
        shares.append(share * (OUT_OF_SERVICE if disabled else 1.0 - OUT_OF_SERVICE))
    return tuple(templates), np.array(shares) / ordered_sum(shares)


def _aggregate(number: int, name: str, metadata: Mapping[str, str]) -> Aggregate:
    return Aggregate(uuid=str(uuid.UUID(int=number)), name=name, metadata=metadata)


def _template(hardware: Hardware, aggregates: tuple[Aggregate, ...], disabled: bool) -> Host:
    return Host(
        host="template",
        vcpus_total=hardware.vcpus,
        total_usable_ram_mb=hardware.memory_mb,
        total_usable_disk_gb=hardware.disk_gb,
        cpu_allocation_ratio=CPU_RATIO,
        hypervisor_type="QEMU",
        hypervisor_version=hardware.hypervisor_version,
        supported_instances=SUPPORTED,
        aggregates=aggregates,
        service=Service(disabled=disabled, disabled_reason="maintenance" if disabled else None),
    )


def load(arrays: FleetArrays, *, seed: int = 1, numa: bool = False) -> Fleet:
    """A fleet of these hosts; with ``numa`` every host has two NUMA cells, which costs a Host value each."""
    fleet = Fleet(seed=seed, capacity=len(arrays.names))
    if numa:
        add_hosts(fleet, hosts_with_cells(arrays))
    else:
        figures: dict[str, Any] = dict(arrays.figures)
        load_hosts(fleet, arrays.names, arrays.templates, arrays.template_of, **figures)
    return fleet


def make_fleet(hosts: int, *, policy: str = "nova", seed: int = 1, fill: float = 0.6) -> Fleet:
    """A loaded fleet as the policy's requests want it. A million hosts take seconds, NUMA cells some 30 µs a host."""
    return load(make_arrays(hosts, seed=seed, fill=fill), seed=seed, numa=policy == "numa")


def hosts_with_cells(arrays: FleetArrays) -> Iterator[Host]:
    """The hosts one by one, each with two NUMA cells that share what is in use."""
    names = [name.decode() for name in arrays.names.tolist()]
    figures = {name: values.tolist() for name, values in arrays.figures.items()}
    for i, (name, template) in enumerate(zip(names, arrays.template_of.tolist(), strict=True)):
        host = replace(arrays.templates[template], host=name, **{key: values[i] for key, values in figures.items()})
        yield replace(host, numa_topology=_two_cells(host))


def _two_cells(host: Host) -> NumaTopology:
    memory, cpus = host.total_usable_ram_mb // 2, host.vcpus_total // 2
    used = (host.total_usable_ram_mb - host.free_ram_mb) // 2
    cells = (
        NumaCell(
            id=cell,
            cpuset=frozenset(range(cell * cpus, (cell + 1) * cpus)),
            memory=memory,
            cpu_usage=host.vcpus_used // 2,
            memory_usage=used,
            siblings=tuple(frozenset({cpu, cpu + cpus // 2}) for cpu in range(cell * cpus, cell * cpus + cpus // 2)),
            mempages=(MemoryPages(size_kb=4, total=memory * 256), MemoryPages(size_kb=2_048, total=0)),
            socket=cell,
        )
        for cell in range(2)
    )
    return NumaTopology(cells=tuple(cells))


# Requests


def make_specs(policy: str) -> tuple[list[RequestSpec], list[float]]:
    """What the policy's requests ask for, and how often each is asked for: the cloud's catalogue, shared by all its
    requests."""
    if policy not in ("heavy", "numa"):
        return [RequestSpec(flavor=flavor, image=IMAGE) for flavor in FLAVORS], [1 / len(FLAVORS)] * len(FLAVORS)
    specs, shares = [], []
    for flavor, (tier, share) in itertools.product(FLAVORS, WANTED_TIERS.items()):
        extra_specs = {"aggregate_instance_extra_specs:tier": tier, "aggregate_instance_extra_specs:ssd": "true"}
        if policy == "numa":
            extra_specs["hw:numa_nodes"] = "1"
        flavor = replace(flavor, name=f"{flavor.name} {tier}", extra_specs=extra_specs)
        specs.append(RequestSpec(flavor=flavor, image=IMAGE, numa_topology=derive(flavor, IMAGE)))
        shares.append(share / len(FLAVORS))
    return specs, shares


def make_requests(fleet: Fleet, count: int, *, policy: str = "nova", seed: int = 1) -> list[Request]:
    """``count`` requests for one guest each, with uuids; the same for the same seed. Makes their server groups known
    to the fleet."""
    rng = np.random.default_rng([seed, 2])
    specs, shares = make_specs(policy)
    chosen = rng.choice(len(specs), count, p=shares).tolist()
    projects = rng.integers(0, len(PROJECTS), count).tolist()
    uuids = random_uuids(rng, count)
    groups = _groups(fleet, count, policy, rng)
    return [
        Request(
            spec=specs[spec],
            instance_uuids=(uuids[i],),
            project_id=PROJECTS[project],
            user_id="user",
            server_group=groups[i],
        )
        for i, (spec, project) in enumerate(zip(chosen, projects, strict=True))
    ]


def random_uuids(rng: np.random.Generator, count: int) -> list[str]:
    """Uuids of version 4."""
    data = rng.bytes(16 * count)
    return [str(uuid.UUID(bytes=data[at : at + 16], version=4)) for at in range(0, 16 * count, 16)]


def _groups(fleet: Fleet, count: int, policy: str, rng: np.random.Generator) -> Sequence[str | None]:
    """The server group of each request: neighbours in time share one, mixed with those of other groups."""
    if policy == "nova":
        return [None] * count
    size, kinds = (AFFINITY_GROUP, GROUP_KINDS) if policy == "affinity" else (HEAVY_GROUP, ("anti-affinity",))
    names = random_uuids(rng, -(-count // size))
    for number, name in enumerate(names):
        fleet.add_server_group(name, kinds[number % len(kinds)])
    members: list[Any] = np.repeat(np.arange(len(names)), size)[:count].tolist()
    mixed: list[str] = []
    for start in range(0, count, 1_000):
        mixed += [names[number] for number in rng.permutation(members[start : start + 1_000]).tolist()]
    return mixed
