"""Lower bounds on the hosts that a workload needs, and guests that no host could ever hold.

At the moments at which most is asked for, in all and in each zone, the guests are items and hosts are bins: the bounds
of ``pack``, with GPUs and other resource classes as dimensions, and as many hosts as the largest anti-affinity group
needs. Guests that only some kinds of host can hold, by their size, traits or GPU model, are counted by themselves
too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...placement.gpu.providers import gpu_wish
from ...placement.types.errors import InvalidValue
from ...placement.types.request import RequestSpec
from ..pack import bounds
from ..pack.instance import Instance
from ..run.empty_hosts import refused_by_empty_hosts
from ..run.fleet_plan import FleetPlan, Hardware, place_of
from ..run.holding import DIMENSIONS, asked, classes_of, could_hold, holds
from ..trace.terms import Terms
from ..trace.workload import ALONE, STEP_S, Guests

MOST_MOMENTS: Final = 8
Whole = NDArray[np.int64]


def check_possible(plan: FleetPlan, workload: Guests) -> None:
    """InvalidValue for guests that no host of the plan could ever hold, with a hint at units that explain it."""
    kinds = [(kind, plan.zones_of(kind.name)) for kind in plan.hardware]
    different = dict.fromkeys(workload.specs)
    wrong = [spec for spec in different if not any(could_hold(kind, spec, zones) for kind, zones in kinds)]
    wrong = wrong or refused_by_empty_hosts(plan, different)
    if not wrong:
        return
    worst = max(wrong, key=lambda spec: (spec.flavor.memory_mb, spec.flavor.vcpus))
    flavor = worst.flavor
    what = f"{flavor.vcpus:,} vCPU, {flavor.memory_mb / 1024:,g} GiB, {flavor.root_gb:,} GiB of disk"
    wish = gpu_wish(flavor.extra_specs)
    cells = [f"{key}={value}" for key, value in flavor.extra_specs.items() if key.startswith("hw:")]
    what += f", {', '.join(cells[:4])}" if cells else ""
    what += f", {wish.count} GPU {'|'.join(wish.models)}".rstrip() if wish.count else ""
    where = f" in {worst.availability_zone}" if worst.availability_zone else ""
    problem = f"{workload.name}: a guest of {what} fits no host{where}, not even an empty one"
    more = f" ({len(wrong):,} of {len(workload.specs):,} sizes do not)" if len(wrong) > 1 else ""
    raise InvalidValue(problem + more, field="trace", hint=_hint(plan, worst))


def _hint(plan: FleetPlan, spec: RequestSpec) -> str:
    vcpus, memory_mb, disk = (max(sizes) for sizes in zip(*(holds(kind)[:3] for kind in plan.hardware), strict=True))
    flavor, hints = spec.flavor, []
    if flavor.memory_mb > memory_mb >= flavor.memory_mb / 1024:
        hints.append("memory may be in MiB where GiB are expected: --columns memory_mb=NAME")
    if flavor.vcpus > vcpus >= flavor.vcpus / 1000:
        hints.append("CPUs may be in thousandths: --columns cpu_milli=NAME")
    if flavor.root_gb > disk and not disk:
        hints.append("the hosts have no disk_gb")
    elif flavor.root_gb > disk:
        hints.append("the disk may be in MiB where GiB are expected")
    if any(key.startswith("hw:") for key in flavor.extra_specs):
        hints.append("numa_cells, dedicated_vcpus, threads_per_core and huge_pages say what cells hosts have")
    hints.append("--refuse-impossible plays the trace all the same")
    return "; ".join(hints)


class Beside(NamedTuple):
    """Other hosts of a kind that are there: how many in each zone, and what of them is taken for good, in each of the
    dimensions, in all and by zone."""

    kind: Hardware
    hosts: Mapping[str, int]
    taken: Mapping[str, Whole]

    def given(self, zone: str, classes: Sequence[str] = ()) -> tuple[int, NDArray[np.float64]]:
        """The hosts in a zone, or in all, and what they give beside what is taken."""
        here = [zone] if zone else list(self.hosts)
        number = sum(self.hosts.get(each, 0) for each in here)
        whole = np.array(holds(self.kind, classes)) * number
        for each in here:
            if each in self.taken:
                whole[: len(DIMENSIONS)] -= self.taken[each]
        return number, np.maximum(whole, 0.0)


class Moment(NamedTuple):
    """A step at which most is asked for, and the guests that are there: their specs and groups."""

    step: int
    spec: Whole
    group: Whole

    def apart(self, terms: Sequence[Terms], which: NDArray[np.bool_] | slice = slice(None), *, allowed: int = 0) -> int:
        """Hosts that the largest anti-affinity group of those guests needs if ``allowed`` of its members are left out;
        0 without groups."""
        grouped = self.group[which] != ALONE
        groups, specs = self.group[which][grouped], self.spec[which][grouped]
        rules = dict(zip(groups.tolist(), specs.tolist(), strict=True))
        counts = Counter(groups.tolist())
        strict = (group for group, spec in rules.items() if terms[spec].policy == "anti-affinity")
        most = {group: terms[rules[group]].most_per_host for group in strict}
        return max((max(0, -(-(counts[group] - allowed) // each)) for group, each in most.items()), default=0)


def lower_bound(
    workload: Guests, kind: Hardware, others: Sequence[Beside | Hardware] = (), *, until_hours: float | None = None
) -> tuple[int, int]:
    """The number of guests that come in a run that ends ``until_hours`` after its beginning (None: of all); and hosts
    of ``kind`` that even a perfect packing needs beside the others when most is asked for at once, in all or in one
    zone, at least one where there are no others. Holds for refusing nothing. InvalidValue for a guest that fits
    neither, or where no guest comes. O(guests), twice."""
    there = [each if isinstance(each, Beside) else _counted(each, each.count) for each in others]
    for spec in dict.fromkeys(workload.specs):
        if not could_hold(kind, spec) and not any(could_hold(each.kind, spec, each.hosts.keys()) for each in there):
            raise InvalidValue(f"{workload.name}: a guest {spec.flavor.name} fits no host", field="trace")
    classes = classes_of(workload.specs)
    zones = ["", *sorted({spec.availability_zone for spec in workload.specs if spec.availability_zone})]
    inside = {zone: np.array([zone in ("", spec.availability_zone) for spec in workload.specs]) for zone in zones}
    sizes = np.array([asked(spec, classes) for spec in workload.specs], np.int64)
    sizes = sizes.reshape(-1, len(DIMENSIONS) + len(classes))
    beside_of = [
        frozenset(at for at, each in enumerate(there) if could_hold(each.kind, spec, each.hosts.keys()))
        for spec in workload.specs
    ]
    amounts = [np.where(inside[zone][:, None], sizes, 0) for zone in zones]
    count, moments = busiest(workload, amounts, until_hours=until_hours)
    needs = [0 if any(any(each.hosts.values()) for each in there) else 1]
    for moment in moments:
        for zone in zones:
            # Guests that only some of the other hosts can hold are on these, or on hosts of the kind.
            for able in dict.fromkeys([frozenset(range(len(there))), *beside_of]):
                which = inside[zone][moment.spec] & np.array([each <= able for each in beside_of])[moment.spec]
                given = [each.given(zone, classes) for at, each in enumerate(there) if at in able]
                apart, has = moment.apart(workload.terms, which), holds(kind, classes)
                hosts = _least(sizes[moment.spec[which]], apart, has, given)
                needs.append(_dealt(kind, zone, hosts))
    return count, max(needs)


def busiest(
    workload: Guests, amounts: Sequence[Whole], *, until_hours: float | None = None
) -> tuple[int, list[Moment]]:
    """How many guests come in a run that ends ``until_hours`` after its beginning (None: in all), and the moments of it
    at which most is asked for in each of the columns of the amounts, which are by spec. InvalidValue where no guest
    comes. O(guests), twice."""
    steps = workload.steps
    if until_hours is not None:
        steps = range(steps.start, min(steps.stop, workload.start_s + round(until_hours * 3600)), STEP_S)
    count, numbers = _busiest(workload, amounts, steps)
    if not count:
        until = f" in the first {until_hours:g} hours" if until_hours is not None else ""
        raise InvalidValue(f"{workload.name}: no guests{until}", field="trace")
    return count, _moments(workload, numbers)


def _busiest(workload: Guests, amounts: Sequence[Whole], steps: range) -> tuple[int, list[int]]:
    """How many guests come in the steps, and the numbers of those at which most is asked for in each of the columns of
    the amounts."""
    count = 0
    columns = [column for each in amounts for column in each.T if column.any()]
    changes = np.zeros((len(columns), len(steps) + 1), np.int64)
    for part in workload.parts():
        come, go = stay(part.arrival_s, part.departure_s, steps)
        count += int(np.count_nonzero(come < len(steps)))
        for change, column in zip(changes, columns, strict=True):
            np.add.at(change, come, column[part.spec])
            np.subtract.at(change, go, column[part.spec])
    found = [int(np.argmax(np.cumsum(change[:-1]))) for change in changes] if len(steps) else []
    return count, list(dict.fromkeys(found))[:MOST_MOMENTS]


def stay(arrival_s: Whole, departure_s: Whole, steps: range) -> tuple[Whole, Whole]:
    """In which steps guests come and go."""
    come = np.clip(-(-(arrival_s - steps.start) // STEP_S), 0, len(steps))
    return come, np.clip(-(-(departure_s - steps.start) // STEP_S), come, len(steps))


def _moments(workload: Guests, steps: Sequence[int]) -> list[Moment]:
    here: dict[int, list[tuple[Whole, Whole]]] = {step: [] for step in steps}
    for part in workload.parts():
        come, go = stay(part.arrival_s, part.departure_s, workload.steps)
        for step, found in here.items():
            there = (come <= step) & (go > step)
            found.append((part.spec[there], part.group[there]))
    return [
        Moment(step, *(np.concatenate(column) for column in zip(*found, strict=True)))
        for step, found in here.items()
        if found
    ]


def _least(sizes: Whole, apart: int, has: Sequence[float], others: Sequence[tuple[int, NDArray[np.float64]]]) -> int:
    """Hosts that give so much each which guests need, ``apart`` hosts at least, beside so many others, which give so
    much."""
    if not len(sizes):
        return 0
    there = sum((given for _, given in others), np.zeros(len(has)))
    missing = sizes.sum(axis=0) - there
    needs = [math.ceil(amount / each) if each else 1 for amount, each in zip(missing, has, strict=True) if amount > 0]
    hosts, beside = max(needs, default=0), sum(number for number, _ in others)
    hosts = max(hosts, apart - beside)
    if beside:
        return hosts
    capacity = np.floor(np.array(has)).astype(np.int64)
    keep = sizes.any(axis=0) & (capacity > 0)
    names = tuple(str(number) for number, kept in enumerate(keep.tolist()) if kept)
    return max(hosts, bounds.lower_bound(Instance("moment", names, capacity[keep], sizes[:, keep])))


def _counted(kind: Hardware, count: int) -> Beside:
    """So many hosts of a kind, dealt to its zones."""
    return Beside(kind, Counter(place_of(kind, number).zone for number in range(count)), {})


def beside(plan: FleetPlan, bought: Collection[str], *, standing_stay: bool) -> list[Beside]:
    """The hosts of a plan, those that come later included, but for those that the hardware ``bought`` counts. What
    stands on named hosts is taken for good, guests of a state only if they stay."""
    found: dict[str, tuple[Counter[str], dict[str, Whole]]] = {kind.name: (Counter(), {}) for kind in plan.hardware}
    for host in plan.named:
        hosts, taken = found[host.hardware]
        hosts[host.zone] += 1
        if standing_stay or not plan.state:
            used = np.array([*host.used, *[0] * (len(DIMENSIONS) - 3)], np.int64)
            taken[host.zone] = taken.get(host.zone, 0) + used
    for kind in plan.hardware:
        if kind.name not in bought:
            later = sum(growth.add for growth in plan.growth if growth.hardware == kind.name)
            found[kind.name][0].update(place_of(kind, number).zone for number in range(kind.count + later))
    kinds = {kind.name: kind for kind in plan.hardware}
    return [Beside(kinds[name], *each) for name, each in found.items() if each[0]]


def _dealt(kind: Hardware, zone: str, hosts: int) -> int:
    """Hosts of a kind required for a number of hosts in one zone: they are distributed over its zones in turn."""
    if not zone or zone not in kind.zones or not hosts:
        return hosts
    return (hosts - 1) * len(kind.zones) + kind.zones.index(zone) + 1
