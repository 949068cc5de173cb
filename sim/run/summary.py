"""The result of a simulation as plain values, from which tables and JSON are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """A number of hosts of one kind."""

    hosts: int
    vcpus: int
    memory_mb: int
    hypervisor_version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was taken of one resource class in one zone, in the class's own unit; the peak is the fleet's, by vCPUs."""

    zone: str
    resource_class: str
    total: int
    start: int
    peak: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """What one hour brought, and how things stood at its end."""

    arrived: int
    departed: int
    alive: int
    vcpus_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a weigher gave the chosen host, and (``second``) the points that it gave the second best."""

    weigher: str
    raw: float
    normalised: float
    multiplier: float
    points: float
    second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The host that a request gets, its score, the best host that scored less, and how many others scored the same."""

    host: str
    zone: str | None
    weight: float
    parts: tuple[Part, ...]
    second: str | None
    second_weight: float | None
    equals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One request's whole story on a fleet of so many hosts: ``chosen`` where it was placed, else ``sentence``."""

    at_s: int
    hosts: int
    asked: str
    considered: int
    removed: Mapping[str, int]
    chosen: Chosen | None
    sentence: str | None
    counterfactuals: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Guests refused by one stage, the one that removed most hosts; the first of them is explained."""

    stage: str
    guests: int
    first: Explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds, and decisions per second of the engine alone (``place_many``). Only these differ from run to run."""

    placing_cpu_s: float
    placing_wall_s: float
    replay_wall_s: float
    decisions_per_cpu_s: float
    decisions_per_wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """A fleet size that was tried: at ``refused_at_s`` the first guest was refused, None if none was."""

    hosts: int
    refused_at_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The search for the smallest fleet: ``chosen`` hosts hold everything, one less does not (None: the search has not
    ended); ``lower_bound`` is what even a perfect packing needs."""

    host: str
    lower_bound: int
    chosen: int | None
    tries: tuple[Try, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A whole run, up to ``reached_s``; times are in seconds from the workload's zero.

    ``placed - departed == alive``; ``used`` is what the fleet's inventories say is taken, ``held`` what the guests that
    are alive asked for.
    """

    workload: str
    hosts: int
    zones: tuple[str, ...]
    machines: tuple[Machines, ...]
    out_of_service: int
    seed: int
    start_s: int
    end_s: int
    reached_s: int
    interrupted: bool
    standing: int
    requests: int
    placed: int
    refused: int
    departed: int
    alive: int
    refusals: tuple[Refusals, ...]
    used: Mapping[str, int]
    held: Mapping[str, int]
    peak_s: int
    usage: tuple[Usage, ...]
    hours: tuple[Hour, ...]
    decision: Explained | None
    refusal: Explained | None
    timing: Timing
    sizing: Sizing | None = None
