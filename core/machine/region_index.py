"""What a parent looks up of its guests, claims, leftovers and groups other than by their own names. Made of these, kept
up to date with each change, and never stored."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final, TypeVar

from sortedcontainers import SortedList

_V = TypeVar("_V")
_UUID: Final = itemgetter(1)
_BEHIND_ALL: Final = "\U0010ffff"
"""Behind all uuids."""


class GuestOrder:
    """The guests of each region in the order of their uuids, and in that of their projects. Two guests are equal where
    their uuids, regions and projects are."""

    __slots__ = ("_by_project", "_by_uuid")

    def __init__(self) -> None:
        self._by_uuid: dict[str, SortedList[str]] = {}
        self._by_project: dict[str, SortedList[tuple[str, str]]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuestOrder) and self._by_project == other._by_project

    __hash__ = None  # type: ignore[assignment]  # it changes

    def fill(self, guests: Iterable[tuple[str, str, str]]) -> None:
        """The first guests: of each the uuid, its region and its project. O(guests x log guests)."""
        found: dict[str, list[tuple[str, str]]] = {}
        for uuid, region, project in guests:
            found.setdefault(region, []).append((project, uuid))
        for region, pairs in found.items():
            self._by_project[region] = SortedList(pairs)
            self._by_uuid[region] = SortedList(uuid for _, uuid in pairs)

    def add(self, uuid: str, region: str, project: str) -> None:
        """A guest of a project is in a region. O(log guests)."""
        if region not in self._by_uuid:
            self._by_uuid[region], self._by_project[region] = SortedList(), SortedList()
        self._by_uuid[region].add(uuid)
        self._by_project[region].add((project, uuid))

    def remove(self, uuid: str, region: str, project: str) -> None:
        """It is no more. O(log guests)."""
        self._by_uuid[region].remove(uuid)
        self._by_project[region].remove((project, uuid))
        if not self._by_uuid[region]:
            del self._by_uuid[region], self._by_project[region]

    def page(self, after: str, limit: int, *, region: str | None, project: str | None) -> list[str]:
        """At most ``limit`` uuids behind ``after``, of a region and of a project, where these are given.
        O(limit + regions), times a logarithm of the guests."""
        regions = self._by_uuid if region is None else [region] if region in self._by_uuid else []
        return list(islice(heapq.merge(*(self._behind(each, after, project) for each in regions)), limit))

    def _behind(self, region: str, after: str, project: str | None) -> Iterator[str]:
        if project is None:
            return self._by_uuid[region].irange(after, inclusive=(False, False))
        pairs = self._by_project[region].irange((project, after), (project, _BEHIND_ALL), inclusive=(False, False))
        return map(_UUID, pairs)


class RegionIndex:
    """Each change and each look-up is O(1), or O(uuids) of the claim that it concerns; of guests, times a logarithm of
    their number."""

    __slots__ = ("begun", "claimed", "groups", "guests", "left", "leftovers", "order")

    def __init__(self) -> None:
        self.guests: Counter[str] = Counter()
        """By region."""
        self.order = GuestOrder()
        self.leftovers: Counter[str] = Counter()
        """By region."""
        self.claimed: dict[str, str] = {}
        """The claim that asks for a guest."""
        self.left: dict[str, dict[str, str]] = {}
        """By guest: the leftovers that may hold it, with their regions."""
        self.groups: dict[str, dict[str, None]] = {}
        """By group: its claims."""
        self.begun: dict[str, dict[str, None]] = {}
        """By idempotency key: the claims of no group, the groups and the releases that were begun with it."""

    def fill(self, guests: Iterable[tuple[str, str, str]]) -> None:
        """The first guests: of each the uuid, its region and its project."""
        found = list(guests)
        self.guests = Counter(region for _, region, _ in found)
        self.order.fill(found)

    def guest(self, uuid: str, region: str, project: str) -> None:
        """A guest of a project is in a region."""
        _count(self.guests, region, 1)
        self.order.add(uuid, region, project)

    def guest_gone(self, uuid: str, region: str, project: str) -> None:
        """It is no more."""
        _count(self.guests, region, -1)
        self.order.remove(uuid, region, project)

    def claim(self, name: str, uuids: Iterable[str], group: str, key: str | None) -> None:
        """A claim is on record."""
        self.claimed |= dict.fromkeys(uuids, name)
        if group:
            self.groups.setdefault(group, {})[name] = None
        else:
            self.begin(name, key)

    def unclaim(self, name: str, uuids: Iterable[str], group: str, key: str | None) -> None:
        """It is not any more."""
        for uuid in uuids:
            if self.claimed.get(uuid) == name:
                del self.claimed[uuid]
        if group:
            _remove(self.groups, group, name)
        else:
            self.end(name, key)

    def leave(self, name: str, region: str, uuids: Iterable[str]) -> None:
        """A leftover is on record."""
        _count(self.leftovers, region, 1)
        for uuid in uuids:
            self.left.setdefault(uuid, {})[name] = region

    def forget(self, name: str, region: str, uuids: Iterable[str]) -> None:
        """It is not any more."""
        _count(self.leftovers, region, -1)
        for uuid in uuids:
            _remove(self.left, uuid, name)

    def begin(self, name: str, key: str | None) -> None:
        """Something was begun with a key."""
        if key is not None:
            self.begun.setdefault(key, {})[name] = None

    def end(self, name: str, key: str | None) -> None:
        """It has ended."""
        if key is not None:
            _remove(self.begun, key, name)

    def of_group(self, group: str) -> Sequence[str]:
        """The claims of a group."""
        return tuple(self.groups.get(group, ()))

    def of_key(self, key: str) -> Sequence[str]:
        """What was begun with a key."""
        return tuple(self.begun.get(key, ()))


def _count(counts: Counter[str], name: str, more: int) -> None:
    counts[name] += more
    if not counts[name]:
        del counts[name]


def _remove(table: dict[str, dict[str, _V]], key: str, name: str) -> None:
    names = table.get(key)
    if names is not None:
        names.pop(name, None)
        if not names:
            del table[key]
