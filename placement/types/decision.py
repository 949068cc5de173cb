"""The answers of the scheduler: a decision as a plain value, with the number of hosts that each stage removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from .errors import NoValidHost
from .networks import NetworkMetadata
from .ordered_sum import ordered_sum


class ScorePart(msgspec.Struct, frozen=True, gc=False):
    """One weigher's part of a host's score: ``multiplier * normalised``, where ``normalised`` is derived from
    ``raw``."""

    weigher: str
    raw: float
    normalised: float
    multiplier: float

    @property
    def points(self) -> float:
        """The points that it adds to the score."""
        return self.multiplier * self.normalised


ALLOCATION_REQUEST_VERSION: Final = "1.36"
"""Microversion of Placement's API whose form ``allocation_request`` has (Nova 34: GET_ALLOCATION_CANDIDATES)."""

Allocated = Mapping[str, Mapping[str, int]]
"""{provider uuid: {resource class: amount}}."""
Mappings = Mapping[str, tuple[str, ...]]
"""{suffix of a request group: uuids of the providers that give it}; the unsuffixed group is ``""``."""


class NumaLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What nova-compute checks a guest's NUMA cells with. Source: Nova 34 NUMATopologyLimits."""

    cpu_allocation_ratio: float
    ram_allocation_ratio: float
    network_metadata: NetworkMetadata | None = None


def allocation_request(allocations: Allocated, mappings: Mappings) -> dict[str, Any]:
    """Allocations as a candidate of Placement's API, for conductors and computes. O(allocations)."""
    given = mappings or {"": tuple(allocations)}
    return {
        "allocations": {uuid: {"resources": dict(resources)} for uuid, resources in allocations.items()},
        "mappings": {suffix: list(uuids) for suffix, uuids in given.items()},
    }


class Alternate(msgspec.Struct, frozen=True, gc=False):
    """A host that may be tried if the build on the chosen one fails; nothing is claimed there. ``allocations`` are what
    the guest would take; the other fields are those of ``Selection``."""

    host: str
    node: str
    provider_uuid: str
    cell_uuid: str | None
    weight: float
    availability_zone: str | None = None
    allocations: Allocated = {}
    mappings: Mappings = {}
    limits: NumaLimits | None = None

    @property
    def allocation_request(self) -> dict[str, Any]:
        """The allocations as a candidate of Placement's API (ALLOCATION_REQUEST_VERSION)."""
        return allocation_request(self.allocations, self.mappings)


class Selection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The host chosen for one instance, and its allocations: {provider uuid: {resource class: amount}}.

    ``mappings``: providers by request group; empty where all allocations are of the unsuffixed group. ``limits``: set
    for guests with NUMA cells that NUMATopologyFilter has judged.
    """

    instance_uuid: str
    host: str
    node: str
    provider_uuid: str
    cell_uuid: str | None
    availability_zone: str | None
    weight: float
    allocations: Mapping[str, Mapping[str, int]]
    parts: tuple[ScorePart, ...] = ()
    alternates: tuple[Alternate, ...] = ()
    mappings: Mappings = {}
    limits: NumaLimits | None = None

    @property
    def allocation_request(self) -> dict[str, Any]:
        """The allocations as a candidate of Placement's API (ALLOCATION_REQUEST_VERSION)."""
        return allocation_request(self.allocations, self.mappings)

    @property
    def points(self) -> float:
        """The points of all weighers, added up as the scheduler adds them: from left to right, which the built-in
        ``sum`` does not from Python 3.12 on. 0.0 where no weigher ran. O(weighers)."""
        return ordered_sum(part.points for part in self.parts)


ReasonCode = Literal[
    "no_inventory",
    "not_enough",
    "max_unit",
    "min_unit",
    "step_size",
    "missing_traits",
    "forbidden_traits",
    "none_of_traits",
    "aggregates",
    "forbidden_aggregates",
    "cell",
    "service_disabled",
    "service_down",
    "no_candidate",
    "not_named",
    "filter",
]
"""Why a host was refused. ``no_inventory`` to ``step_size``: Placement's rules on a resource; ``no_candidate``: no way
to share the request groups among the providers of its tree; ``not_named``: the request names other hosts, or excludes
it; ``filter``: the filter that ``stage`` names."""


class Reason(NamedTuple):
    """Why a stage refuses a host: ``text`` for people, the rest for programs. Of a ``resource``, ``asked`` is wanted
    and ``limit`` is what the host gives (free, or by its unit rules); ``names`` are the traits or aggregates."""

    text: str
    code: ReasonCode = "filter"
    resource: str | None = None
    asked: int | None = None
    limit: int | None = None
    names: tuple[str, ...] = ()


CounterfactualCode = Literal["weigher", "room", "unit_rules", "size", "stage", "names", "nearest"]
"""What would change: ``weigher``: leave a weigher out; ``room``: free an amount of one resource; ``unit_rules``:
ask for an amount that the unit rules allow; ``size``: ask for less, as no guest may have as much; ``stage``: without
what the stage judges; ``names``: do not name hosts; ``nearest``: all that keeps out the host that fewest stages
refuse."""

RefusalCode = Literal["no_hosts", "full", "impossible", "refused", "unclaimed", "too_few", "request"]
"""Why nothing was placed. ``no_hosts``: there are none. ``full``: a host would pass if it were empty. ``impossible``:
none would. ``refused``: hosts refused, and which of the two it is was not worked out (``explain`` with ``assume_empty``
does). ``unclaimed``: hosts pass, and none was claimed. ``too_few``: hosts for some of several instances only.
``request``: the request was ruled out before a host was looked at."""


class Counterfactual(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that alone would change the answer; ``text`` says it in words.

    ``hosts`` hosts are kept out by nothing else, of which ``host`` (a node) is nearest. ``stage`` judges it. Of a
    ``resource``, ``asked`` is wanted, at most ``nearest`` can be had, and ``cut`` is what to take off the request so
    that it fits ``host`` (``room``: what may be freed there in place of it). For code ``weigher``, ``host`` wins
    without ``weigher``."""

    code: CounterfactualCode
    text: str
    stage: str | None = None
    hosts: int = 0
    host: str | None = None
    resource: str | None = None
    asked: int | None = None
    nearest: int | None = None
    cut: int | None = None
    weigher: str | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why nothing was placed: ``sentence`` and ``hint`` (what would help) for people, all else for programs.

    ``stage``: the stage that removed most hosts. ``removed``: how many hosts each stage removed, in order.
    ``resource``, ``asked``, ``nearest``, ``host``, ``cut``: those of the change that ``hint`` is about, where it is
    about an amount; else ``resource`` is that of ``stage``, if any. ``fits_empty``: whether a host would pass if it
    were empty; None: not worked out."""

    sentence: str
    stage: str
    hint: str | None = None
    code: RefusalCode = "refused"
    removed: Mapping[str, int] = {}
    resource: str | None = None
    asked: int | None = None
    nearest: int | None = None
    host: str | None = None
    cut: int | None = None
    fits_empty: bool | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to one request.

    ``considered``: number of hosts before the first stage. ``removed``: number of hosts that each stage removed, in
    order (for several instances: at the first). ``claims`` lists (instance uuid, provider uuid, ok) if an external
    service made the claims. ``seed``: seed of this decision's random choices.
    """

    sequence: int
    request_id: str | None
    considered: int
    removed: Mapping[str, int]
    selections: tuple[Selection, ...] = ()
    refusal: Refusal | None = None
    claims: tuple[tuple[str, str, bool], ...] = ()
    seed: int = 0

    @property
    def placed(self) -> bool:
        """True if every instance was placed."""
        return self.refusal is None

    def __bool__(self) -> bool:
        """``placed``: a refusal is false."""
        return self.placed

    @property
    def host(self) -> str:
        """Service host of the first instance; NoValidHost if nothing was placed."""
        return self.selected.host

    @property
    def selected(self) -> Selection:
        """The first instance's selection; NoValidHost if nothing was placed."""
        self.raise_if_refused()
        return self.selections[0]

    def amounts(self) -> dict[str, int]:
        """The total allocations of all instances, by resource class."""
        total: dict[str, int] = {}
        for selection in self.selections:
            for resources in selection.allocations.values():
                for name, amount in resources.items():
                    total[name] = total.get(name, 0) + amount
        return total

    def raise_if_refused(self) -> None:
        """Raise NoValidHost with the refusal's sentence, unless everything was placed."""
        if self.refusal is not None:
            raise NoValidHost(self.refusal.sentence, removed=dict(self.removed), hint=self.refusal.hint)


class PackedDecision(msgspec.Struct, frozen=True, gc=False):
    """A decision that placed one guest, ``data`` in MessagePack, for those who pass it on as it is."""

    data: bytes
    instance_uuid: str
    host: str

    def unpack(self) -> Decision:
        """The Decision. O(size)."""
        return _UNPACK(self.data)


_UNPACK: Final = msgspec.msgpack.Decoder(Decision).decode
