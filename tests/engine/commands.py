"""Random commands: plain values that name hosts, guests, groups and specs by number, whatever there is at that time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from hostler.placement.fleet.fleet import GROUP_POLICIES, Inventory

from . import values
from .values import NOW


@dataclass(frozen=True)
class Supplied:
    """A server group that the caller keeps. ``members`` are numbers of guests."""

    policy: str
    at_most: int
    members: tuple[int, ...]
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Ask:
    """A request. ``group`` is the number of a kept group; ``joins``: a supplied group has the new guests as members."""

    spec: int = 0
    instances: int = 1
    alternates: int = 0
    group: int | None = None
    supplied: Supplied | None = None
    joins: bool = True
    project: str = "p1"
    now: float | None = NOW


@dataclass(frozen=True)
class Place:
    ask: Ask


@dataclass(frozen=True)
class PlaceMany:
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Rank:
    ask: Ask


@dataclass(frozen=True)
class Release:
    guests: tuple[int, ...]


@dataclass(frozen=True)
class Replace:
    """``leave``: a migration, else a resize."""

    guest: int
    ask: Ask
    leave: bool


@dataclass(frozen=True)
class Spawned:
    guest: int


@dataclass(frozen=True)
class Report:
    host: int
    figures: Mapping[str, int]


@dataclass(frozen=True)
class Heartbeat:
    host: int
    at: float


@dataclass(frozen=True)
class SetService:
    host: int
    disabled: bool
    forced_down: bool


@dataclass(frozen=True)
class SetAggregates:
    host: int
    aggregates: tuple[int, ...]


@dataclass(frozen=True)
class UpdateAggregate:
    number: int
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class SetTraits:
    host: int
    traits: frozenset[str]


@dataclass(frozen=True)
class SetInventory:
    host: int
    inventories: Mapping[str, Inventory]


@dataclass(frozen=True)
class AddHost:
    template: int
    reported: int


@dataclass(frozen=True)
class RemoveHost:
    host: int


@dataclass(frozen=True)
class AddGroup:
    policy: str
    at_most: int


@dataclass(frozen=True)
class Fork:
    other_policy: bool


Command = Any

numbers = st.integers(0, 30)
figures = values.mappings(
    {
        "free_ram_mb": (0, 1024, 3000, -512),
        "free_disk_mb": (0, 5000, 20480, -1024),
        "vcpus_used": (0, 1, 3),
        "num_io_ops": (0, 2),
        "num_instances": (0, 1, 5),
        "failed_builds": (0, 1),
    },
    2,
)
supplied = st.builds(
    Supplied,
    policy=st.sampled_from(sorted(GROUP_POLICIES)),
    at_most=st.integers(1, 2),
    members=st.lists(st.sampled_from([0, 1, 2, 9000, 9010, 999]), max_size=3, unique=True).map(tuple),
    hosts=st.lists(st.sampled_from(["Host0", "Host1", "host1", "gone"]), max_size=2, unique=True).map(tuple),
)
asks = st.builds(
    Ask,
    spec=numbers,
    instances=st.sampled_from([1, 1, 1, 1, 2, 3, 4]),
    alternates=st.sampled_from([0, 0, 0, 1, 3]),
    group=st.one_of(numbers, st.none()),
    supplied=st.one_of(st.none(), supplied),
    joins=st.booleans(),
    project=st.sampled_from(["p1", "p2"]),
    now=st.sampled_from([NOW, NOW, NOW, None, NOW + 1, NOW + 61, NOW - 1]),
)
plain_asks = st.builds(
    Ask, spec=numbers, group=st.one_of(st.none(), numbers), now=st.sampled_from([NOW, None, NOW + 61])
)
many = st.lists(st.one_of(plain_asks, plain_asks, asks), max_size=5).map(tuple)
placements = st.one_of(
    st.builds(Place, asks),
    st.builds(Place, plain_asks),
    st.builds(PlaceMany, many),
)
groups = st.builds(AddGroup, st.sampled_from(sorted(GROUP_POLICIES)), st.integers(1, 2))
changes = st.one_of(
    groups,
    st.builds(Release, st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(Replace, numbers, plain_asks, st.booleans()),
    st.builds(Spawned, numbers),
    st.builds(Report, numbers, figures),
    st.builds(Heartbeat, numbers, st.sampled_from([NOW, NOW - 61, NOW + 30, NOW + 100])),
    st.builds(SetService, numbers, st.booleans(), st.booleans()),
    st.builds(SetAggregates, numbers, values.memberships),
    st.builds(UpdateAggregate, numbers, values.metadata),
    st.builds(SetTraits, numbers, values.traits),
    st.builds(SetInventory, numbers, values.inventories),
    st.builds(AddHost, numbers, st.integers(0, 1)),
    st.builds(RemoveHost, numbers),
    groups,
)
commands = st.one_of(placements, placements, st.builds(Rank, asks), changes)
forks = st.builds(Fork, st.booleans())
