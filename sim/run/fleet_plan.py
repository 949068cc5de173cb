"""A fleet to be, from a TOML file: kinds of hardware with zones, racks, cells, GPUs, over-commit and prices, and what
happens to it: hosts that come, failures and maintenance."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ...placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName
from ...placement.types.ordered_sum import ordered_sum
from ...placement.types.validation import standard_traits

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Ratio = Annotated[float, msgspec.Meta(gt=0, le=1000)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
MOST_HOSTS: Final = 10_000_000
"""In a fleet, those included that come later."""
DOMAINS: Final = ("host", "rack", "cell", "zone")
"""What may fail together, the smallest first."""


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of host and how many there are, spread evenly over its zones and, within each, over ``racks`` racks, which
    are dealt to ``cells`` in turn. ``price_per_hour`` of one host, in whatever currency."""

    name: Text
    count: Count
    vcpus: Positive
    memory_gb: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
    disk_gb: Count = 0
    gpus: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    gpu_model: str = ""
    zones: tuple[Text, ...] = ("zone-1",)
    racks: Positive = 1
    cells: tuple[Text, ...] = ()
    cpu_allocation_ratio: Ratio = 1.0
    ram_allocation_ratio: Ratio = 1.0
    disk_allocation_ratio: Ratio = 1.0
    traits: tuple[str, ...] = ()
    price_per_hour: NotNegative = 0.0


class Growth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``add`` more hosts of a kind, ``at_hours`` into the run."""

    hardware: Text
    add: Positive
    at_hours: NotNegative


class Outage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One host, a rack, a cell or a zone fails, ``at_hours`` into the run, and comes back ``hours`` later."""

    at_hours: NotNegative
    hours: NotNegative
    host: str = ""
    rack: str = ""
    cell: str = ""
    zone: str = ""


class Maintenance(Outage, frozen=True, kw_only=True):
    """The same, announced: for ``notice_hours`` before it begins its hosts take no new guests, and those on them move
    away."""

    notice_hours: NotNegative = 1.0


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a fleet file. Guests that would have more than ``burst_above_percent`` of the vCPUs given run in a public
    cloud instead; None: none does."""

    name: str = "fleet"
    hardware: tuple[Hardware, ...]
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
        cpus = sum(kind.count * kind.vcpus for kind in self.hardware)
        given = ordered_sum(kind.count * kind.vcpus * kind.cpu_allocation_ratio for kind in self.hardware)
        return round(given / cpus, 4) if cpus else 1.0

    @property
    def hosts(self) -> int:
        """Hosts that are there from the beginning."""
        return sum(kind.count for kind in self.hardware)


def read_fleet(path: Path) -> FleetPlan:
    """A fleet file. Errors name the file and the key at fault."""
    try:
        return checked(msgspec.convert(tomllib.loads(path.read_text()), FleetPlan))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidValue(f"{path}: {reason}", field="fleet") from None
    except HostlerError as error:
        raise type(error)(f"{path}: {error.args[0]}", field=error.field, hint=error.hint) from None


def checked(plan: FleetPlan) -> FleetPlan:
    """The plan, if names are there once and what happens concerns things that are there. InvalidValue, DuplicateName or
    UnknownName, with the key at fault."""
    names = [kind.name for kind in plan.hardware]
    if not names:
        raise InvalidValue("hardware: a fleet needs a kind of host", field="fleet.hardware")
    for index, kind in enumerate(plan.hardware):
        _check_kind(f"hardware[{index}]", kind, names[:index])
    for index, growth in enumerate(plan.growth):
        if growth.hardware not in names:
            key = f"growth[{index}].hardware"
            raise UnknownName.among(f"{key}:", growth.hardware, names, field=f"fleet.{key}")
    if plan.hosts + sum(growth.add for growth in plan.growth) > MOST_HOSTS:
        raise InvalidValue(f"a fleet has at most {MOST_HOSTS:,} hosts", field="fleet.hardware")
    for word, outages in (("failures", plan.failures), ("maintenance", plan.maintenance)):
        for index, outage in enumerate(outages):
            _check_outage(f"{word}[{index}]", outage, plan)
    return plan


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


def _check_outage(key: str, outage: Outage, plan: FleetPlan) -> None:
    named = {word: getattr(outage, word) for word in DOMAINS if getattr(outage, word)}
    if len(named) != 1:
        raise InvalidValue(f"{key}: names one of a host, a rack, a cell and a zone", field=f"fleet.{key}")
    ((word, name),) = named.items()
    known = {getattr(place, word) for place in every_place(plan)}
    if name not in known:
        raise UnknownName.among(f"{word} in {key}.{word}:", name, known, field=f"fleet.{key}.{word}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host stands. ``cell`` is empty where there are none."""

    host: str
    hardware: str
    zone: str
    rack: str
    cell: str


def place_of(kind: Hardware, number: int) -> Place:
    """Where the host with a number, from 0, of its kind stands."""
    zone = kind.zones[number % len(kind.zones)]
    rack = number // len(kind.zones) % kind.racks
    cell = kind.cells[rack % len(kind.cells)] if kind.cells else ""
    return Place(f"{kind.name}-{number + 1:05}", kind.name, zone, f"{zone}/{kind.name}-r{rack + 1}", cell)


def every_place(plan: FleetPlan) -> Iterator[Place]:
    """Where all hosts stand, those included that come later."""
    for kind in plan.hardware:
        count = kind.count + sum(growth.add for growth in plan.growth if growth.hardware == kind.name)
        yield from (place_of(kind, number) for number in range(count))
