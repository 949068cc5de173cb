"""Vector packing: rules of the literature that look at CPUs and memory together. The higher the raw value, the better.

capacity c = (vCPUs * ratio, GiB * ratio), used u, idle i = c - u, request q; w: the mean load u / c over all hosts

DotProductWeigher            sum of i q / c²
WeightedDotProductWeigher    sum of w i q / c²
L2NormDiffWeigher            minus the sum of w ((i - q) / c)²
CosineWeigher                cosine of the angle between c and u + q
DeltaPerpWeigher             by how much the distance of u from the line along c shrinks when q is added

Each has the multiplier 1. Best and worst fit are CPUWeigher with a multiplier of -1 and 1; first fit is no weigher.
The formulas are in ext/vector_fit.py, and in the ranking kernel.
Source: Panigrahy et al., Heuristics for vector bin packing (2011); the rules of dslab-iaas.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar, Final

import numpy as np

from ...ext.constants import COSINE, DELTA_PERP, DOT_PRODUCT, L2_NORM
from ...ext.vector_fit import GIB_MB, Load, Pair, fit, load_of, mean_load
from ..fleet.fleet import Fleet
from ..types.errors import InvalidValue
from ..types.host import HostState
from ..types.request import Request
from .base import Formula, Weigher

_READS: Final = (
    *("vcpus_total", "cpu_allocation_ratio", "vcpus_used"),
    *("total_usable_ram_mb", "ram_allocation_ratio", "free_ram_mb"),
)


class PackingWeigher(Weigher):
    """Base of the family: each is one of the kernels' formulas."""

    spec_only: ClassVar[bool] = True
    number: ClassVar[int]
    """Of the formula, in ext/constants.py."""

    def configured(self) -> float:
        return 1.0

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset(_READS)

    def key(self, request: Request) -> Hashable:
        return request.flavor.vcpus, request.flavor.memory_mb

    def formula(self, request: Request) -> Formula | None:
        return Formula(self.number, request.flavor.vcpus, request.flavor.memory_mb / GIB_MB)

    def raw(self, host: HostState, request: Request) -> float:
        """InvalidValue for a host that is in no fleet, where a rule looks at all hosts."""
        fleet = getattr(host, "fleet", None)
        weight = (1.0, 1.0)
        if self.whole_fleet:
            if not isinstance(fleet, Fleet):
                raise InvalidValue(f"{self.name} weighs hosts of a fleet only", field=self.name)
            weight = _mean_load(fleet)
        load = load_of(**{name: float(getattr(host, name)) for name in _READS})
        return fit(self.number, load, (request.flavor.vcpus, request.flavor.memory_mb / GIB_MB), weight)


def _mean_load(fleet: Fleet) -> Pair:
    hosts = np.flatnonzero(fleet.is_host)
    columns = [fleet.column(name)[hosts].tolist() for name in _READS]
    return mean_load((row, _load(*figures)) for row, *figures in zip(hosts.tolist(), *columns, strict=True))


def _load(*figures: float) -> Load:
    return load_of(**dict(zip(_READS, figures, strict=True)))


class DotProductWeigher(PackingWeigher):
    """Prefers hosts whose idle resources point the same way as the request."""

    name: ClassVar[str] = "DotProductWeigher"
    option: ClassVar[str] = "dot_product_weight_multiplier"
    number: ClassVar[int] = DOT_PRODUCT


class WeightedDotProductWeigher(DotProductWeigher):
    """As DotProductWeigher; a resource counts by how much of it the fleet has given."""

    name: ClassVar[str] = "WeightedDotProductWeigher"
    option: ClassVar[str] = "weighted_dot_product_weight_multiplier"
    whole_fleet: ClassVar[bool] = True


class L2NormDiffWeigher(PackingWeigher):
    """Prefers hosts on which least is left; a resource counts by how much of it the fleet has given."""

    name: ClassVar[str] = "L2NormDiffWeigher"
    option: ClassVar[str] = "l2_norm_diff_weight_multiplier"
    number: ClassVar[int] = L2_NORM
    whole_fleet: ClassVar[bool] = True


class CosineWeigher(PackingWeigher):
    """Prefers hosts that are used evenly once the request is there."""

    name: ClassVar[str] = "CosineWeigher"
    option: ClassVar[str] = "cosine_weight_multiplier"
    number: ClassVar[int] = COSINE


class DeltaPerpWeigher(PackingWeigher):
    """Prefers hosts whose use the request makes more even."""

    name: ClassVar[str] = "DeltaPerpWeigher"
    option: ClassVar[str] = "delta_perp_weight_multiplier"
    number: ClassVar[int] = DELTA_PERP


PACKING_WEIGHERS: Final[dict[str, type[PackingWeigher]]] = {
    weigher.name: weigher
    for weigher in (DotProductWeigher, WeightedDotProductWeigher, L2NormDiffWeigher, CosineWeigher, DeltaPerpWeigher)
}
