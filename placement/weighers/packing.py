"""Vector packing: rules of the literature that look at CPUs and memory together. The higher the raw value, the better.

capacity c = (vCPUs * ratio, GiB * ratio), used u, idle i = c - u, request q; w: the mean load u / c over all hosts

DotProductWeigher            sum of i q / c²
WeightedDotProductWeigher    sum of w i q / c²
L2NormDiffWeigher            minus the sum of w ((i - q) / c)²
CosineWeigher                cosine of the angle between c and u + q
DeltaPerpWeigher             by how much the distance of u from the line along c shrinks when q is added

Each has the multiplier 1. Best and worst fit are CPUWeigher with a multiplier of -1 and 1; first fit is no weigher.
Source: Panigrahy et al., Heuristics for vector bin packing (2011); the rules of dslab-iaas.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidValue
from ..fleet import Fleet
from ..host import HostState
from ..request import Request
from .base import Weigher

if TYPE_CHECKING:
    from ..view import FleetView

GIB_MB: Final = 1024.0
_READS: Final = frozenset(
    {
        "cpu_allocation_ratio",
        "free_ram_mb",
        "ram_allocation_ratio",
        "total_usable_ram_mb",
        "vcpus_total",
        "vcpus_used",
    }
)
Vectors = NDArray[np.float64]


class PackingWeigher(Weigher):
    """Base of the family: ``value`` is the formula, over arrays [hosts, 2]."""

    spec_only: ClassVar[bool] = True

    def configured(self) -> float:
        return 1.0

    def fields(self, request: Request) -> frozenset[str]:
        return _READS

    def key(self, request: Request) -> Hashable:
        return request.flavor.vcpus, request.flavor.memory_mb

    def value(self, capacity: Vectors, used: Vectors, asked: Vectors, load: Vectors) -> Vectors:
        """The raw values of hosts. ``load``: the mean load of each resource over all hosts of the fleet."""
        raise NotImplementedError

    def values(self, view: FleetView, request: Request) -> Vectors | None:
        capacity, used = _vectors(view.fleet, view.row_ids)
        load = _mean_load(view.fleet) if self.whole_fleet else np.ones(2)
        return self.value(capacity, used, _asked(request), load)

    def raw(self, host: HostState, request: Request) -> float:
        """InvalidValue for a host that is in no fleet, where a rule looks at all hosts."""
        fleet = getattr(host, "fleet", None)
        if self.whole_fleet and not isinstance(fleet, Fleet):
            raise InvalidValue(f"{self.name} weighs hosts of a fleet only", field=self.name)
        capacity = [host.vcpus_total * host.cpu_allocation_ratio, host.total_usable_ram_mb * host.ram_allocation_ratio]
        used = [float(host.vcpus_used), float(host.total_usable_ram_mb - host.free_ram_mb)]
        scale = np.array([1.0, GIB_MB])
        load = _mean_load(fleet) if self.whole_fleet and isinstance(fleet, Fleet) else np.ones(2)
        return float(self.value(np.array([capacity]) / scale, np.array([used]) / scale, _asked(request), load)[0])


def _asked(request: Request) -> Vectors:
    return np.array([request.flavor.vcpus, request.flavor.memory_mb / GIB_MB])


def _vectors(fleet: Fleet, rows: NDArray[np.integer]) -> tuple[Vectors, Vectors]:
    """Capacity and use of hosts, [rows, 2]; what is said of rows that are no hosts means nothing."""

    def column(name: str) -> Vectors:
        values: Vectors = fleet.column(name)[rows]
        return values

    memory = column("total_usable_ram_mb")
    vcpus = column("vcpus_total") * column("cpu_allocation_ratio")
    capacity = np.stack([vcpus, memory * column("ram_allocation_ratio") / GIB_MB], axis=1)
    return capacity, np.stack([column("vcpus_used"), (memory - column("free_ram_mb")) / GIB_MB], axis=1)


def _mean_load(fleet: Fleet) -> Vectors:
    capacity, used = _vectors(fleet, np.flatnonzero(fleet.is_host))
    load: Vectors = _over(used, capacity).mean(axis=0) if len(used) else np.ones(2)
    return load


def _over(amounts: Vectors, capacity: Vectors) -> Vectors:
    """Parts of the capacity; 0 where there is none."""
    return np.divide(amounts, capacity, out=np.zeros_like(amounts), where=capacity != 0)


class DotProductWeigher(PackingWeigher):
    """Prefers hosts whose idle resources point the same way as the request."""

    name: ClassVar[str] = "DotProductWeigher"
    option: ClassVar[str] = "dot_product_weight_multiplier"

    def value(self, capacity: Vectors, used: Vectors, asked: Vectors, load: Vectors) -> Vectors:
        wanted = _over(np.broadcast_to(asked, used.shape).copy(), capacity)
        products: Vectors = (load * _over(capacity - used, capacity) * wanted).sum(axis=1)
        return products


class WeightedDotProductWeigher(DotProductWeigher):
    """As DotProductWeigher; a resource counts by how much of it the fleet has given."""

    name: ClassVar[str] = "WeightedDotProductWeigher"
    option: ClassVar[str] = "weighted_dot_product_weight_multiplier"
    whole_fleet: ClassVar[bool] = True


class L2NormDiffWeigher(PackingWeigher):
    """Prefers hosts on which least is left; a resource counts by how much of it the fleet has given."""

    name: ClassVar[str] = "L2NormDiffWeigher"
    option: ClassVar[str] = "l2_norm_diff_weight_multiplier"
    whole_fleet: ClassVar[bool] = True

    def value(self, capacity: Vectors, used: Vectors, asked: Vectors, load: Vectors) -> Vectors:
        left = _over(capacity - used - asked, capacity)
        distance: Vectors = (load * left * left).sum(axis=1)
        return -distance


class CosineWeigher(PackingWeigher):
    """Prefers hosts that are used evenly once the request is there."""

    name: ClassVar[str] = "CosineWeigher"
    option: ClassVar[str] = "cosine_weight_multiplier"

    def value(self, capacity: Vectors, used: Vectors, asked: Vectors, load: Vectors) -> Vectors:
        after = used + asked
        lengths = np.sqrt((capacity * capacity).sum(axis=1) * (after * after).sum(axis=1))
        cosines = (capacity * after).sum(axis=1)
        parts: Vectors = np.divide(cosines, lengths, out=np.zeros_like(cosines), where=lengths != 0)
        return parts


class DeltaPerpWeigher(PackingWeigher):
    """Prefers hosts whose use the request makes more even."""

    name: ClassVar[str] = "DeltaPerpWeigher"
    option: ClassVar[str] = "delta_perp_weight_multiplier"

    def value(self, capacity: Vectors, used: Vectors, asked: Vectors, load: Vectors) -> Vectors:
        return _distance(capacity, used) - _distance(capacity, used + asked)


def _distance(capacity: Vectors, used: Vectors) -> Vectors:
    """Of ``used`` from the line along ``capacity``."""
    lengths = (capacity * capacity).sum(axis=1)
    along = np.divide((capacity * used).sum(axis=1), lengths, out=np.zeros_like(lengths), where=lengths != 0)
    away = used - along[:, None] * capacity
    distance: Vectors = np.sqrt((away * away).sum(axis=1))
    return distance


PACKING_WEIGHERS: Final[dict[str, type[PackingWeigher]]] = {
    weigher.name: weigher
    for weigher in (DotProductWeigher, WeightedDotProductWeigher, L2NormDiffWeigher, CosineWeigher, DeltaPerpWeigher)
}
