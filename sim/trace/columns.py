"""What a trace's columns mean: texts of a CSV file, some rows at a time, as the columns of a workload."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.gpu.providers import gpu_extra_specs
from ...placement.types.errors import HostlerError, UnknownName
from ...placement.types.request import Flavor, RequestSpec
from .clock import Clock, duration_s
from .csv_columns import MOST, Kept, Texts, Wrong
from .derived import derived
from .machines import Machine
from .terms import FAULT_DOMAINS, PLAIN, POLICIES, Terms, Usage, Usages
from .workload import ALONE, NEVER, STEP_S

COLUMNS: Final[Mapping[str, str]] = {
    "id": "name of the guest; none may be there twice",
    "arrival_s": "seconds from the beginning, or a point in time; before 0: it stands there at the beginning",
    "departure_s": "seconds from the beginning; empty: never",
    "lifetime_s": "seconds, or H:MM:SS; empty: forever",
    "flavor": "name of a flavor of the catalogue, in place of sizes",
    "vcpus": "vCPUs",
    "cpu_milli": "thousandths of a CPU, rounded up to whole ones",
    "memory_mb": "MiB",
    "memory_gb": "GiB",
    "disk_gb": "GiB",
    "gpus": "number of GPUs",
    "gpu_milli": "thousandths of each GPU",
    "gpu_models": "A|B",
    "zone": "availability zone; empty: any",
    "batch": "guests asked for together have the same",
    "group": "guests of one server group have the same; empty: none",
    "group_policy": "anti-affinity (the default), affinity, soft-anti-affinity or soft-affinity",
    "most_per_host": "guests of an anti-affinity group that may share a host, 1 if empty",
    "fault_domain": "rack, row, cluster, cell or zone over which the guests of a group are spread, one by one",
    "traits": "traits that the host must have, A|B, or must not have, !C",
    "resources": "amounts of other resource classes, CUSTOM_A=1|CUSTOM_B=2",
    "extra_specs": "extra specs of the flavor, hw:numa_nodes=2|hw:mem_page_size=large",
    "expected_lifetime_s": "seconds that it is expected to stay, for weighers of your own; it leaves when it leaves",
    "project": "whose it is",
    "priority": "whole number; guests with a greater one are placed first",
    "preemptible": "1: guests with a greater priority may take its place",
    "cpu_usage_percent": "of its vCPUs, what it uses on average",
    "cpu_usage_p95_percent": "of its vCPUs, what it uses at the 95th percentile; the average if empty",
}
"""What a trace may say of a guest, and in which unit."""
_WISHES: Final = ("zone", "traits", "resources", "extra_specs", "expected_lifetime_s")
_TERMS: Final = (
    *("group_policy", "most_per_host", "fault_domain", "project", "priority", "preemptible"),
    *("cpu_usage_percent", "cpu_usage_p95_percent"),
)
_FLAVORED: Final = ("flavor", *_WISHES, *_TERMS)
_SIZES: Final = ("vcpus", "cpu_milli", "memory_mb", "memory_gb", "disk_gb", "gpus", "gpu_milli", "gpu_models")
_SIZED: Final = (*_SIZES, *_WISHES, *_TERMS)
"""What makes the spec of a guest, with a catalogue and without."""
EXPECTED: Final = "hostler:expected_lifetime_h"
"""Extra spec: hours that a guest is expected to stay, up to the next power of two, so that shapes stay few."""
Whole = NDArray[np.int64]


class Columns:
    """Takes what a trace's rows say, chunk by chunk, and gives the columns of a workload, in the order of the file.
    ``flavors``: the catalogue of flavors, if sizes are given by name. ``clock``: how times are written. ``usages``:
    what guests use by their ids, in place of the columns. ``machine``: what vcpus and memory_gb are fractions of."""

    def __init__(
        self,
        flavors: Mapping[str, Flavor] | None,
        clock: Clock = Clock(),  # noqa: B008  # a constant
        usages: Usages | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._clock, self._usages, self._machine = clock, usages, machine
        self._known_usages = 0
        self._ids: set[str] = set()
        self._again: set[str] = set()
        self._new_ids: set[str] = set()
        self._shaped = _FLAVORED if flavors is not None else _SIZED
        self._specs: list[RequestSpec] = []
        self._terms: list[Terms] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        """Of specs, by what is different about them."""
        self._equal: dict[RequestSpec, RequestSpec] = {}
        self._flavors = flavors
        self._shapes = _Known(self._number_of)
        self._shape_names: tuple[str, ...] = ()
        self._batches = Names()
        self._groups: dict[str, int] = {}
        self._rules: dict[int, tuple[str, int, str]] = {}
        """Policy, most per host and fault domain of each group."""
        self._kept = Kept()

    @property
    def specs(self) -> tuple[RequestSpec, ...]:
        """One per shape that has occurred."""
        return tuple(self._specs)

    @property
    def terms(self) -> tuple[Terms, ...]:
        """One per spec."""
        return tuple(self._terms)

    @property
    def used(self) -> int:
        """Rows whose guests ``usages`` tells of."""
        return self._known_usages

    def convert(self, texts: Texts) -> dict[str, Whole]:
        """The columns for some rows. Wrong for what cannot be."""
        arrival = self._clock.seconds(texts["arrival_s"], "arrival_s")
        if np.isnan(arrival).any():
            raise Wrong("arrival_s", "is missing")
        steps = np.floor(arrival / STEP_S).astype(np.int64) * STEP_S
        count, before = len(arrival), self._kept.rows
        batch, group = texts.get("batch"), texts.get("group")
        columns = {
            "arrival_s": steps,
            "departure_s": _departures(self._clock, texts, arrival, steps),
            "spec": self._spec(texts, count),
            "batch": np.arange(before, before + count) if batch is None else self._batches.numbers(batch, before),
            "group": np.full(count, ALONE) if group is None else _groups(self._groups, group),
        }
        self._check_ids(texts.get("id", ()))
        self._check_rules(columns["group"], columns["spec"])
        return columns

    def _check_rules(self, groups: Whole, specs: Whole) -> None:
        """Wrong for a group whose guests name different rules, and for rules of a guest that is in no group."""
        for group, spec in zip(groups.tolist(), specs.tolist(), strict=True):
            terms = self._terms[spec]
            if terms is PLAIN and group == ALONE:
                continue
            rule = terms.policy, terms.most_per_host, terms.fault_domain
            if group == ALONE:
                names = ("fault_domain", "most_per_host", "group_policy")
                for name, value, plain in zip(names, reversed(rule), reversed(_NO_RULE), strict=True):
                    if value != plain:
                        raise Wrong(name, f"is {value!r}, of a guest that is in no group", hint="name its group")
                continue
            known = self._rules.setdefault(group, rule)
            if known != rule:
                name = "group_policy" if known[:2] != rule[:2] else "fault_domain"
                what = f"{rule[0]!r}, {rule[1]} per host" if name == "group_policy" else f"{rule[2]!r}"
                raise Wrong(name, f"is {what}, unlike that of other guests of its group")

    def _check_ids(self, ids: Sequence[str]) -> None:
        """Wrong for a guest that was there before: in a chunk before this one, or a row of this one that was seen again
        by itself to find which is at fault."""
        found = [each for each in ids if each]
        new = set(found)
        if len(ids) != 1:
            self._again = set()
        if len(new) < len(found) or new & self._ids or new & self._again:
            raise Wrong("id", f"is {ids[0][:40]!r}, which was there before")
        self._again |= new if len(ids) == 1 else set()
        self._new_ids = new

    def add(self, chunk: Mapping[str, Whole]) -> None:
        """Keep the columns of the rows that come next."""
        self._ids |= self._new_ids
        self._again = set()
        self._kept.add(chunk)

    def columns(self) -> dict[str, Whole]:
        """The columns of all rows, which are not kept here any more."""
        columns = self._kept.columns()
        self._batches.settle(columns["batch"])
        return columns

    def _spec(self, texts: Texts, count: int) -> Whole:
        self._shape_names = tuple(name for name in self._shaped if name in texts)
        shapes = zip(*(texts[name] for name in self._shape_names), strict=True)
        if self._usages is not None:
            return self._using(texts, shapes, count)
        return np.fromiter(map(self._shapes.__getitem__, shapes), np.int64, count)

    def _using(self, texts: Texts, shapes: Iterable[tuple[str, ...]], count: int) -> Whole:
        """As ``_spec``, with what guests use by their ids."""
        assert self._usages is not None
        names = [name for name in self._shape_names if name not in _USAGE]
        kept = [self._shape_names.index(name) for name in names]
        self._shape_names = (*names, *_USAGE)
        found, numbers = 0, np.empty(count, np.int64)
        for at, (each, shape) in enumerate(zip(texts.get("id", [""] * count), shapes, strict=True)):
            usage = self._usages.get(each)
            found += usage is not None
            told = ("", "") if usage is None else (f"{100 * usage.mean:.0f}", f"{100 * usage.p95:.0f}")
            numbers[at] = self._shapes[*(shape[place] for place in kept), *told]
        self._known_usages += found
        return numbers

    def _number_of(self, shape: tuple[str, ...]) -> int:
        """The number of the spec that a guest has of whom a row says so much."""
        told = dict(zip(self._shape_names, shape, strict=True))
        sized = _sized(told, self._machine) if self._flavors is None else self._named(told["flavor"])
        flavor = _wished(sized, told)
        zone, terms = told.get("zone") or None, _terms(told)
        sizes = (flavor.vcpus, flavor.memory_mb, flavor.root_gb, *flavor.extra_specs.items())
        number = self._numbers.setdefault((flavor.name, zone, terms, *sizes), len(self._specs))
        if number == len(self._specs):
            # NUMA cells and PCI devices follow from the flavor, as nova-api makes them.
            spec = derived(RequestSpec(flavor=flavor, availability_zone=zone))
            # Equal specs with different terms are one object, by which the engine knows them.
            self._specs.append(self._equal.setdefault(spec, spec))
            self._terms.append(terms)
        return number

    def _named(self, name: str) -> Flavor:
        assert self._flavors is not None
        if name not in self._flavors:
            error = UnknownName.among("flavor", name, self._flavors)
            raise Wrong("flavor", f"is {name[:40]!r}, which the catalogue has not", hint=error.hint, kind=UnknownName)
        return self._flavors[name]


class _Known(dict[tuple[str, ...], int]):
    """The numbers of shapes that have occurred, asked of ``number_of`` the first time."""

    def __init__(self, number_of: Callable[[tuple[str, ...]], int]) -> None:
        super().__init__()
        self._number_of = number_of

    def __missing__(self, shape: tuple[str, ...]) -> int:
        number = self[shape] = self._number_of(shape)
        return number


class Names:
    """Numbers for names: those that are whole numbers stand for themselves, so that they need no memory."""

    def __init__(self) -> None:
        self._others: dict[str, int] = {}

    def numbers(self, texts: Sequence[str], rows_before: int) -> Whole:
        """A number for each name, the same for the same; for nothing a negative one of its own."""
        try:
            numbers = np.fromiter(map(int, texts), np.int64, len(texts))
        except (ValueError, OverflowError):
            numbers = _NONE
        if len(numbers) == len(texts) and list(map(str, numbers.tolist())) == texts and _stand(numbers):
            return numbers
        found = [self._number(text) if text else -1 - row for row, text in enumerate(texts, rows_before)]
        return np.array(found, np.int64)

    def _number(self, text: str) -> int:
        if text.isdecimal() and text.isascii() and len(text) <= _DIGITS and str(int(text)) == text:
            return int(text)
        return self._others.setdefault(text, _OTHERS + len(self._others))

    def settle(self, numbers: Whole) -> None:
        """Bring the numbers of names that are no numbers to after the others, in the numbers of all."""
        if self._others:
            others = numbers >= _OTHERS
            numbers[others] += numbers[~others].max(initial=-1) + 1 - _OTHERS


_NONE: Final[Whole] = np.empty(0, np.int64)
_DIGITS: Final = 18
_OTHERS: Final = 1 << 62
"""Ids from here on are names that are not whole numbers."""


def _stand(numbers: Whole) -> bool:
    return bool(np.all((numbers >= 0) & (numbers < 10**_DIGITS)))


def _groups(known: dict[str, int], texts: Sequence[str]) -> Whole:
    return np.array([known.setdefault(text, len(known)) if text else ALONE for text in texts], np.int64)


# times


def _departures(clock: Clock, texts: Texts, arrival: NDArray[np.float64], steps: Whole) -> Whole:
    """When guests leave, brought up to a step and at least one after they came; NEVER where nothing is said."""
    departure = np.full(len(arrival), np.nan)
    if "lifetime_s" in texts:
        departure = arrival + clock.seconds(texts["lifetime_s"], "lifetime_s")
    if "departure_s" in texts:
        told = clock.seconds(texts["departure_s"], "departure_s")
        if np.any(told < arrival):
            raise Wrong("departure_s", f"is {told[0]:.15g}, the arrival {arrival[0]:.15g}")
        departure = np.where(np.isnan(told), departure, told)
    stays = np.isnan(departure)
    ends = np.ceil(np.where(stays, 0.0, departure) / STEP_S).astype(np.int64) * STEP_S
    return np.where(stays, NEVER, np.maximum(ends, steps + STEP_S))


# sizes


def _sized(told: Mapping[str, str], machine: Machine | None) -> Flavor:
    """The flavor of a guest by its sizes, fractions of a ``machine`` if there is one. Wrong for one that cannot be."""
    if machine is None:
        _check_whole(told)
        vcpus = _first(told, ("vcpus", 1.0), ("cpu_milli", 0.001), least=1)
        memory_mb = _first(told, ("memory_mb", 1.0), ("memory_gb", 1024.0))
    else:
        for name in ("vcpus", "memory_gb"):
            if (part := _amount(told, name, MOST)) is not None and part > 1:
                raise Wrong(name, f"is {told[name][:40]!r}", hint="a fraction of the machine that --machine names")
        vcpus = _first(told, ("vcpus", machine.vcpus), least=1)
        memory_mb = _first(told, ("memory_gb", machine.memory_gb * 1024))
    disk_gb = math.ceil(_amount(told, "disk_gb", MOST) or 0)
    gpus, milli = _share(told, "gpus", 64) or 0, _share(told, "gpu_milli", 1000)
    extra = _gpus(1000 if milli is None else milli, gpus, told.get("gpu_models", ""))
    name = f"{vcpus}x{memory_mb}" + (f"+{gpus}x{1000 if milli is None else milli}" if extra else "")
    return Flavor(name=name, vcpus=vcpus, memory_mb=memory_mb, root_gb=disk_gb, extra_specs=extra)


def _check_whole(told: Mapping[str, str]) -> None:
    """Wrong for a fraction of a vCPU: it may be one of a machine, or of a CPU that guests share."""
    amount = _amount(told, "vcpus", MOST)
    if amount is not None and amount != int(amount):
        hint = "whole vCPUs; thousandths of a CPU are cpu_milli, fractions of a machine need --machine 64x256"
        raise Wrong("vcpus", f"is {told['vcpus'][:40]!r}", hint=hint)


def _first(told: Mapping[str, str], *ways: tuple[str, float], least: int = 0) -> int:
    """The first of the columns that says something, times its factor, rounded up."""
    for name, factor in ways:
        amount = _amount(told, name, MOST / factor)
        if amount is None:
            continue
        # A thousandth is not exact: 3000 thousandths are three.
        whole = math.ceil(round(amount * factor, 9))
        if whole < least:
            raise Wrong(name, f"is {told[name][:40]!r}")
        return whole
    raise Wrong(next(name for name, _ in ways if name in told), "is missing")


def _amount(told: Mapping[str, str], name: str, most: float) -> float | None:
    text = told.get(name, "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise Wrong(name, f"is {text[:40]!r}", hint=f"0 to {most:.15g}")
    return number


def _share(told: Mapping[str, str], name: str, most: int) -> int | None:
    number = _amount(told, name, most)
    if number is not None and number != int(number):
        raise Wrong(name, f"is {told[name][:40]!r}", hint=f"a whole number from 0 to {most}")
    return None if number is None else int(number)


# what is said beside sizes

_USAGE: Final = ("cpu_usage_percent", "cpu_usage_p95_percent")


def _wished(flavor: Flavor, told: Mapping[str, str]) -> Flavor:
    """The flavor with the extra specs of the traits, resources and extra specs that a row names."""
    more: dict[str, str] = {}
    for part in _parts(told, "traits"):
        name = part.removeprefix("!")
        if not re.fullmatch(r"[A-Z0-9_]+", name):
            raise Wrong("traits", f"is {told['traits'][:40]!r}", hint="HW_CPU_X86_AVX2|!CUSTOM_OLD")
        more[f"trait:{name}"] = "forbidden" if part.startswith("!") else "required"
    for part in _parts(told, "resources"):
        name, _, amount = part.partition("=")
        if not re.fullmatch(r"[A-Z0-9_]+", name) or not amount.isdecimal():
            raise Wrong("resources", f"is {told['resources'][:40]!r}", hint="CUSTOM_FPGA=1|CUSTOM_LICENCE=2")
        more[f"resources:{name}"] = amount
    for part in _parts(told, "extra_specs"):
        name, sign, value = part.partition("=")
        if not name or not sign:
            raise Wrong("extra_specs", f"is {told['extra_specs'][:40]!r}", hint="hw:numa_nodes=2|hw:cpu_policy=shared")
        more[name] = value
    expected = duration_s(told.get("expected_lifetime_s", ""))
    if expected is None:
        expected = _amount(told, "expected_lifetime_s", 2**31)
    if expected is not None:
        more[EXPECTED] = str(2 ** max(0, math.ceil(math.log2(max(expected, 1) / 3600))))
    if not more:
        return flavor
    name = f"{flavor.name} {' '.join(f'{key}={value}' for key, value in more.items())}"[:255]
    return replace(flavor, name=name, extra_specs={**flavor.extra_specs, **more})


def _parts(told: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in told.get(name, "").split("|") if part.strip()]


def _terms(told: Mapping[str, str]) -> Terms:
    """What a row says beside sizes and wishes. Wrong for what cannot be."""
    policy = told.get("group_policy", "").strip() or PLAIN.policy
    if policy not in POLICIES:
        raise Wrong("group_policy", f"is {policy[:40]!r}", hint=" or ".join(POLICIES))
    most = _share(told, "most_per_host", MOST)
    if most == 0 or (most is not None and most > 1 and policy != "anti-affinity"):
        raise Wrong("most_per_host", f"is {told['most_per_host'][:40]!r}", hint="1 or more, of anti-affinity")
    text = told.get("priority", "").strip() or "0"
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        raise Wrong("priority", f"is {text[:40]!r}", hint="a whole number")
    preemptible = told.get("preemptible", "").strip().lower()
    if preemptible not in _NO | _YES:
        raise Wrong("preemptible", f"is {preemptible[:40]!r}", hint="1 or 0")
    mean, p95 = (_amount(told, name, 10_000) for name in _USAGE)
    if p95 is not None and (mean is None or p95 < mean):
        raise Wrong(_USAGE[1], f"is {told[_USAGE[1]][:40]!r}", hint="the average or more")
    domain = told.get("fault_domain", "").strip()
    if domain not in FAULT_DOMAINS:
        raise Wrong("fault_domain", f"is {domain[:40]!r}", hint=" or ".join(FAULT_DOMAINS[1:]))
    if domain and policy == "affinity":
        raise Wrong("fault_domain", f"is {domain!r}, but guests of an affinity group share a host")
    usage = None if mean is None else Usage(mean=mean / 100, p95=(mean if p95 is None else p95) / 100)
    terms = Terms(
        policy=policy,
        most_per_host=most or 1,
        project=told.get("project", "").strip(),
        priority=int(text),
        preemptible=preemptible in _YES,
        fault_domain=domain,
        usage=usage,
    )
    return PLAIN if terms == PLAIN else terms


_NO_RULE: Final = (PLAIN.policy, PLAIN.most_per_host, PLAIN.fault_domain)
_YES: Final = frozenset({"1", "true", "yes"})
_NO: Final = frozenset({"", "0", "false", "no"})


def _gpus(milli: int, gpus: int, models: str) -> Mapping[str, str]:
    try:
        return gpu_extra_specs(milli, gpus, models)
    except HostlerError as error:
        raise Wrong("gpu_models", f"is {models[:40]!r}", hint=error.hint) from None
