"""A fleet to be, from a TOML file: kinds of hardware with zones, racks, cells, GPUs, over-commit and prices, hosts that
are named one by one, and what happens to it: hosts that come, failures and maintenance."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ...placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName
from ...placement.types.ordered_sum import ordered_sum
from ...placement.types.validation import standard_traits
from .hardware import Count, Hardware, NotNegative, Positive, Ratio, Text
from .named_hosts import NamedHost, read_hosts, with_kinds
from .topology import check_topology

__all__ = [
    "DOMAINS",
    "Count",
    "FleetPlan",
    "Growth",
    "Hardware",
    "Maintenance",
    "NamedHost",
    "NotNegative",
    "Outage",
    "Place",
    "Positive",
    "Ratio",
    "Text",
    "checked",
    "every_place",
    "named_place",
    "place_of",
    "read_fleet",
]
MOST_HOSTS: Final = 10_000_000
"""In a fleet, those included that come later."""
DOMAINS: Final = ("host", "rack", "row", "cluster", "cell", "zone")
"""What may fail together, the smallest first."""


class Growth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``add`` more hosts of a kind, ``at_hours`` into the run."""

    hardware: Text
    add: Positive
    at_hours: NotNegative


class Outage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One host, a rack, a row, a cluster, a cell or a zone fails, ``at_hours`` into the run, and comes back ``hours``
    later."""

    at_hours: NotNegative
    hours: NotNegative
    host: str = ""
    rack: str = ""
    row: str = ""
    cluster: str = ""
    cell: str = ""
    zone: str = ""


class Maintenance(Outage, frozen=True, kw_only=True):
    """The same, announced: for ``notice_hours`` before it begins its hosts take no new guests, and those on them move
    away."""

    notice_hours: NotNegative = 1.0


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a fleet file. Guests that would have more than ``burst_above_percent`` of the vCPUs given run in a public
    cloud instead; None: none does. ``named``: hosts beside those that the hardware counts, ``[[host]]`` in the file;
    ``state``: the fleet's file that they were read from, whose guests stand on them. ``currency`` of all prices."""

    name: str = "fleet"
    currency: str = ""
    hardware: tuple[Hardware, ...] = ()
    named: tuple[NamedHost, ...] = msgspec.field(default=(), name="host")
    hosts_file: str = ""
    state: str = ""
    growth: tuple[Growth, ...] = ()
    failures: tuple[Outage, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()
    burst_price_per_vcpu_hour: NotNegative = 0.0
    burst_above_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None

    def with_counts(self, counts: Mapping[str, int]) -> FleetPlan:
        """The same fleet with other numbers of some kinds of host."""
        kinds = tuple(msgspec.structs.replace(kind, count=counts.get(kind.name, kind.count)) for kind in self.hardware)
        return msgspec.structs.replace(self, hardware=kinds)

    def with_ratio(self, cpu_allocation_ratio: float) -> FleetPlan:
        """The same fleet with another over-commit of CPUs everywhere."""
        kinds = tuple(msgspec.structs.replace(k, cpu_allocation_ratio=cpu_allocation_ratio) for k in self.hardware)
        return msgspec.structs.replace(self, hardware=kinds)

    @property
    def cpu_ratio(self) -> float:
        """Over-commit of CPUs, the mean of all that there are from the beginning."""
        there = Counter(host.hardware for host in self.named)
        counts = {kind.name: kind.count + there[kind.name] for kind in self.hardware}
        cpus = sum(counts[kind.name] * kind.vcpus for kind in self.hardware)
        given = ordered_sum(counts[kind.name] * kind.vcpus * kind.cpu_allocation_ratio for kind in self.hardware)
        return round(given / cpus, 4) if cpus else 1.0

    @property
    def hosts(self) -> int:
        """Hosts that are there from the beginning."""
        return sum(kind.count for kind in self.hardware) + len(self.named)

    @property
    def zones(self) -> list[str]:
        """Every zone in which hosts stand or may stand, sorted."""
        return sorted({zone for kind in self.hardware for zone in kind.zones} | {host.zone for host in self.named})

    def zones_of(self, hardware: str) -> set[str]:
        """The zones in which hosts of a kind stand or may stand."""
        (kind,) = (each for each in self.hardware if each.name == hardware)
        named = {host.zone for host in self.named if host.hardware == hardware}
        return named | set(kind.zones) if kind.count or not named else named


def read_fleet(path: Path) -> FleetPlan:
    """A fleet file: TOML, or a table (CSV) of named hosts. Errors name the file and the key, or line, at fault."""
    if path.suffix.lower() in (".csv", ".gz"):
        return checked(FleetPlan(name=path.name.partition(".")[0], named=read_hosts(path)))
    try:
        plan = msgspec.convert(tomllib.loads(path.read_text()), FleetPlan)
        if plan.state:
            raise InvalidValue(
                "state: the fleet's file is named on the command line", field="state", hint="--state FILE"
            )
        if plan.hosts_file:
            listed = read_hosts(path.parent / plan.hosts_file)
            plan = msgspec.structs.replace(plan, named=(*plan.named, *listed), hosts_file="")
        return checked(plan)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidValue(f"{path}: {reason}", field="fleet") from None
    except HostlerError as error:
        raise type(error)(f"{path}: {error.args[0]}", field=error.field, hint=error.hint) from None


def checked(plan: FleetPlan) -> FleetPlan:
    """The plan, each named host with the kind of its own sizes, if names are there once and what happens concerns
    things that are there. InvalidValue, DuplicateName or UnknownName, with the key at fault."""
    hardware, named = with_kinds(plan.hardware, plan.named)
    if named != plan.named:
        plan = msgspec.structs.replace(plan, hardware=hardware, named=named)
    names = [kind.name for kind in plan.hardware]
    if not names:
        raise InvalidValue("hardware: a fleet needs a kind of host", field="fleet.hardware")
    for index, kind in enumerate(plan.hardware):
        _check_kind(f"hardware[{index}]", kind, names[:index])
    for index, growth in enumerate(plan.growth):
        if growth.hardware not in names:
            key = f"growth[{index}].hardware"
            raise UnknownName.among(f"{key}:", growth.hardware, names, field=f"fleet.{key}")
    _check_names(plan)
    if plan.hosts + sum(growth.add for growth in plan.growth) > MOST_HOSTS:
        raise InvalidValue(f"a fleet has at most {MOST_HOSTS:,} hosts", field="fleet.hardware")
    for word, outages in (("failures", plan.failures), ("maintenance", plan.maintenance)):
        for index, outage in enumerate(outages):
            _check_outage(f"{word}[{index}]", outage, plan)
    return plan


def _check_names(plan: FleetPlan) -> None:
    """DuplicateName for a host that is there twice, under a name of its own or that of its kind."""
    if not plan.named:
        return
    known: set[str] = set()
    for index, host in enumerate(plan.named):
        if host.name in known:
            raise DuplicateName(
                f"host[{index}].name: host {host.name} is there twice", field=f"fleet.host[{index}].name"
            )
        known.add(host.name)
    for kind in plan.hardware:
        most = kind.count + sum(growth.add for growth in plan.growth if growth.hardware == kind.name)
        twice = next((name for name in known if _number_in(kind.name, name) in range(1, most + 1)), None)
        if twice is not None:
            problem = f"host {twice} has the name of one that hardware {kind.name} counts"
            raise DuplicateName(problem, field="fleet.host.name", hint="give the host or the hardware another name")


def _number_in(kind: str, name: str) -> int:
    """The number of a host in a name of its kind's; 0 for another name."""
    digits = name.removeprefix(f"{kind}-") if name.startswith(f"{kind}-") else ""
    return int(digits) if digits.isdecimal() and name == f"{kind}-{int(digits):05}" else 0


def _check_kind(key: str, kind: Hardware, before: Sequence[str]) -> None:
    if kind.name in before:
        raise DuplicateName(f"{key}.name: hardware {kind.name} is there twice", field=f"fleet.{key}.name")
    if not kind.zones or len(set(kind.zones)) < len(kind.zones):
        raise InvalidValue(f"{key}.zones: zones must be named, each once", field=f"fleet.{key}.zones")
    if len(set(kind.cells)) < len(kind.cells):
        raise InvalidValue(f"{key}.cells: a cell is named twice", field=f"fleet.{key}.cells")
    for trait in kind.traits:
        if not re.fullmatch("[A-Z0-9_]{1,255}", trait):
            hint = "capitals, digits and _: HW_CPU_X86_AVX2, CUSTOM_FAST"
            raise InvalidValue(f"{key}.traits: {trait!r} is not a trait", field=f"fleet.{key}.traits", hint=hint)
        if not trait.startswith("CUSTOM_") and trait not in standard_traits():
            raise UnknownName.among(f"trait in {key}.traits:", trait, standard_traits(), field=f"fleet.{key}.traits")
    if kind.gpu_model and not kind.gpus:
        raise InvalidValue(f"{key}.gpu_model: there are no gpus", field=f"fleet.{key}.gpus")
    check_topology(kind, key)


def _check_outage(key: str, outage: Outage, plan: FleetPlan) -> None:
    named = {word: getattr(outage, word) for word in DOMAINS if getattr(outage, word)}
    if len(named) != 1:
        raise InvalidValue(
            f"{key}: names one of a host, a rack, a row, a cluster, a cell and a zone", field=f"fleet.{key}"
        )
    ((word, name),) = named.items()
    known = {getattr(place, word) for place in every_place(plan)}
    if name not in known:
        raise UnknownName.among(f"{word} in {key}.{word}:", name, known, field=f"fleet.{key}.{word}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host stands. ``cell``, ``row`` and ``cluster`` are empty where there are none."""

    host: str
    hardware: str
    zone: str
    rack: str
    cell: str
    row: str = ""
    cluster: str = ""


def place_of(kind: Hardware, number: int) -> Place:
    """Where the host with a number, from 0, of its kind stands."""
    zone = kind.zones[number % len(kind.zones)]
    rack = number // len(kind.zones) % kind.racks
    cell = kind.cells[rack % len(kind.cells)] if kind.cells else ""
    return Place(f"{kind.name}-{number + 1:05}", kind.name, zone, f"{zone}/{kind.name}-r{rack + 1}", cell)


def rack_of_its_own(zone: str, host: str) -> str:
    """The rack of a host that is in none."""
    return f"{zone}/{host}"


def named_place(host: NamedHost) -> Place:
    """Where a named host stands. One without a rack stands in one of its own."""
    rack = host.rack or rack_of_its_own(host.zone, host.name)
    return Place(host.name, host.hardware, host.zone, rack, host.cell, host.row, host.cluster)


def every_place(plan: FleetPlan) -> Iterator[Place]:
    """Where all hosts stand, those included that come later."""
    yield from map(named_place, plan.named)
    for kind in plan.hardware:
        count = kind.count + sum(growth.add for growth in plan.growth if growth.hardware == kind.name)
        yield from (place_of(kind, number) for number in range(count))
