"""Fleets to simulate on: a made-up cloud of three zones and mixed hardware, and fleets of one kind of host."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.fleet.fleet import Fleet
from ...placement.load.bulk import load_hosts
from ...placement.policy.policy import Policy
from ...placement.types.host import Aggregate, Host, Service
from ..trace.workload import EPOCH_S

ZONES: Final = {"zone-a": 0.40, "zone-b": 0.35, "zone-c": 0.25}
"""Zone -> share of the hosts."""
NVME: Final = "CUSTOM_NVME"
"""Trait of some hosts in the first two zones; the third has none."""
OLD_HYPERVISOR: Final = 6_002_000
NEW_HYPERVISOR: Final = 8_002_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A kind of machine and its share of the fleet; its tier is an aggregate that flavors ask for."""

    name: str
    share: float
    vcpus: int
    memory_mb: int
    disk_gb: int
    hypervisor_version: int
    tier: str


HARDWARE: Final = (
    Hardware(
        name="2021",
        share=0.585,
        vcpus=32,
        memory_mb=131_072,
        disk_gb=1_600,
        hypervisor_version=OLD_HYPERVISOR,
        tier="general",
    ),
    Hardware(
        name="2025",
        share=0.40,
        vcpus=64,
        memory_mb=262_144,
        disk_gb=3_200,
        hypervisor_version=NEW_HYPERVISOR,
        tier="general",
    ),
    Hardware(
        name="2025 large memory",
        share=0.015,
        vcpus=48,
        memory_mb=524_288,
        disk_gb=3_200,
        hypervisor_version=NEW_HYPERVISOR,
        tier="memory",
    ),
)
NVME_SHARE: Final = 0.03
"""Share of the hosts of the first two zones that have the trait NVME."""
DISABLED: Final = 0.008
DOWN: Final = 0.004
"""Share of the hosts whose service has been disabled, and whose last heartbeat was an hour before the story begins."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cloud:
    """A fleet to be: each host follows a template and stands in a zone (by index). Host i becomes the fleet's row i."""

    names: tuple[str, ...]
    templates: tuple[Host, ...]
    template_of: NDArray[np.int64]
    zones: tuple[str, ...]
    zone_of: NDArray[np.int64]
    policy: Policy

    def __len__(self) -> int:
        return len(self.names)

    def engine(self, seed: int) -> Engine:
        """An engine on a new fleet of these hosts, all empty. About a microsecond a host."""
        fleet = Fleet(seed=seed, capacity=len(self))
        load_hosts(fleet, self.names, self.templates, self.template_of)
        return Engine(fleet, self.policy, seed=seed)

    @property
    def vcpus(self) -> float:
        """All vCPUs that the fleet has to give."""
        per_template = [host.vcpus_total * host.cpu_allocation_ratio for host in self.templates]
        return float(np.array(per_template)[self.template_of].sum())


def one_kind(hosts: int, host: Host) -> Cloud:
    """A fleet of equal hosts in one zone, under Nova's default policy."""
    nowhere = np.zeros(hosts, np.int64)
    names = tuple(f"host-{number:05}" for number in range(hosts))
    return Cloud(
        names=names,
        templates=(host,),
        template_of=nowhere,
        zones=("all",),
        zone_of=nowhere,
        policy=Policy.nova_default(),
    )


def made_up(hosts: int, *, seed: int) -> Cloud:
    """Three zones, three kinds of machine, two hypervisor versions, two tiers, a trait, some hosts out of service; CPUs
    are not shared. The same for the same seed."""
    rng = np.random.default_rng([seed, 1])
    zone_of = rng.permutation(_shares(hosts, tuple(ZONES.values())))
    hardware_of = rng.permutation(_shares(hosts, tuple(kind.share for kind in HARDWARE)))
    nvme = (rng.random(hosts) < NVME_SHARE) & (zone_of < len(ZONES) - 1)
    state = rng.choice(3, hosts, p=(1.0 - DISABLED - DOWN, DISABLED, DOWN))
    template_of = np.ravel_multi_index((zone_of, hardware_of, nvme, state), (len(ZONES), len(HARDWARE), 2, 3))
    zones = tuple(ZONES)
    numbers = itertools.count(1)
    names = tuple(f"{zones[zone][-1]}{next(numbers):05}" for zone in zone_of.tolist())
    return Cloud(
        names=names, templates=_templates(), template_of=template_of, zones=zones, zone_of=zone_of, policy=_policy()
    )


def _shares(count: int, shares: tuple[float, ...]) -> NDArray[np.int64]:
    """``count`` indices, as many of each as its share says, in order."""
    ends = np.round(np.cumsum(shares) * count).astype(np.int64)
    return np.searchsorted(ends, np.arange(count), side="right")


def _policy() -> Policy:
    """Nova's default, and tiers by aggregate metadata."""
    filters = [rule.name for rule in Policy.nova_default().filters]
    names = ["AggregateInstanceExtraSpecsFilter", *filters]
    return Policy.from_mapping({"filter_scheduler": {"enabled_filters": names}})


def _templates() -> tuple[Host, ...]:
    """A host of every kind, in the order that ``made_up`` numbers them: zone, hardware, trait, state."""
    zones = [_aggregate(1 + number, zone, {"availability_zone": zone}) for number, zone in enumerate(ZONES)]
    tiers = {tier: _aggregate(11 + number, tier, {"tier": tier}) for number, tier in enumerate(("general", "memory"))}
    services = (
        Service(),
        Service(disabled=True, disabled_reason="memory to be replaced"),
        Service(last_seen_up=EPOCH_S - 3_600.0),
    )
    return tuple(
        _template(hardware, (zone, tiers[hardware.tier]), traits, service)
        for zone, hardware, traits, service in itertools.product(
            zones, HARDWARE, (frozenset[str](), frozenset({NVME})), services
        )
    )


def _template(hardware: Hardware, aggregates: tuple[Aggregate, ...], traits: frozenset[str], service: Service) -> Host:
    return Host(
        host="template",
        vcpus_total=hardware.vcpus,
        cpu_allocation_ratio=1.0,
        total_usable_ram_mb=hardware.memory_mb,
        total_usable_disk_gb=hardware.disk_gb,
        hypervisor_version=hardware.hypervisor_version,
        aggregates=aggregates,
        service=service,
        traits=traits,
    )


def _aggregate(number: int, name: str, metadata: Mapping[str, str]) -> Aggregate:
    return Aggregate(uuid=str(uuid.UUID(int=number)), name=name, metadata=metadata)
