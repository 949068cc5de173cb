"""What a run is to the modules that play and sum up parts of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.batch_decisions import Decisions
from ...placement.decide.engine import Engine
from ...placement.types.request import RequestSpec
from ..trace.workload import Guests
from .coming import Coming
from .contention import Contention
from .evacuation import Evacuation
from .fleet_plan import FleetPlan
from .host_columns import HostColumns
from .observer import Observer
from .outages import Outages
from .outcome import Sample
from .room import Then
from .site import Site

Whole = NDArray[np.int64]


class Played(Protocol):
    """A run in progress; ``Run`` describes each of them."""

    plan: FleetPlan
    workload: Guests
    specs: tuple[RequestSpec, ...]
    seed: int
    wait_s: float
    site: Site
    engine: Engine
    evacuation: Evacuation
    contention: Contention | None
    observers: list[Observer]
    outages: Outages
    refusals: Counter[str]
    samples: list[Sample]
    alive: int
    burst: int
    offered: int
    placed: int
    peak_guests: int
    waited: int
    waited_s: int
    longest_wait_s: int
    now_s: int
    reached_s: int
    changed_s: int
    first_refusal: float | None
    requests_by_day: list[int]
    refused_by_day: list[int]
    _building: list[str]
    _burst_vcpu_s: int
    _busiest: Sample | None
    _busy: float
    _guest_s: int
    _host_hours_cost: float
    _hosts: HostColumns
    _leaving: defaultdict[int, list[str]]
    _measured: int
    _peaks: NDArray[np.float64]
    _priority: Whole
    _projects: list[str]
    _queue: Coming
    _stride: int
    _sums: NDArray[np.float64]
    _until_s: int

    @property
    def resources(self) -> tuple[str, ...]: ...
    @property
    def unserved(self) -> int: ...
    def _uuids(self, coming: Coming) -> list[str]: ...
    def _offered(self, requests: int, at_s: int) -> None: ...
    def _came(self, guests: Coming, uuids: list[str], rows: NDArray[np.integer[Any]], at_s: int | Whole) -> None: ...
    def _turned_away(
        self, coming: Coming, which: Whole, decisions: Decisions, at_s: int, then: Then | None
    ) -> None: ...
    def _pass(self, at_s: int, seconds: int, guests: int) -> int: ...
    def _keep(self) -> None: ...
    def _sample(self, at_s: int, used: Whole, percent: NDArray[np.float64], guests: int, refused: int) -> Sample: ...
