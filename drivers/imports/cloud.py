"""Hosts and guests as an import reads them, the report of what was taken and dropped, and the fleet they become."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ...placement.fleet.fleet import Fleet
from ...placement.load.bulk import add_hosts
from ...placement.types import counting
from ...placement.types.errors import InvalidValue
from ...placement.types.host import Aggregate, Host, RunningInstance
from ...placement.types.request import Flavor, Image, RequestSpec
from .tables import Line, number

CPU_RATIO: Final = 4.0
"""vCPUs a thread, where an export does not tell."""
UNKNOWN_DISK_GB: Final = 1_000_000
"""Local disk of a host, where an export does not tell: as good as unlimited."""
_PINNED: Final = ("hw:cpu_policy", "hw:numa_nodes", "hw:mem_page_size", "pci_passthrough:alias")
_THOUSANDS: Final = re.compile(r"\d{1,3}(\.\d{3})+")
_LETTERS: Final = "bkmgtp"
_WITH_UNIT: Final = re.compile(r"(?P<amount>\d[\d.,]*)\s*(?P<unit>B|[KMGTP](?:i?B)?)", re.IGNORECASE)
"""An amount of memory with its unit: ``62.79 GiB``."""
_SMALL_MB: Final = 2_048
"""MiB of the largest host up to which the unit of memory is in doubt."""
_SMALL_GUEST_MB: Final = 128
_LARGE_MB: Final = 512 * 1024
"""MiB of memory for each CPU that no machine has: the export counts in a smaller unit than its column says."""
_NAMES: Final = uuid.UUID("6d6f7665-686f-7374-6c65-722d696d7074")


class Dropped(msgspec.Struct, frozen=True):
    """A line that was not taken, and why."""

    file: str
    line: int
    what: str
    why: str


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import took and what it dropped; ``notes`` say what was assumed."""

    hosts: int = 0
    guests: int = 0
    groups: int = 0
    dropped: list[Dropped] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def drop(self, line: Line, what: str, why: str) -> None:
        """A line is not taken."""
        self.dropped.append(Dropped(line.file, line.line, what, why))

    def note(self, text: str) -> None:
        """Say what was assumed, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(kw_only=True)
class HostDraft:
    """A host. Memory in MiB, disk in GiB; ``zone``: its availability zone; ``cpus``: of the machine, where the export
    tells that there are others than those that guests share."""

    name: str
    line: Line
    vcpus: int
    memory_mb: int
    disk_gb: int = 0
    cpus: int = 0
    zone: str = ""
    cpu_ratio: float | None = None
    memory_ratio: float = 1.0
    disk_ratio: float = 1.0
    reserved_vcpus: int = 0
    reserved_memory_mb: int = 0
    reserved_disk_gb: int = 0
    hypervisor: str | None = "QEMU"
    traits: frozenset[str] = frozenset()
    disabled: str = ""
    aggregates: dict[str, Aggregate] = field(default_factory=dict)


@dataclass(kw_only=True)
class GuestDraft:
    """A guest on the host of that name. ``key``: its uuid, or what identifies it in the export."""

    key: str
    host: str
    line: Line
    flavor: Flavor
    image: Mapping[str, str] = field(default_factory=dict)
    zone: str | None = None
    project: str = ""
    group: str | None = None
    is_bfv: bool = False


@dataclass
class CloudDraft:
    """All that an import found. ``groups``: name or uuid -> policy."""

    report: ImportReport = field(default_factory=ImportReport)
    hosts: dict[str, HostDraft] = field(default_factory=dict)
    guests: list[GuestDraft] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    most_per_host: dict[str, int] = field(default_factory=dict)
    """Members of an anti-affinity group that may share a host, where that is more than one."""
    _short: dict[str, list[str]] = field(default_factory=dict)
    """Hosts by their names in lower case without domains."""

    def add_host(self, host: HostDraft) -> None:
        """Take a host, unless its name is taken or it has no size."""
        if not host.name:
            self.report.drop(host.line, "host", "it has no name")
        elif host.name in self.hosts:
            self.report.drop(host.line, host.name, "a host of that name came before")
        elif host.vcpus <= 0 or host.memory_mb <= 0:
            self.report.drop(host.line, host.name, "it has no CPUs or no memory")
        else:
            self.hosts[host.name] = host
            self._short.setdefault(_without_domain(host.name), []).append(host.name)

    def known_host(self, name: str) -> str | None:
        """The host of a name, or the only one that differs from it in upper and lower case, or else in its domain.
        O(1)."""
        if name in self.hosts:
            return name
        found = self._short.get(_without_domain(name), [])
        same = [host for host in found if host.lower() == name.lower()] or found
        return same[0] if len(same) == 1 else None

    def fleet(self, cpu_ratio: float | None = None) -> tuple[Fleet, dict[str, RequestSpec]]:
        """The fleet, and what each guest was asked with. InvalidValue if there are no hosts."""
        if not self.hosts:
            hint = "the report names each line that was dropped"
            raise InvalidValue("the files name no hosts", field="files", hint=hint if self.report.dropped else None)
        fleet = Fleet()
        groups = {name: uuid_from(name) for name in self.groups}
        for name, policy in self.groups.items():
            fleet.add_server_group(groups[name], policy, max_server_per_host=self.most_per_host.get(name, 1))
        instances, requests = self._instances(groups)
        if any(not host.disk_gb for host in self.hosts.values()):
            self.report.note(f"local disk of hosts is not in the export: {UNKNOWN_DISK_GB:,} GiB each are assumed")
        if any(name in guest.flavor.extra_specs for guest in self.guests for name in _PINNED):
            self.report.note("NUMA cells and devices of hosts are not in the export: guests that ask for them stay")
        default = cpu_ratio
        if default is None and any(host.cpu_ratio is None for host in self.hosts.values()):
            default = CPU_RATIO
            self.report.note(f"over-commit of CPUs is not in the export: {CPU_RATIO} is assumed (--cpu-ratio)")
        add_hosts(fleet, [self._host(host, instances.get(host.name, {}), default) for host in self.hosts.values()])
        for host in self.hosts.values():
            if host.disabled:
                fleet.set_service(host.name, disabled=True, disabled_reason=host.disabled)
        self.report.hosts, self.report.guests = len(self.hosts), len(requests)
        self.report.groups = len(groups)
        beyond = [fleet.name(int(row)) for row in fleet.drift()]
        if beyond:
            self.report.note(f"guests need more than these hosts may give: {', '.join(beyond[:10])}")
        return fleet, requests

    def _instances(
        self, groups: Mapping[str, str]
    ) -> tuple[dict[str, dict[str, RunningInstance]], dict[str, RequestSpec]]:
        instances: dict[str, dict[str, RunningInstance]] = {}
        requests: dict[str, RequestSpec] = {}
        specs: dict[RequestSpec, RequestSpec] = {}
        made = 0
        for each in self.hosts.values():
            _check_unit(each.line, each.name, max(each.cpus, each.vcpus), each.memory_mb)
        for guest in self.guests:
            host = self.known_host(guest.host)
            if host is None:
                self.report.drop(guest.line, guest.key, f"its host {guest.host!r} is not in the files")
                continue
            if guest.flavor.vcpus <= 0 or guest.flavor.memory_mb <= 0:
                self.report.drop(guest.line, guest.key, "it has no CPUs or no memory")
                continue
            name = uuid_from(guest.key)
            if name in requests:
                self.report.drop(guest.line, guest.key, "a guest of that identity came before")
                continue
            _check_unit(guest.line, guest.key, guest.flavor.vcpus, guest.flavor.memory_mb)
            made += name != guest.key.lower()
            spec = RequestSpec(
                flavor=guest.flavor,
                image=Image(properties=guest.image) if guest.image else None,
                availability_zone=guest.zone,
                is_bfv=guest.is_bfv,
            )
            requests[name] = specs.setdefault(spec, spec)
            instances.setdefault(host, {})[name] = RunningInstance(
                flavor=guest.flavor,
                image_properties=guest.image,
                project_id=guest.project,
                server_group=groups.get(guest.group) if guest.group is not None else None,
                is_bfv=guest.is_bfv,
            )
        if made:
            guests = "1 guest has" if made == 1 else f"{made} guests have"
            self.report.note(f"{guests} no uuid in the export: theirs is made from their identity")
        self._note_units(requests.values())
        return instances, requests

    def _note_units(self, requests: Iterable[RequestSpec]) -> None:
        """Say that memory may be in another unit, where there is hardly any."""
        for what, most_mb, doubtful in (
            ("host", max(host.memory_mb for host in self.hosts.values()), _SMALL_MB),
            ("guest", max((spec.flavor.memory_mb for spec in requests), default=0), _SMALL_GUEST_MB),
        ):
            if 0 < most_mb <= doubtful:
                self.report.note(f"no {what} has more than {most_mb} MiB of memory: the export may count in GiB")

    @staticmethod
    def _host(host: HostDraft, instances: Mapping[str, RunningInstance], cpu_ratio: float | None) -> Host:
        aggregates = dict(host.aggregates)
        if host.zone and not any("availability_zone" in each.metadata for each in aggregates.values()):
            uuid_of_zone = uuid_from(f"zone {host.zone}")
            aggregates[uuid_of_zone] = Aggregate(
                uuid=uuid_of_zone, name=host.zone, metadata={"availability_zone": host.zone}
            )
        ratio = host.cpu_ratio if host.cpu_ratio is not None else cpu_ratio
        assert ratio is not None
        return Host(
            host=host.name,
            vcpus_total=host.vcpus,
            cpu_allocation_ratio=ratio,
            total_usable_ram_mb=host.memory_mb,
            ram_allocation_ratio=host.memory_ratio,
            total_usable_disk_gb=host.disk_gb or UNKNOWN_DISK_GB,
            disk_allocation_ratio=host.disk_ratio,
            reserved_vcpus=host.reserved_vcpus,
            reserved_ram_mb=host.reserved_memory_mb,
            reserved_disk_gb=host.reserved_disk_gb,
            hypervisor_type=host.hypervisor,
            traits=host.traits,
            aggregates=tuple(aggregates.values()),
            instances=instances,
        )


def _without_domain(name: str) -> str:
    return name.lower() if _is_address(name) else name.partition(".")[0].lower()


def _is_address(name: str) -> bool:
    """True for an IPv4 address, of which the first number is no name."""
    return re.fullmatch(r"\d+(\.\d+){3}", name) is not None


def uuid_from(identity: str) -> str:
    """``identity`` if it is a uuid, else one that is made from it."""
    try:
        return str(uuid.UUID(identity))
    except ValueError:
        return str(uuid.uuid5(_NAMES, identity))


def not_running(state: str) -> str:
    """Why a guest in a state other than running is not taken."""
    off = state.lower() in ("poweredoff", "0", "")
    return f"it is {'powered off' if off else state.lower()} (--powered-off takes it)"


def counted(dropped: Iterable[Dropped]) -> dict[str, int]:
    """Lines that were dropped by reason, the most frequent first."""
    return dict(Counter(each.why for each in dropped).most_common())


def _check_unit(line: Line, name: str, vcpus: int, memory_mb: int) -> None:
    """InvalidValue, with the line, for more memory than as many CPUs ever have."""
    if vcpus > 0 and memory_mb > _LARGE_MB * vcpus:
        cpus = counting.counted(vcpus, "CPU")
        problem = f"{line.file}:{line.line}: {name} has {memory_mb / 1024:,.0f} GiB of memory for {cpus}"
        raise InvalidValue(problem, field="files", hint="the column may count in MiB, KiB or bytes, not as it is named")


def memory_mb(line: Line, *names: str, unit: float = 1.0) -> int:
    """Memory of a line in MiB, rounded up; 0 if it is not given. ``unit``: what a number without a unit counts, in MiB.
    Of memory, GB are GiB, and what is below them is told in whole ones. ValueError if it is negative or no amount."""
    value = line.get(*names)
    told = _WITH_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if told is None:
        return size(line, *names, unit=unit)
    power = _LETTERS.index(told["unit"][0].lower()) - 2
    # In MiB and below, a mark before three figures separates thousands; in GiB, it stands before decimals.
    amount = number(told["amount"], comma=("." in told["amount"]) == (power <= 0))
    return -int(-amount * 1_024.0**power // 1)


def size(line: Line, *names: str, unit: float = 1.0) -> int:
    """A whole amount of a line, rounded up; 0 if it is not given. ValueError if it is negative or not a number."""
    text = line.get(*names)
    if unit == 1.0 and isinstance(text, str) and _THOUSANDS.fullmatch(text.strip()):
        # Of what is counted in whole ones, a point before three figures separates thousands.
        value: float | None = number(text, comma=True)
    else:
        value = line.number(*names)
    if value is None:
        return 0
    if value < 0:
        raise ValueError(f"{names[0]} is negative: {value:g}")
    return -int(-value * unit // 1)
