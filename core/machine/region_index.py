"""What a parent looks up of its guests, claims, leftovers and groups other than by their own names. Made of these, kept
up to date with each change, and never stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

_V = TypeVar("_V")


class RegionIndex:
    """Each change and each look-up is O(1), or O(uuids) of the claim that it concerns."""

    __slots__ = ("begun", "claimed", "groups", "guests", "left", "leftovers")

    def __init__(self) -> None:
        self.guests: Counter[str] = Counter()
        """By region."""
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

    def guest(self, region: str, count: int = 1) -> None:
        """A guest is in a region, or (-1) no more."""
        _count(self.guests, region, count)

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
