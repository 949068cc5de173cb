"""Packing of guests with shares of GPUs. The score is a whole number (its fraction is cut off); the higher, the better.

c, G: thousandths of CPUs, and of GPUs in all, that the request asks for; C, L: those idle on the host, before it

GpuBestFitWeigher        100 (1 - (C - c) / 2 largest_cpu_milli - (L - G) / 2 largest_gpu_milli)
GpuDotProductWeigher     100 (1 - (C c / largest_cpu_milli² + L G / largest_gpu_milli²) / 2)
GpuPackingWeigher        0 without GPUs; f whole idle GPUs: max(33 - f, f) if these are all; else, of the k fitting GPUs
                         with least left, u whole ones: max(50 - u, 33); else max(100 - their idle percent / 10, 50)
GpuClusteringWeigher     0 without GPUs; 25 (1 - L / largest_gpu_milli) plus 75 if the host has guests of this kind (a
                         share, or k whole GPUs) alone, 50 with others, 25 if no guest with GPUs, 0 if others only
GpuFragmentationWeigher  100 / (1 + exp(-(F before - F after) / 1000)), F: idle thousandths of GPUs that a request drawn
                         from the typical ones cannot use
GpuRandomWeigher         random, from the instance's uuid

A guest takes the fitting GPU with least left if it requests a share of one, else the first that fit; with fragmentation
the one that leaves the best score, and a random one with GpuRandomWeigher. Source: Weng et al., Beware of
Fragmentation, USENIX ATC 2023, and its simulator's score plug-ins (hkust-adsl/kubernetes-scheduler-simulator). Sizes
and typical requests are options of ``[gpu]``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ...ext import devices
from ..fleet.fleet import Fleet
from ..gpu.guest_kinds import GuestKinds
from ..gpu.providers import GPU_MILLI, GpuTable, GpuWish, gpu_wish, model_trait
from ..types.errors import InvalidValue
from ..types.host import HostState
from ..types.limits import MAX_AMOUNT
from ..types.request import Flavor, Request
from ..types.validation import counted, uuid_words
from .base import Amounts, Weigher

if TYPE_CHECKING:
    from ..fleet.host_view import FleetView
    from ..types.options import Options

SHAPES: Final = 1024
"""Flavors whose requests are known at most."""
_WORD: Final = (1 << 64) - 1
Shape = tuple[int, int, int]
Scores = dict[Shape, devices.HostScores]


class TypicalMix:
    """The typical requests of ``[gpu] typical``: thousandths and counts, models, and shares that add up to 1."""

    def __init__(self, options: Options) -> None:
        typical = options.gpu.typical
        read = [_typical(name, share) for name, share in typical.items()]
        self.shapes = np.array([shape for shape, _ in read], np.int64).reshape(len(read), 3)
        self.traits = [frozenset(map(model_trait, models)) for _, models in read]
        shares = np.array(list(typical.values()), np.float64)
        # Shares that are meant as such stay as they are, to the bit.
        total = float(shares.sum())
        self.share = shares if abs(total - 1.0) < 1e-9 or not len(shares) else shares / total
        self._allowed: WeakKeyDictionary[Fleet, tuple[int, NDArray[np.uint8]]] = WeakKeyDictionary()
        """By fleet: how often it had forgotten host classes, and [host classes, typical] of those known then."""

    def allowed(self, fleet: Fleet, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """[typical, rows] whether a host has GPUs of an accepted model. O(rows) for each, and O(new classes)."""
        return np.ascontiguousarray(self._by_class(fleet)[fleet._store.row["class_of"][rows]].T)

    def allowed_classes(self, fleet: Fleet) -> NDArray[np.uint8]:
        """[typical, host classes] whether hosts of a class have GPUs of an accepted model. O(classes)."""
        return np.ascontiguousarray(self._by_class(fleet).T)

    def _by_class(self, fleet: Fleet) -> NDArray[np.uint8]:
        forgotten = fleet._change_log.forgotten_classes
        seen, known = self._allowed.get(fleet, (-1, np.zeros((0, len(self.traits)), np.uint8)))
        if seen != forgotten:
            known = known[:0]
        new = fleet._classes.values[len(known) :]
        if new or seen != forgotten:
            passes = [[not wanted or bool(wanted & value.traits) for wanted in self.traits] for value in new]
            known = np.vstack([known, np.array(passes, np.uint8).reshape(len(new), len(self.traits))])
            self._allowed[fleet] = forgotten, known
        return known


def _typical(name: str, share: float) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    parts = name.split(":")
    whole = all(counted(part, MAX_AMOUNT) is not None for part in parts[:3])
    if len(parts) not in (3, 4) or not whole or share <= 0:
        raise InvalidValue(
            f"gpu.typical has {name[:200]!r}={share}, but must be cpu_milli:gpu_milli:gpus[:A|B]=share",
            field="gpu.typical",
        )
    cpu, milli, count = (int(part) for part in parts[:3])
    if milli > devices.WHOLE or count > devices.MOST_DEVICES:
        raise InvalidValue(f"gpu.typical has {name[:200]!r}, which no host can give", field="gpu.typical")
    return (cpu, milli, count), tuple(filter(None, parts[3].split("|"))) if len(parts) == 4 else ()


class GpuWeigher(Weigher):
    """Base of the weighers of this family; ``policy`` is the kernel's number of the rule."""

    policy: ClassVar[int]
    whole_trees: ClassVar[bool] = True
    reads_tags: ClassVar[bool] = False
    spec_only: ClassVar[bool] = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.mix = TypicalMix(options)
        self._shapes: dict[int, tuple[Flavor, tuple[int, int, int]]] = {}
        """By identity, of flavors that were asked for lately: the flavor, and what it asks for."""
        self._nothing: NDArray[np.int32] = np.zeros((0, 0), np.int32)
        self._tables: WeakKeyDictionary[Fleet, GpuTable] = WeakKeyDictionary()
        self._kinds: WeakKeyDictionary[Fleet, GuestKinds] = WeakKeyDictionary()
        self._scores: WeakKeyDictionary[Fleet, tuple[tuple[int, ...], Scores, NDArray[np.uint8]]] = WeakKeyDictionary()

    def configured(self) -> float:
        return 1.0

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"vcpus_used", "traits"})

    def key(self, request: Request) -> Hashable:
        return self.shape(request), gpu_wish(request.extra_specs).models

    def shape(self, request: Request) -> tuple[int, int, int]:
        """What the request asks for: thousandths of CPUs, of each GPU, and the number of GPUs."""
        flavor = request.flavor
        known = self._shapes.get(id(flavor))
        if known is None:
            if len(self._shapes) >= SHAPES:
                self._shapes.clear()
            wish: GpuWish = gpu_wish(request.extra_specs)
            shape = flavor.vcpus * self.options.gpu.vcpu_milli, wish.milli, wish.count
            known = self._shapes[id(flavor)] = flavor, shape
        return known[1]

    def draw_key(self, request: Request) -> int:
        """The seed of the request's random choices; 0 if there are none."""
        return 0

    def draw_keys(self, uuids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """``draw_key`` of requests for one instance each, by the words of its uuid, uint64[requests, 2]."""
        return np.zeros(len(uuids), np.uint64)

    def table(self, fleet: Fleet) -> GpuTable:
        """The GPUs of a fleet."""
        found = self._tables.get(fleet)
        if found is None:
            found = self._tables[fleet] = GpuTable(fleet)
        return found

    def idle_cpu(self, fleet: Fleet, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Idle thousandths of CPUs by row."""
        avail = fleet._store.inventory["avail"][fleet.resource_class("VCPU")][rows]
        idle: NDArray[np.int64] = avail * self.options.gpu.vcpu_milli
        return idle

    def tags(self, fleet: Fleet, rows: NDArray[np.integer], width: int) -> NDArray[np.int32]:
        """[rows, kinds] guests by kind: without GPUs, with a share of one, with k whole ones. All 0 if the rule does
        not look at them."""
        if not self.reads_tags:
            if self._nothing.shape[0] < len(rows) or self._nothing.shape[1] != width + 2:
                self._nothing = np.zeros((2 * len(rows), width + 2), np.int32)
            return self._nothing[: len(rows)]
        return self.kinds(fleet).of(rows, width)

    def kinds(self, fleet: Fleet) -> GuestKinds:
        """Guests of a fleet by kind."""
        found = self._kinds.get(fleet)
        if found is None:
            found = self._kinds[fleet] = GuestKinds(fleet)
        return found

    def scored(
        self, fleet: Fleet, rows: NDArray[np.integer], request: Request
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """Scores of hosts, and the GPUs that the guest would take there, as bits."""
        scores = self.scores(fleet, request)
        tags = self.tags(fleet, rows, self.table(fleet).width) if self.reads_tags else None
        return scores.of(rows.astype(np.int32, copy=False), tags)

    def scores(self, fleet: Fleet, request: Request) -> devices.HostScores:
        """The kernel that scores hosts for such requests, for as long as ``table(fleet).layout`` and the host classes
        stay as they are. O(1) for a shape that was asked for lately; O(fleet) for a new one."""
        table, gpu, draws = self.table(fleet), self.options.gpu, self.draw_key(request)
        stamp = (*table.refreshed(), fleet._change_log.forgotten_classes, len(fleet._classes))
        kept = self._scores.get(fleet)
        if kept is None or kept[0] != stamp or len(kept[1]) >= SHAPES:
            kept = self._scores[fleet] = stamp, {}, self.mix.allowed_classes(fleet)
        _, known, allowed = kept
        shape = self.shape(request)
        found = known.get(shape) if draws == 0 else None
        if found is None:
            found = devices.HostScores(
                fleet._kernel,
                self.policy,
                float(gpu.largest_cpu_milli),
                float(gpu.largest_gpu_milli),
                self.mix.shapes,
                self.mix.share,
                allowed,
                table.columns,
                fleet.resource_class(GPU_MILLI) if table.width else 0,
                fleet.resource_class("VCPU"),
                gpu.vcpu_milli,
                shape,
                draws,
                next(iter(known.values()), None),
            )
            if draws == 0:
                known[shape] = found
        return found

    def values(self, view: FleetView, request: Request) -> NDArray[np.float64] | None:
        return self.scored(view.fleet, view.row_ids, request)[0]

    def raw(self, host: HostState, request: Request) -> float:
        """InvalidValue for a host that is in no fleet: what is below it is not known."""
        fleet, row = getattr(host, "fleet", None), getattr(host, "row", None)
        if not isinstance(fleet, Fleet) or row is None:
            raise InvalidValue(f"{self.name} weighs hosts of a fleet only", field=self.name)
        return float(self.scored(fleet, np.array([row], np.int32), request)[0][0])

    def choose(self, fleet: Fleet, row: int, request: Request, amounts: Amounts) -> Amounts | None:
        """The GPUs that the guest takes below ``row``, in place of those that ``amounts`` names."""
        rows = np.array([row], np.int32)
        milli, count = self.shape(request)[1:]
        taken = int(self.scored(fleet, rows, request)[1][0]) if count else 0
        if taken == 0:
            return None
        resource, below = fleet.resource_class(GPU_MILLI), self.table(fleet).below(rows)[0].tolist()
        kept = {other: {k: n for k, n in each.items() if k != resource} for other, each in amounts.items()}
        chosen: Amounts = {other: each for other, each in kept.items() if each or other == row}
        for bit, gpu in enumerate(below):
            if taken >> bit & 1:
                chosen[gpu] = {**chosen.get(gpu, {}), resource: milli}
        return chosen


class GpuBestFitWeigher(GpuWeigher):
    """Prefers hosts on which little is left."""

    name: ClassVar[str] = "GpuBestFitWeigher"
    option: ClassVar[str] = "gpu_best_fit_weight_multiplier"
    policy: ClassVar[int] = devices.BEST_FIT


class GpuDotProductWeigher(GpuWeigher):
    """Prefers the smaller product of what is asked for and what is left."""

    name: ClassVar[str] = "GpuDotProductWeigher"
    option: ClassVar[str] = "gpu_dot_product_weight_multiplier"
    policy: ClassVar[int] = devices.DOT_PRODUCT


class GpuPackingWeigher(GpuWeigher):
    """Prefers GPUs in use, then GPUs of hosts in use, then hosts with few GPUs."""

    name: ClassVar[str] = "GpuPackingWeigher"
    option: ClassVar[str] = "gpu_packing_weight_multiplier"
    policy: ClassVar[int] = devices.PACKING


class GpuClusteringWeigher(GpuWeigher):
    """Keeps guests that ask for the same number of GPUs together."""

    name: ClassVar[str] = "GpuClusteringWeigher"
    option: ClassVar[str] = "gpu_clustering_weight_multiplier"
    policy: ClassVar[int] = devices.CLUSTERING
    reads_tags: ClassVar[bool] = True


class GpuFragmentationWeigher(GpuWeigher):
    """Fragmentation gradient descent: prefers where least becomes useless for the typical requests.

    InvalidValue if ``[gpu] typical`` names none.
    """

    name: ClassVar[str] = "GpuFragmentationWeigher"
    option: ClassVar[str] = "gpu_fragmentation_weight_multiplier"
    policy: ClassVar[int] = devices.FRAGMENTATION

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if not len(self.mix.share):
            raise InvalidValue(
                f"{self.name} needs typical requests",
                field="gpu.typical",
                hint='such as typical = ["4000:500:1=0.7", "8000:1000:1:T4|P100=0.3"] in [gpu]',
            )


class GpuRandomWeigher(GpuWeigher):
    """A random host that fits, and a random GPU. For comparisons: each request is compiled separately."""

    name: ClassVar[str] = "GpuRandomWeigher"
    option: ClassVar[str] = "gpu_random_weight_multiplier"
    policy: ClassVar[int] = devices.RANDOM

    def key(self, request: Request) -> Hashable:
        return self.draw_key(request), super().key(request)

    def draw_key(self, request: Request) -> int:
        if not request.instance_uuids:
            return 0
        high, low = uuid_words(request.instance_uuids[0], "instance_uuids")
        return (high * 31 + low) & _WORD

    def draw_keys(self, uuids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return uuids[:, 0] * np.uint64(31) + uuids[:, 1]


GPU_WEIGHERS: Final[dict[str, type[GpuWeigher]]] = {
    weigher.name: weigher
    for weigher in (
        GpuBestFitWeigher,
        GpuDotProductWeigher,
        GpuPackingWeigher,
        GpuClusteringWeigher,
        GpuFragmentationWeigher,
        GpuRandomWeigher,
    )
}
