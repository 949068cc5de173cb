"""Signatures that take of nested providers, as the kernel of ``ext/nested_batch`` reads them: made when a request
comes, dropped when hosts, providers or host classes change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.nested_batch import NestedShape
from ..candidates.for_engine import Amounts, Counted, Mappings, amounts_of, mappings_of
from ..fleet.consumers import Extras
from ..fleet.fleet import Fleet
from ..gpu.guest_kinds import GuestKinds, kind_of
from ..gpu.providers import GPU_MILLI
from ..weighers.gpu import GpuWeigher
from .compiled_filter import TreeResults
from .signature import Signature

MOST_DROPS: Final = 8
"""Guests of a signature that the kernel may leave undecided before it is asked for none any more, until hosts,
providers or host classes change."""


class NestedParts:
    """A signature in the kernel, and what its answers mean."""

    __slots__ = ("_beyond", "_counted", "_devices", "kernel")

    def __init__(self, kernel: NestedShape, counted: Counted | None, *, devices: bool) -> None:
        """``devices``: a weigher chooses the GPUs."""
        self.kernel, self._counted, self._devices = kernel, counted, devices
        slots = () if counted is None else zip(counted.order, counted.prepared.slots, strict=True)
        suffixed = [(place, slot.amounts) for place, slot in slots if slot.suffix]
        plain = all(len(amounts) == 1 for _, amounts in suffixed)
        self._beyond = [(place, *amounts[0]) for place, amounts in suffixed] if plain else []
        """(place in a way, resource class, amount) of what is taken elsewhere, if of one class each."""

    def extras(self, row: int, way: Sequence[int]) -> Extras | None:
        """What a guest on ``row`` takes elsewhere; None for nothing. O(slots)."""
        if self._counted is None:
            return None
        if len(self._beyond) == 1:
            place, index, amount = self._beyond[0]
            return Extras(((way[place], index, amount),))
        taken = [(way[place], index, amount) for place, index, amount in self._beyond]
        if not taken or len({other for other, _, _ in taken}) < len(taken):
            amounts = amounts_of(self._counted.prepared, self._rows(self._counted, way))
            taken = [(other, i, n) for other, each in amounts.items() if other != row for i, n in each.items()]
        return Extras(tuple(taken)) if taken else None

    def taken(self, signature: Signature, row: int, way: Sequence[int]) -> tuple[Amounts, Mappings]:
        """All that a guest on ``row`` takes, and the rows of each request group. O(slots)."""
        if self._counted is None:
            return {row: signature.resources}, {}
        rows = self._rows(self._counted, way)
        amounts = amounts_of(self._counted.prepared, rows)
        return amounts, {} if self._devices else mappings_of(self._counted.prepared, rows)

    @staticmethod
    def _rows(counted: Counted, way: Sequence[int]) -> list[int]:
        return [way[place] for place in counted.order]


class NestedShapes:
    """By number of a signature, its parts; None for one that only Python can decide."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._stamp: tuple[int, ...] = ()
        self._parts: dict[int, NestedParts | None] = {}
        self._drops: dict[int, int] = {}
        self.kernels: list[NestedShape | None] = []
        """By number, as the kernel takes them."""
        self.marks: NDArray[np.uint8] = np.zeros(0, np.uint8)
        """uint8[capacity], all 0."""
        self.places = 1
        """Rows of the longest way."""
        self.kinds: NDArray[np.int32] | None = None
        """Guests by kind on each row, if a weigher reads them: a call of the kernel counts those that it places."""
        self._kinds: GuestKinds | None = None

    def refresh(self) -> None:
        """Forget all if hosts, providers or host classes have changed. O(1), and O(guests on hosts that changed since
        the last call) where a weigher reads their kinds."""
        fleet, log = self.fleet, self.fleet._change_log
        stamp = (
            *(log.topology_epoch, log.static_epoch, log.forgotten_classes, len(fleet), fleet.rows),
            *(len(fleet._classes), len(fleet.resource_classes), len(fleet._unit_rules), fleet._store.capacity),
        )
        kinds = self.kinds
        if self._kinds is not None and kinds is not None:
            kinds = self._kinds.current(kinds.shape[1] - 2)
        if stamp != self._stamp or kinds is not self.kinds:
            self._stamp, self.kernels = stamp, [None] * len(self.kernels)
            self._parts.clear()
            self._drops.clear()
            self.marks = np.zeros(fleet._store.capacity, np.uint8)
            self.kinds = self._kinds = None

    def counted(self) -> None:
        """The kernel placed guests, and counted them among their kinds."""
        if self._kinds is not None:
            self._kinds.counted()

    def ready(self, number: int, signature: Signature) -> NestedParts | None:
        """The parts of a signature; None if only Python can decide it now. O(1) once they are made."""
        found = self._parts.get(number)
        if found is None and number not in self._parts:
            found = self._parts[number] = self._made(signature)
            self.kernels += [None] * (number + 1 - len(self.kernels))
            self.kernels[number] = None if found is None else found.kernel
        return found

    def drop(self, number: int, signature: Signature) -> None:
        """The kernel left a guest undecided: have the parts made again, unless that was of no use before."""
        drops = self._drops[number] = self._drops.get(number, 0) + 1
        kernel, self.kernels[number] = self.kernels[number], None
        if kernel is not None:
            signature.searched_by(kernel.asked, kernel.soon)
        if drops < MOST_DROPS:
            del self._parts[number]
        else:
            self._parts[number] = None

    def _kinds_for(self, weigher: GpuWeigher) -> NDArray[np.int32] | None:
        """The kinds of guests that a weigher reads, counted from now on; None if it reads none. O(1), or O(guests)."""
        if not weigher.reads_tags:
            return None
        table = weigher.table(self.fleet)
        table.refreshed()
        width = table.width
        if width and self.kinds is None:
            self._kinds = weigher.kinds(self.fleet)
            self.kinds = self._kinds.current(width)
        return self.kinds

    def _made(self, signature: Signature) -> NestedParts | None:
        owner, fleet = signature.owner, self.fleet
        judges, values = owner.row_judges, owner.row_values
        gpus = [weigher for weigher in signature.weighers if isinstance(weigher, GpuWeigher)]
        if owner.stale or signature.classes_known != len(fleet._classes) or not signature.ranks:
            return None
        if len(judges) != signature.complex or len(fleet.sharing_providers()):
            return None
        if [each.weigher for each in values] != gpus or any(each.maxval is not None for each in gpus):
            return None
        if len(gpus) > 1 or not all(isinstance(cache, TreeResults) for _, cache in judges):
            return None
        counted = signature.trees.counted() if signature.complex else None
        if counted is None and signature.complex:
            return None
        devices = _device_slot(fleet, signature, gpus[0], counted) if gpus else -1
        if devices is None:
            return None
        signature.refresh()
        kinds = self._kinds_for(gpus[0]) if gpus else None
        kernel = NestedShape(
            root=fleet._store.row["root"],
            guest=_guest_shape(fleet, signature, counted),
            seen=fleet.version,
            counts=None if counted is None else counted.counts,
            known=judges[0][1].array if judges else None,
            on_root=None if counted is None else _on_root(counted),
            scores=gpus[0].scores(fleet, signature.request) if gpus else None,
            values=values[0].cache.array if gpus else None,
            device_slot=devices,
            kinds=kinds,
            kind=_kind(fleet, counted, devices=devices >= 0, most=0 if self.kinds is None else self.kinds.shape[1]),
            **signature.search(),
        )
        if counted is not None:
            self.places = max(self.places, len(counted.order))
        return NestedParts(kernel, counted, devices=devices >= 0)


def _kind(fleet: Fleet, counted: Counted | None, *, devices: bool, most: int) -> int:
    """Among which of ``most`` kinds a guest counts by what it takes elsewhere than of its host; -1 where that depends
    on the host. O(slots)."""
    if counted is None or GPU_MILLI not in fleet.resource_classes:
        return 0
    resource = fleet.resource_class(GPU_MILLI)
    slots = zip(counted.order, counted.prepared.slots, strict=True)
    amounts = [n for _, slot in slots if slot.suffix for index, n in slot.amounts if index == resource]
    # Several of one host may be of one GPU if no weigher chooses them.
    kind = kind_of(amounts) if devices or len(amounts) < 2 else -1
    return kind if kind < most else -1


def _on_root(counted: Counted) -> NDArray[np.uint8]:
    """By slot of the counts, whether the root is to fill it: those of the unsuffixed group. O(slots)."""
    own = {place for place, slot in zip(counted.order, counted.prepared.slots, strict=True) if not slot.suffix}
    return np.array([number in own for number in range(counted.slots)], np.uint8)


def _guest_shape(fleet: Fleet, signature: Signature, counted: Counted | None) -> int:
    """What a guest takes of its host, where that gives all but the suffixed groups. O(slots)."""
    if counted is None:
        return signature.shape
    own: dict[int, int] = {}
    for slot in counted.prepared.slots:
        for index, amount in slot.amounts if not slot.suffix else ():
            own[index] = own.get(index, 0) + amount
    if own == signature.resources:
        return signature.shape
    flavor, is_bfv = signature.request.flavor, signature.request.spec.is_bfv
    return fleet._shape(own, flavor.vcpus, flavor.memory_mb, flavor.local_disk_mb(is_bfv=is_bfv))


def _device_slot(fleet: Fleet, signature: Signature, weigher: GpuWeigher, counted: Counted | None) -> int | None:
    """The slot of the counts in whose place the weigher chooses GPUs, -1 if there are none; None where it may choose
    others than the counts. O(slots)."""
    _, milli, count = weigher.shape(signature.request)
    if counted is None or count == 0:
        return None if count else -1
    if not weigher.table(fleet).width:
        return None  # no host has GPUs, and the scores read no device
    wanted = ((fleet.resource_class(GPU_MILLI), milli),)
    slots = list(zip(counted.order, counted.prepared.slots, strict=True))
    places = [place for place, slot in slots if slot.suffix and slot.amounts == wanted]
    others = any(index == wanted[0][0] for _, slot in slots if slot.amounts != wanted for index, _ in slot.amounts)
    if others or len(places) != count or (count > 1 and len(counted.order) - counted.slots != count - 1):
        return None
    return min(places)
