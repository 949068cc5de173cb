"""What each guest was asked with: its RequestSpec and server group, so that a later move is judged by it. It knows no
fleet."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from operator import neg

import msgspec


@dataclass
class KeptRequests:
    """Specs as they were sent, each once; ``of_guest``: uuid -> position in ``specs``. ``counts``: guests that have
    the spec; one that none has is forgotten. ``free``: the places of these, in descending order; the lowest is taken
    first, and those at the end are given back."""

    specs: list[bytes] = field(default_factory=list)
    of_guest: dict[str, int] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    moving: dict[str, bytes] = field(default_factory=dict)
    """By guest whose move is under way: the spec that it comes back to if the move is reverted."""
    claims: dict[str, str] = field(default_factory=dict)
    """By guest that a parent of regions has had placed: the id of its claim."""

    def __post_init__(self) -> None:
        self._known = {spec: index for index, spec in enumerate(self.specs) if self.counts[index]}
        self.free.sort(reverse=True)
        self._trim()

    def keep(self, uuids: Collection[str], spec: msgspec.Raw | bytes) -> None:
        """Guests were placed with a spec, which replaces the one they had. O(guests)."""
        data = bytes(spec)
        index = self._known.get(data)
        if index is None:
            index = self._known[data] = self._place(data)
        if self.of_guest.keys().isdisjoint(uuids):
            before_these = len(self.of_guest)
            self.of_guest.update(dict.fromkeys(uuids, index))
            self.counts[index] += len(self.of_guest) - before_these
            uuids = ()
        for uuid in uuids:
            before = self.of_guest.get(uuid)
            if before != index:
                self.of_guest[uuid] = index
                self.counts[index] += 1
                if before is not None:
                    self._drop(before)
        if not self.counts[index]:
            self._drop_spec(index)

    def claim(self, uuids: Iterable[str], claim: str) -> None:
        """Guests were placed under the id of a parent's claim, or (empty) without one. O(guests)."""
        for uuid in uuids:
            if claim:
                self.claims[uuid] = claim
            elif self.claims:
                self.claims.pop(uuid, None)

    def keep_during_move(self, uuid: str, spec: msgspec.Raw | bytes) -> None:
        """A guest's move began with a spec. O(1)."""
        before = self.get(uuid)
        if before is not None:
            self.moving[uuid] = bytes(before)
        self.keep((uuid,), spec)

    def end_move(self, uuid: str, *, confirm: bool) -> None:
        """A guest's move has ended. O(1)."""
        before = self.moving.pop(uuid, None)
        if before is not None and not confirm:
            self.keep((uuid,), before)
        elif not confirm:
            self.forget((uuid,))  # what it was asked with first is not known

    def forget(self, uuids: Iterable[str]) -> None:
        """Drop the requests of removed guests. O(guests)."""
        for uuid in uuids:
            self.moving.pop(uuid, None)
            self.claims.pop(uuid, None)
            index = self.of_guest.pop(uuid, None)
            if index is not None:
                self._drop(index)

    def get(self, uuid: str) -> msgspec.Raw | None:
        """The spec that a guest was placed with; None if it is not known. O(1)."""
        index = self.of_guest.get(uuid)
        return None if index is None else msgspec.Raw(self.specs[index])

    def content(self) -> tuple[list[bytes], dict[str, int], dict[str, bytes], dict[str, str]]:
        """What is kept, whatever the places of specs are: specs in order, the position of each guest's, specs before
        moves, claims. O(guests + specs * log specs)."""
        specs = sorted(self._known)
        rank = {self._known[spec]: position for position, spec in enumerate(specs)}
        return specs, {uuid: rank[index] for uuid, index in self.of_guest.items()}, self.moving, self.claims

    def _place(self, data: bytes) -> int:
        if self.free:
            index = self.free.pop()
            self.specs[index] = data
            return index
        self.specs.append(data)
        self.counts.append(0)
        return len(self.specs) - 1

    def _drop(self, index: int) -> None:
        self.counts[index] -= 1
        if not self.counts[index]:
            self._drop_spec(index)

    def _drop_spec(self, index: int) -> None:
        del self._known[self.specs[index]]
        self.specs[index] = b""
        insort(self.free, index, key=neg)
        self._trim()

    def _trim(self) -> None:
        """Give back the places at the end that are free."""
        last = len(self.specs)
        while len(self.specs) - last < len(self.free) and self.free[len(self.specs) - last] == last - 1:
            last -= 1
        trimmed = len(self.specs) - last
        if trimmed:
            del self.free[:trimmed], self.specs[last:], self.counts[last:]
