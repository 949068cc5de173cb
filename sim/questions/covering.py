"""Mixes of hosts that guests need at least: a mixed-integer program over how many hosts of each kind stand in each
zone, with guests as a fluid. What it finds is a bound, since no packing needs less, and a place to begin a search.

On each kind of host in each zone, and in each dimension, guests take no more than the hosts give; so do dual feasible
functions of their sizes (Fekete and Schepers: of a guest above half a host a whole one, of one of exactly half a half,
and so on for thirds and quarters). Anti-affinity groups need as many hosts as they have members that must not share
one. With a reserve, all of this holds without one host, rack or zone, whichever it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue
from ...placement.types.extras import import_extra
from ...placement.types.request import RequestSpec
from ..run.fleet_plan import Hardware
from ..run.holding import asked, classes_of, could_hold, holds
from ..trace.terms import Terms
from .least import Beside, Moment

Reserve = Literal["", "host", "rack", "zone"]
"""What may fail: nothing, or any one of these."""
MOST_PARTS: Final = (2, 3, 4)
"""Parts of a host by which sizes are rounded."""
MOST_VARIABLES: Final = 150_000
"""In one program: above it failures, then moments, are left out, which weakens the bound only."""
MOST_NODES: Final = 2_000
"""Of the search for whole numbers; a limit of number and not of time, so that the answer is always the same."""
_FINEST: Final = 10_000
"""Parts of a unit of the objective in which sums are whole."""
Real = NDArray[np.float64]


class Asked(NamedTuple):
    """Guests that are alike: what one takes in each dimension, on which kinds it can be and in which zone ("": any)."""

    sizes: tuple[int, ...]
    kinds: frozenset[str]
    zone: str


class Cover(NamedTuple):
    """Hosts by kind, what they cost, and what is known to be the least that any mix costs."""

    counts: dict[str, int]
    value: float
    bound: float


class Covering:
    """The guests of some moments and the hosts that can be bought for them, ``kinds``, beside ``others``; ``later``
    hosts of a kind come by themselves. ``allowed`` guests need not be served.

    InvalidValue for a guest that none of them can hold, or that could not survive its zone."""

    def __init__(
        self,
        moments: Sequence[Moment],
        specs: Sequence[RequestSpec],
        terms: Sequence[Terms],
        kinds: Sequence[Hardware],
        others: Sequence[Beside] = (),
        *,
        reserve: Reserve = "",
        later: Mapping[str, int] | None = None,
        allowed: int = 0,
    ) -> None:
        self.kinds, self.others, self.reserve = list(kinds), list(others), reserve
        self.later, self.allowed = dict(later or {}), allowed
        self.classes = classes_of(specs)
        self.zones = sorted(
            {zone for kind in kinds for zone in kind.zones} | {z for each in others for z in each.hosts}
        )
        self._places = [(number, zone) for number, kind in enumerate(self.kinds) for zone in kind.zones]
        """Kinds that can be bought, in their zones: the first places of the program; others come after them."""
        self._fixed = [(number, zone) for number, each in enumerate(self.others) for zone in sorted(each.hosts)]
        self.apart = max((moment.apart(terms, allowed=allowed) for moment in moments), default=0)
        self.demands = [self._demand(moment, specs) for moment in moments]
        if reserve == "zone":
            bound_to = {each.zone for demand in self.demands for each in demand if each.zone}
            if bound_to:
                problem = f"guests of {sorted(bound_to)[0]} cannot be elsewhere when that zone fails"
                raise InvalidValue(problem, field="reserve", hint="a reserve of a host or a rack")

    def _demand(self, moment: Moment, specs: Sequence[RequestSpec]) -> Counter[Asked]:
        found: Counter[Asked] = Counter()
        for number, count in enumerate(np.bincount(moment.spec, minlength=len(specs)).tolist()):
            if count:
                found[self._asked(specs[number])] += count
        return found

    def _asked(self, spec: RequestSpec) -> Asked:
        able = {kind.name for kind in self.kinds if could_hold(kind, spec)}
        able |= {f"{at}" for at, each in enumerate(self.others) if could_hold(each.kind, spec, each.hosts.keys())}
        if not able:
            raise InvalidValue(f"a guest {spec.flavor.name} fits no host that is there or can be bought", field="trace")
        return Asked(asked(spec, self.classes), frozenset(able), spec.availability_zone or "")

    def least(self, unit: Mapping[str, float], *, times: float = 1.0, most: Mapping[str, int] | None = None) -> Cover:
        """The mix with the least sum of ``unit`` by kind for ``times`` as many guests. ``most``: hosts of a kind at
        most. InvalidValue where no mix is enough."""
        return _Program(self, unit, times, most or {}).solved()


class _Program:
    """The program in the form that the solver takes. Variables: hosts of each kind (whole), of each place (whole),
    which kinds are bought at all, guests left out of each moment; then, for each moment and each failure, guests by
    place."""

    def __init__(self, covering: Covering, unit: Mapping[str, float], times: float, most: Mapping[str, int]) -> None:
        self.covering, self.unit, self.times = covering, unit, times
        self.rows: list[int] = []
        self.columns: list[int] = []
        self.values: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.cost: list[float] = []
        self.whole: list[int] = []
        self.upper: list[float] = []
        kinds, places = covering.kinds, covering._places
        ceiling = {kind.name: float(most.get(kind.name, self._most(kind))) for kind in kinds}
        self.hosts = [self.variable(unit[kind.name], ceiling[kind.name], whole=True) for kind in kinds]
        self.here = [self.variable(0.0, math.inf, whole=True) for _ in places]
        self.any = [self.variable(0.0, 1.0, whole=True) for _ in kinds] if covering.reserve == "host" else []
        for number, kind in enumerate(kinds):
            later, zones = covering.later.get(kind.name, 0), len(kind.zones)
            own = [at for at, (which, _) in enumerate(places) if which == number]
            self.constraint([(self.here[at], 1.0) for at in own] + [(self.hosts[number], -1.0)], later, later)
            for index, at in enumerate(own):
                # Hosts are dealt to the zones in turn.
                dealt = (later - index + zones - 1) / zones
                self.constraint([(self.here[at], 1.0), (self.hosts[number], -1.0 / zones)], -math.inf, dealt)
            if self.any:
                self.constraint([(self.hosts[number], 1.0), (self.any[number], -ceiling[kind.name])], -math.inf, 0.0)
        if covering.apart:
            there = sum(sum(each.hosts.values()) for each in covering.others) + sum(covering.later.values())
            self.constraint([(each, 1.0) for each in self.hosts], covering.apart - there, math.inf)
        failures = self._failures()
        for demand in self._kept(len(failures)):
            left = (
                [self.variable(0.0, count * times, whole=False) for count in demand.values()]
                if covering.allowed
                else []
            )
            if left:
                self.constraint([(each, 1.0) for each in left], -math.inf, covering.allowed)
            for failure in failures if self._size(len(failures), 1) <= MOST_VARIABLES else failures[:1]:
                self._serve(demand, left, failure)

    def _most(self, kind: Hardware) -> int:
        """A number of hosts of a kind that is enough, with one that fails: of hosts that are filled one after the
        other, no two that follow each other could be one."""
        has = np.array(holds(kind, self.covering.classes))
        loads = [0.0]
        for demand in self.covering.demands:
            sizes = sum((np.array(each.sizes) * count for each, count in demand.items()), np.zeros(len(has)))
            loads.append(float(np.divide(sizes, has, out=np.zeros(len(has)), where=has > 0).sum()))
        enough = 2 * max(loads) * max(1.0, self.times) + self.covering.apart + 3
        return math.ceil(enough * 2) * len(kind.zones)

    def _failures(self) -> list[tuple[str, object]]:
        """What the guests must be served without: nothing, then each kind of failure."""
        match self.covering.reserve:
            case "zone":
                return [("", None), *(("zone", zone) for zone in self.covering.zones)]
            case "":
                return [("", None)]
            case reserve:
                return [("", None), *((reserve, number) for number in range(len(self.covering.kinds)))]

    def _size(self, failures: int, moments: int) -> int:
        alike = max((len(demand) for demand in self.covering.demands), default=0)
        return alike * (len(self.covering._places) + len(self.covering._fixed)) * failures * moments

    def _kept(self, failures: int) -> Sequence[Counter[Asked]]:
        failures = failures if self._size(failures, 1) <= MOST_VARIABLES else 1
        return self.covering.demands[: max(1, MOST_VARIABLES // max(1, self._size(failures, 1)))]

    def variable(self, cost: float, most: float, *, whole: bool) -> int:
        """A new variable from 0 to ``most``."""
        self.cost.append(cost)
        self.whole.append(int(whole))
        self.upper.append(most)
        return len(self.cost) - 1

    def constraint(self, terms: Iterable[tuple[int, float]], low: float, high: float) -> None:
        """The sum of the terms is from ``low`` to ``high``."""
        for variable, value in terms:
            self.rows.append(len(self.low))
            self.columns.append(variable)
            self.values.append(value)
        self.low.append(low)
        self.high.append(high)

    def _serve(self, demand: Counter[Asked], left: Sequence[int], failure: tuple[str, object]) -> None:
        """All guests of a moment but those left out have a place in what is left by a failure."""
        covering = self.covering
        there = self._surviving(failure)
        on: list[list[tuple[int, Asked]]] = [[] for _ in range(len(there) + len(covering._fixed))]
        for number, (each, count) in enumerate(demand.items()):
            terms = [(left[number], 1.0)] if left else []
            for at in self._able(each, failure):
                guests = self.variable(0.0, math.inf, whole=False)
                on[at].append((guests, each))
                terms.append((guests, 1.0))
            self.constraint(terms, count * self.times, math.inf)
        for at, (number, _) in enumerate(covering._places):
            has = np.array(holds(covering.kinds[number], covering.classes))
            for terms, capacity in _limits(on[at], has):
                self.constraint([*terms, (there[at], -capacity)], -math.inf, 0.0)
        for at, (number, zone) in enumerate(covering._fixed, len(there)):
            hosts, given = covering.others[number].given(zone, covering.classes)
            has = np.array(holds(covering.others[number].kind, covering.classes))
            for terms, capacity in _limits(on[at], has, given, hosts):
                self.constraint(terms, -math.inf, capacity)

    def _able(self, each: Asked, failure: tuple[str, object]) -> list[int]:
        """Places that can take guests."""
        covering = self.covering
        found = [(at, covering.kinds[number].name, zone) for at, (number, zone) in enumerate(covering._places)]
        first = len(found)
        found += [(first + at, f"{number}", zone) for at, (number, zone) in enumerate(covering._fixed)]
        gone = failure[1] if failure[0] == "zone" else None
        return [at for at, name, zone in found if name in each.kinds and each.zone in ("", zone) and zone != gone]

    def _surviving(self, failure: tuple[str, object]) -> list[int]:
        """The variables of hosts by place of which a failure leaves so many."""
        what, which = failure
        if what not in ("host", "rack"):
            return self.here
        assert isinstance(which, int)
        kind, there = self.covering.kinds[which], list(self.here)
        own = [at for at, (number, _) in enumerate(self.covering._places) if number == which]
        later = self.covering.later.get(kind.name, 0)
        for at in own:
            there[at] = self.variable(0.0, math.inf, whole=False)
            self.constraint([(there[at], 1.0), (self.here[at], -1.0)], -math.inf, 0.0)
        lost = (self.any[which], 1.0) if what == "host" else (self.hosts[which], 1.0 / (len(kind.zones) * kind.racks))
        fixed = later - (later / (len(kind.zones) * kind.racks) if what == "rack" else 0.0)
        terms = [(there[at], 1.0) for at in own]
        self.constraint([*terms, (self.hosts[which], -1.0), lost], -math.inf, fixed)
        return there

    def solved(self) -> Cover:
        """The mix, and the bound that the solver has proven."""
        optimize, sparse = (
            import_extra(f"scipy.{name}", "planning", field="objective") for name in ("optimize", "sparse")
        )
        shape = (len(self.low), len(self.cost))
        matrix = sparse.csr_array(sparse.coo_array((self.values, (self.rows, self.columns)), shape=shape))
        found: Any = optimize.milp(
            np.array(self.cost),
            constraints=optimize.LinearConstraint(matrix, np.array(self.low), np.array(self.high)),
            integrality=np.array(self.whole),
            bounds=optimize.Bounds(np.zeros(len(self.cost)), np.array(self.upper)),
            options={"node_limit": MOST_NODES, "mip_rel_gap": 0.0},
        )
        if found.x is None:
            raise InvalidValue("no mix of these hosts is enough", field="hardware")
        counts = {kind.name: round(found.x[at]) for kind, at in zip(self.covering.kinds, self.hosts, strict=True)}
        value = sum(self.unit[name] * count for name, count in counts.items())
        dual = found.mip_dual_bound if found.mip_dual_bound is not None else found.fun
        return Cover(counts, value, min(value, self._rounded(float(dual))))

    def _rounded(self, bound: float) -> float:
        """A bound of a sum of whole numbers of units, up to the next such sum: a multiple of what divides all units, in
        ten-thousandths."""
        units = [each for each in self.unit.values() if each]
        whole = [round(each * _FINEST) for each in units]
        divisor = math.gcd(*whole) / _FINEST if whole else 0.0
        if any(abs(each * _FINEST - n) > 1e-6 for each, n in zip(units, whole, strict=True)) or not divisor:
            return max(0.0, bound - 1e-6 * abs(bound))
        return max(0.0, math.ceil(bound / divisor - 1e-6 * max(1.0, bound / divisor)) * divisor)


def _limits(
    guests: Sequence[tuple[int, Asked]], has: Real, given: Real | None = None, hosts: int = 1
) -> list[tuple[list[tuple[int, float]], float]]:
    """What guests take of hosts that have so much each, in each dimension, and as the dual feasible functions count it;
    with what one host gives of it. ``given``: what so many hosts give in all, where some of it is taken."""
    found = []
    for at, capacity in enumerate(has.tolist()):
        terms = [(guest, float(each.sizes[at])) for guest, each in guests if each.sizes[at]]
        if not terms:
            continue
        found.append((terms, capacity if given is None else float(given[at])))
        if capacity <= 0:
            continue
        for parts in MOST_PARTS:
            rounded = [(guest, _dual(size / capacity, parts)) for guest, size in terms]
            above = [(guest, part) for guest, part in rounded if part > 0]
            if above:
                found.append((above, float(hosts)))
    return found


def _dual(size: float, parts: int) -> float:
    """Fekete and Schepers' function of a size from 0 to 1: of sizes whose sum is at most 1 its sum is at most 1."""
    whole = parts * size
    nearest = round(whole)
    if abs(whole - nearest) < 1e-9:
        return size
    return math.floor(whole) / (parts - 1)
