"""The contract of a weigher: raw value per host, how it is normalised, and which option holds its multiplier."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types.host import HostState
from ..types.request import Request

if TYPE_CHECKING:
    from ..fleet.fleet import Fleet
    from ..fleet.host_view import FleetView
    from ..types.options import Options

Amounts = dict[int, dict[int, int]]
"""Row -> resource class index -> amount."""


class Formula(NamedTuple):
    """One of the kernels' formulas of vector packing (ext/vector_fit.py has them, ext/constants.py their numbers), and
    what of a guest it weighs."""

    number: int
    vcpus: float
    memory_gib: float


class Weigher(ABC):
    """Base of all weighers. Score of a host: sum over weighers, from 0.0, in order, of ``multiplier * norm(raw)``.

    ``norm``: raw is clamped to [minval, maxval] where set; lo = minval if set, else the least raw of the hosts that
    passed; hi = maxval if set, else the greatest; hi == lo gives 0 for all, else (raw - lo) / (hi - lo). Source: Nova
    33 weights.
    """

    name: ClassVar[str]
    minval: ClassVar[float | None] = None
    maxval: ClassVar[float | None] = None
    option: ClassVar[str]
    """Key of the multiplier: an option of ``[filter_scheduler]``, and an aggregate metadata key that overrides it per
    host."""
    group_factor: ClassVar[float | None] = None
    """Group form: the raw value is this times the number of members of the request's server group on the host. If it is
    positive, only groups of the policy soft-affinity count, else those of soft-anti-affinity."""
    sign: ClassVar[float] = 1.0
    """Factor of every multiplier: -1.0 where a greater option means a worse host."""
    whole_trees: ClassVar[bool] = False
    """True if a raw value depends on all providers of the host's tree."""
    whole_fleet: ClassVar[bool] = False
    """True if a raw value depends on other hosts too: all values are recomputed whenever anything changes."""
    spec_only: ClassVar[bool] = False
    """True if ``key`` reads nothing of a request but its spec: requests that share one are then compiled once, and
    decided together by ``place_many``. A class that overrides ``key`` must set it again."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def multiplier(self) -> float:
        """The configured multiplier."""
        return self.sign * self.configured()

    def configured(self) -> float:
        """The value of the option ``option``, before ``sign``. Override where it is no option of [filter_scheduler]."""
        value: float = getattr(self.options.filter_scheduler, self.option)
        return value

    def host_multiplier(self, host: HostState) -> float:
        """The multiplier for ``host``: least float of the aggregates' ``option`` values; the configured one where there
        is none or one of them is not a finite number. Depends on no host field but ``aggregates``. O(aggregates)."""
        values = {aggregate.metadata[self.option] for aggregate in host.aggregates if self.option in aggregate.metadata}
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            return self.multiplier()
        if not numbers or not all(map(math.isfinite, numbers)):
            return self.multiplier()
        return self.sign * min(numbers)

    def applies(self, request: Request) -> bool:
        """False if the raw value is equal for all hosts in any state: the weigher then adds multiplier * 0."""
        return True

    @abstractmethod
    def fields(self, request: Request) -> frozenset[str]:
        """The HostState fields that ``raw`` depends on."""

    def key(self, request: Request) -> Hashable:
        """What of ``request`` the raw value depends on."""
        return None

    def column(self, request: Request) -> str | None:
        """Column form: name of the fleet column that is the raw value, or None."""
        return None

    def formula(self, request: Request) -> Formula | None:
        """Formula form: the kernels' formula that the raw value is, or None. ``whole_fleet`` says that the mean load of
        all hosts weighs CPUs and memory in it."""
        return None

    def values(self, view: FleetView, request: Request) -> NDArray[np.float64] | None:
        """Vectorised form: one raw value per row of ``view``, or None."""
        return None

    @abstractmethod
    def raw(self, host: HostState, request: Request) -> float:
        """Host form: the rule itself. May raise HostlerError to fail the request."""

    def choose(self, fleet: Fleet, row: int, request: Request, amounts: Amounts) -> Amounts | None:
        """Allocation over the providers in the tree of ``row`` that replaces ``amounts``, the first way that fits;
        None: unchanged. The first weigher that returns one decides."""
        return None

    def describe(self, host: HostState, request: Request, best: float | None = None) -> str:
        """What the weigher saw of ``host``, in one line; ``best`` is the greatest raw value of the hosts compared."""
        text = f"{self.column(request) or self.name} {self.raw(host, request):.15g}"
        return text if best is None else f"{text} of best {best:.15g}"


class ColumnWeigher(Weigher):
    """A weigher whose raw value is a fleet column. ``reads`` are the HostState fields that make up the column."""

    reads: ClassVar[frozenset[str]]
    fleet_column: ClassVar[str]

    def fields(self, request: Request) -> frozenset[str]:
        return self.reads

    def column(self, request: Request) -> str | None:
        return self.fleet_column
