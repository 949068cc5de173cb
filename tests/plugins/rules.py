"""Rules as people write them, one for each form. The host form of each is the rule itself."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hostler.placement.filters.adapter import NovaFilterAdapter
from hostler.placement.filters.base import Bound, Filter, Selection
from hostler.placement.filters.server_group import group_with
from hostler.placement.fleet.host_view import FleetView
from hostler.placement.types.host import HostState
from hostler.placement.types.request import Request
from hostler.placement.weighers.adapter import NovaWeigherAdapter
from hostler.placement.weighers.base import Weigher


class RoomFilter(Filter):
    """Column form, two bounds: a gigabyte free and few guests."""

    name: ClassVar[str] = "RoomFilter"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"free_ram_mb", "num_instances"})

    def key(self, request: Request) -> Hashable:
        return None

    def bounds(self, request: Request) -> tuple[Bound, ...] | None:
        return Bound("free_ram_mb", low=1024), Bound("num_instances", high=5)

    def host_passes(self, host: HostState, request: Request) -> bool:
        return host.free_ram_mb >= 1024 and host.num_instances <= 5


class EvenFilter(Filter):
    """Mask form: an even number of guests, or a big host, for flavors of one vCPU."""

    name: ClassVar[str] = "EvenFilter"

    def applies(self, request: Request) -> bool:
        return request.flavor.vcpus == 1

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"num_instances", "vcpus_total", "hypervisor_type"})

    def key(self, request: Request) -> Hashable:
        return request.flavor.vcpus

    def mask(self, view: FleetView, request: Request) -> NDArray[np.bool_] | None:
        qemu: NDArray[np.bool_] = view.by_class(lambda host_class: host_class.hypervisor_type == "QEMU")
        passes: NDArray[np.bool_] = (view.column("num_instances") % 2 == 0) | (view.column("vcpus_total") > 4) & qemu
        return passes

    def host_passes(self, host: HostState, request: Request) -> bool:
        if request.flavor.vcpus != 1:
            return True
        return host.num_instances % 2 == 0 or (host.vcpus_total > 4 and host.hypervisor_type == "QEMU")


class AwayFilter(Filter):
    """Selection form: not on the hosts that hold two of the instances in the hint ``away``, and not on Host0."""

    name: ClassVar[str] = "AwayFilter"

    def applies(self, request: Request) -> bool:
        return "away" in request.scheduler_hints

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances", "host"})

    def key(self, request: Request) -> Hashable:
        return frozenset(request.scheduler_hints.get("away", ()))

    def selection(self, request: Request) -> Selection | None:
        away = frozenset(request.scheduler_hints.get("away", ()))
        return Selection(keep=False, instances=away, hosts=frozenset({"Host0"}), at_least=2)

    def host_passes(self, host: HostState, request: Request) -> bool:
        if not self.applies(request):
            return True
        held = set(request.scheduler_hints["away"]) & host.instances.keys()
        return len(held) < 2 and host.host != "Host0"


class RatioFilter(Filter):
    """Host form on static fields: judged once per host class."""

    name: ClassVar[str] = "RatioFilter"
    once_per_request: ClassVar[bool] = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"cpu_allocation_ratio", "traits"})

    def key(self, request: Request) -> Hashable:
        return request.project_id

    def host_passes(self, host: HostState, request: Request) -> bool:
        return host.cpu_allocation_ratio >= 1.0 or request.project_id == "p2"


class AwayFromTraitFilter(Filter):
    """Host form on static fields, of the spec alone: requests that share the spec are decided in the kernel."""

    name: ClassVar[str] = "AwayFromTraitFilter"
    spec_only: ClassVar[bool] = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"traits"})

    def key(self, request: Request) -> Hashable:
        return "away" in request.scheduler_hints

    def host_passes(self, host: HostState, request: Request) -> bool:
        return "away" not in request.scheduler_hints or len(host.traits) < 2


class CrowdFilter(Filter):
    """Host form: fewer guests on the service host than the flavor's vCPUs and two."""

    name: ClassVar[str] = "CrowdFilter"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances"})

    def key(self, request: Request) -> Hashable:
        return request.flavor.vcpus

    def host_passes(self, host: HostState, request: Request) -> bool:
        return len(host.instances) < request.flavor.vcpus + 2


class NovaQuiet:
    """A filter written for Nova, unchanged."""

    run_filter_once_per_request = False

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        quiet: bool = host_state.num_io_ops + spec_obj.flavor.vcpus < 7
        return quiet or host_state.hypervisor_hostname == "node1"


class NovaFew:
    """A weigher written for Nova, unchanged."""

    minval = 0

    def weight_multiplier(self, host_state: Any) -> float:
        return -1.5

    def _weigh_object(self, host_state: Any, weight_properties: Any) -> float:
        weight: float = host_state.num_instances * weight_properties.vcpus
        return weight


class _Rule(Weigher):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._multiplier = 1.5

    def configured(self) -> float:
        return self._multiplier


class QuietWeigher(_Rule):
    """Column form, more is worse; its multiplier may stand in aggregates."""

    name: ClassVar[str] = "QuietWeigher"
    option: ClassVar[str] = "cpu_weight_multiplier"
    sign: ClassVar[float] = -1.0

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"num_io_ops"})

    def column(self, request: Request) -> str | None:
        return "num_io_ops"

    def raw(self, host: HostState, request: Request) -> float:
        return host.num_io_ops


class ShareWeigher(_Rule):
    """Vectorised form."""

    name: ClassVar[str] = "ShareWeigher"
    option: ClassVar[str] = "ram_weight_multiplier"
    minval: ClassVar[float | None] = 0.0

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"free_ram_mb", "vcpus_total"})

    def values(self, view: FleetView, request: Request) -> NDArray[np.float64] | None:
        with np.errstate(all="ignore"):  # other rows than hosts have no vCPUs
            return view.column("free_ram_mb") / view.column("vcpus_total")

    def raw(self, host: HostState, request: Request) -> float:
        return host.free_ram_mb / host.vcpus_total


class CrowdWeigher(_Rule):
    """Host form."""

    name: ClassVar[str] = "CrowdWeigher"
    option: ClassVar[str] = "disk_weight_multiplier"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances"})

    def key(self, request: Request) -> Hashable:
        return request.flavor.memory_mb

    def raw(self, host: HostState, request: Request) -> float:
        return len(host.instances) / request.flavor.memory_mb


class TraitWeigher(_Rule):
    """Host form on static fields."""

    name: ClassVar[str] = "TraitWeigher"
    option: ClassVar[str] = "io_ops_weight_multiplier"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"traits"})

    def raw(self, host: HostState, request: Request) -> float:
        return len(host.traits) / 3


class CappedQuietWeigher(QuietWeigher):
    """Column form with a greatest value."""

    name: ClassVar[str] = "CappedQuietWeigher"
    maxval: ClassVar[float | None] = 2.0


class CappedCrowdWeigher(CrowdWeigher):
    """Host form whose values have both ends fixed."""

    name: ClassVar[str] = "CappedCrowdWeigher"
    minval: ClassVar[float | None] = 0.0005
    maxval: ClassVar[float | None] = 0.002


class CappedTraitWeigher(TraitWeigher):
    """Host form on static fields, with a greatest value."""

    name: ClassVar[str] = "CappedTraitWeigher"
    maxval: ClassVar[float | None] = 0.5


class CompanyWeigher(_Rule):
    """Group form: counts up to three members of a soft-affinity group."""

    name: ClassVar[str] = "CompanyWeigher"
    option: ClassVar[str] = "pci_weight_multiplier"
    maxval: ClassVar[float | None] = 6.0
    group_factor: ClassVar[float | None] = 2.0

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances"})

    def raw(self, host: HostState, request: Request) -> float:
        group = group_with(request, "soft-affinity")
        return 0.0 if group is None else 2.0 * len(group.members & host.instances.keys())


FILTERS: tuple[type[Filter], ...] = (
    *(RoomFilter, EvenFilter, AwayFilter, RatioFilter, AwayFromTraitFilter, CrowdFilter),
    NovaFilterAdapter.of(NovaQuiet),
)
WEIGHERS: tuple[type[Weigher], ...] = (
    *(QuietWeigher, ShareWeigher, CrowdWeigher, TraitWeigher),
    *(CappedQuietWeigher, CappedCrowdWeigher, CappedTraitWeigher, CompanyWeigher),
    NovaWeigherAdapter.of(NovaFew),
)
