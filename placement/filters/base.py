"""The contract of a filter: the host fields it reads, and its rule in one of several forms, fastest first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..types.host import HostState
from ..types.request import Request

if TYPE_CHECKING:
    from ..fleet.host_view import FleetView
    from ..types.options import Options


@dataclass(frozen=True, slots=True)
class Bound:
    """Column form: a host passes if ``low <= column <= high``; a missing side does not bind."""

    column: str
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection form: only (``keep=True``) or all but (``keep=False``) the hosts that hold one of ``instances`` or are
    in ``hosts``.

    ``at_least`` is how many of ``instances`` a host must hold to count. ``hosts`` are service host names.
    """

    keep: bool
    instances: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    at_least: int = 1


class Filter(ABC):
    """Base of all filters. Define ``fields`` and ``host_passes``; the other methods only make it faster and must agree
    with it.

    The engine uses, in this order: ``applies`` (False: every host passes), ``selection``, ``bounds`` (column form),
    ``mask`` (vectorised over the fleet view), and last ``host_passes`` (host form). A host-form result is cached per
    combination of the values of ``fields(request)`` and per ``key(request)``, so both must include everything that the
    result depends on.
    """

    name: ClassVar[str]
    once_per_request: ClassVar[bool] = False
    """Apply only to the first instance of a request (Nova: run_filter_once_per_request)."""
    runs_on_rebuild: ClassVar[bool] = False
    """Apply also to rebuild checks (Nova: RUN_ON_REBUILD)."""
    spec_only: ClassVar[bool] = False
    """True if ``key`` reads nothing of a request but its spec: requests that share one are then compiled once, and
    decided together by ``place_many``. A class that overrides ``key`` must set it again."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def applies(self, request: Request) -> bool:
        """False if every host passes this request, regardless of its state."""
        return True

    @abstractmethod
    def fields(self, request: Request) -> frozenset[str]:
        """The HostState fields that the result for ``request`` depends on."""

    def key(self, request: Request) -> Hashable:
        """The part of ``request`` that the result depends on: equal keys give equal results for equal hosts."""
        return request

    def bounds(self, request: Request) -> tuple[Bound, ...] | None:
        """Column form, or None."""
        return None

    def selection(self, request: Request) -> Selection | None:
        """Selection form, or None."""
        return None

    def mask(self, view: FleetView, request: Request) -> NDArray[np.bool_] | None:
        """Mask form: one bool per row of ``view``, or None."""
        return None

    @abstractmethod
    def host_passes(self, host: HostState, request: Request) -> bool:
        """Host form: the rule itself."""

    def nova_error(self, host: HostState, request: Request) -> str | None:
        """Name of the exception that Nova 33 raises for ``host`` where this filter returns a result; else None."""
        return None

    def reason(self, host: HostState, request: Request) -> str:
        """Why ``host`` was refused, as a sentence with numbers. Called only for hosts that ``host_passes`` refuses."""
        return f"refused by {self.name}"
