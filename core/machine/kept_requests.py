"""What each guest was asked with: its RequestSpec and server group, so that a later move is judged by it. It knows no
fleet."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable
from operator import neg
from typing import Any, Final

import msgspec
import numpy as np

from ...ext.tables import UuidTable, format_many
from ...placement.types.request import PER_REQUEST, kept_zone
from .doubled import DoubledClaims, settle

NONE: Final = -1
"""The position of the spec of a guest of which none is kept."""


def as_kept(spec: msgspec.Raw | bytes) -> msgspec.Raw:
    """What of a spec, as it was sent, is asked again when its guest is placed again: all but the hosts that it named
    (``RequestSpec.as_kept``). O(size)."""
    data = bytes(spec)
    fields: dict[str, Any] = msgspec.msgpack.decode(data)
    zone = fields.get("availability_zone")
    if fields.keys().isdisjoint(PER_REQUEST) and ":" not in (zone or ""):
        return msgspec.Raw(data)
    kept = {name: value for name, value in fields.items() if name not in PER_REQUEST}
    if zone:
        kept["availability_zone"] = kept_zone(zone)
    return msgspec.Raw(msgspec.msgpack.encode(kept))


class SavedRequests(msgspec.Struct):
    """What is kept, as a snapshot holds it; ``of_guest``: uuid -> position in ``specs``."""

    specs: list[bytes] = []
    of_guest: dict[str, int] = {}
    counts: list[int] = []
    free: list[int] = []
    moving: dict[str, bytes] = {}
    claims: dict[str, str] = {}
    doubled: DoubledClaims = {}


class KeptRequests:
    """Specs as they were sent, each once, and the position in ``specs`` of each guest's. ``counts``: guests that have
    the spec; one that none has is forgotten. ``free``: the places of these, in descending order; the lowest is taken
    first, and those at the end are given back. 24 bytes a slot for each guest, a third to two thirds of them taken."""

    def __init__(self, saved: SavedRequests | None = None) -> None:
        saved = SavedRequests() if saved is None else saved
        self.specs, self.moving, self.claims, self.doubled = saved.specs, saved.moving, saved.claims, saved.doubled
        """``moving``: by guest whose move is under way, the spec that it comes back to if the move is reverted.
        ``claims``: by guest that a parent of regions has had placed, the id of its claim. ``doubled``: what instances
        that held allocations were given beside them."""
        self._of_guest = UuidTable()
        guests: dict[int, list[str]] = {}
        for uuid, index in saved.of_guest.items():
            guests.setdefault(index, []).append(uuid)
        for index, uuids in guests.items():
            self._of_guest.put(uuids, index)
        self.counts: list[int] = np.bincount(self._of_guest.to_arrays()[1], minlength=len(self.specs)).tolist()
        self.free = [index for index in range(len(self.specs) - 1, -1, -1) if not self.counts[index]]
        self._known = {spec: index for index, spec in enumerate(self.specs) if self.counts[index]}
        self._trim()

    def __len__(self) -> int:
        """Guests whose request is kept. O(1)."""
        return len(self._of_guest)

    def __contains__(self, uuid: str) -> bool:
        """True if the guest's request is kept. O(1)."""
        return self._of_guest.get(uuid) >= 0

    def uuids(self) -> list[str]:
        """The guests whose requests are kept, in ascending order. O(guests * log guests)."""
        return format_many(self._of_guest.to_arrays()[0])

    def keep(self, uuids: Collection[str], spec: msgspec.Raw | bytes) -> None:
        """Guests were placed with a spec, which replaces the one they had. O(guests)."""
        if not uuids:
            return
        data = bytes(spec)
        index = self._known.get(data)
        if index is None:
            index = self._known[data] = self._place(data)
        before = self._of_guest.put(uuids, index)
        new = before.count(NONE)
        self.counts[index] += new
        if new < len(before):
            for other in before:
                if other not in (NONE, index):
                    self.counts[index] += 1
                    self._drop(other)

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
        uuids = list(uuids)
        if self.moving or self.claims or self.doubled:
            for uuid in uuids:
                self.moving.pop(uuid, None)
                self.claims.pop(uuid, None)
            settle(self.doubled, uuids)
        for index in self._of_guest.discard(uuids):
            if index != NONE:
                self._drop(index)

    def get(self, uuid: str) -> msgspec.Raw | None:
        """The spec that a guest was placed with; None if it is not known. O(1)."""
        index = self._of_guest.get(uuid)
        return None if index == NONE else msgspec.Raw(self.specs[index])

    def saved(self) -> SavedRequests:
        """All of it, for a snapshot. O(guests)."""
        of_guest = self._by_guest()
        return SavedRequests(self.specs, of_guest, self.counts, self.free, self.moving, self.claims, self.doubled)

    def content(self) -> tuple[list[bytes], dict[str, int], dict[str, bytes], dict[str, str]]:
        """What is kept, whatever the places of specs are: specs in order, the position of each guest's, specs before
        moves, claims. O(guests + specs * log specs)."""
        specs = sorted(self._known)
        rank = {self._known[spec]: position for position, spec in enumerate(specs)}
        return specs, {uuid: rank[index] for uuid, index in self._by_guest().items()}, self.moving, self.claims

    def _by_guest(self) -> dict[str, int]:
        uuids, indexes = self._of_guest.to_arrays()
        return dict(zip(format_many(uuids), indexes.tolist(), strict=True))

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
