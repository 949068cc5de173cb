"""Hostler: a deterministic scheduler core over a columnar fleet, for compute hosts, storage pools and whatever else
holds capacity. A name is imported when it is first used, so that a command loads what it needs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from . import _homes

if TYPE_CHECKING:
    from .core.backends.values import ConsoleAddress
    from .core.cluster_status import MemberLine, SnapshotList
    from .core.engine_commands import Placed
    from .core.errors import ErrorValue
    from .core.lifecycle_commands import GuestVolume, guest_volume
    from .core.machine.catalog_queries import FlavorLine, ImageLine
    from .core.machine.event_log import Event
    from .core.machine.group_queries import ServerGroupLine
    from .core.machine.host_detail import CellDetail, HostFacts, PagesDetail, PciPoolDetail
    from .core.machine.instance_queries import InstanceLine
    from .core.machine.lifecycle_queries import BackendLine, GuestLine, GuestSnapshotLine, VolumeLifeLine
    from .core.machine.lives import GuestChange, SnapshotChange
    from .core.machine.provider_queries import AggregateLine, ConsumerLine, ProviderDetail, ProviderLine
    from .core.machine.queries import CapacityOf, DriftLine, HostDetail, HostLine, InstanceDetail, PolicyInForce, Stock
    from .core.machine.ranking import RankedHostLine, Ranking
    from .core.machine.region_queries import RegionGuestLine, RegionLine
    from .core.machine.region_summary import AreaSummary, RegionSummary, ShapeClass
    from .core.machine.tenant_queries import PoolLine, ProjectLine, TokenLine, UsageAndLimits, UserLine
    from .core.machine.volume_backend_queries import BackupServiceLine, VolumeBackendLine, VolumePoolLine
    from .core.machine.volume_queries import (
        BackupLine,
        SnapshotLine,
        VolumeDetail,
        VolumeGroupLine,
        VolumeLine,
        VolumeTypeLine,
    )
    from .core.machine.volume_ranking import VolumeRanking, WeighedPool
    from .core.machine.what_if import Tried
    from .core.process.asyncio_scheduler import AsyncioScheduler, open_asyncio_scheduler
    from .core.process.scheduler import Scheduler, open_scheduler
    from .core.reconcile.status import BackendStatus, ReconcileStatus, StrangerLine
    from .core.region_commands import AcrossGuest, PlacedAcross
    from .core.rpc.addresses import Address
    from .core.rpc.blocking_client import BlockingClient
    from .core.rpc.client import Client, open_client
    from .core.rpc.methods import StatusOf, Welcome
    from .core.shadow.status import ShadowCounts, ShadowDifference, ShadowStatus
    from .core.storage_commands import AskedVolume, BackupPlaced, GroupPlaced, SnapshotPlaced, VolumeMoved
    from .core.tenancy.new_token import NewToken
    from .ext.tables import NameTable
    from .placement.api.answers import (
        Candidates,
        ConsumerView,
        Inventories,
        Named,
        Provider,
        ProviderAggregates,
        ProviderAllocations,
        ProviderTraits,
        ProviderUsages,
        TypeUsage,
    )
    from .placement.api.commands import (
        AddInventory,
        ConsumerAllocations,
        CreateProvider,
        CreateResourceClass,
        CreateTrait,
        DeleteAllocations,
        DeleteInventories,
        DeleteInventory,
        DeleteProvider,
        DeleteProviderTraits,
        DeleteResourceClass,
        DeleteTrait,
        PlacementCommand,
        RenameResourceClass,
        Reshape,
        ReshapedProvider,
        SetAggregates,
        SetAllocations,
        SetInventories,
        SetInventory,
        SetTraits,
        UpdateProvider,
    )
    from .placement.api.placement_model import PlacementModel
    from .placement.decide.batch_decisions import Decisions
    from .placement.decide.engine import Engine
    from .placement.decide.explain.explanation import Explanation, HostReason, RankedHost
    from .placement.decide.fits import Fit, SharedFit
    from .placement.decide.gpu_batch import GpuDecisions, place_gpus
    from .placement.decide.scan import Ranked
    from .placement.filters.adapter import NovaFilterAdapter
    from .placement.filters.base import Bound, Filter
    from .placement.filters.base import Selection as FilterSelection
    from .placement.fleet.consumers import Consumer, Extras
    from .placement.fleet.fleet import Fleet, Inventory
    from .placement.fleet.host_view import FleetView, HostView
    from .placement.gpu.providers import add_gpus, gpu_extra_specs
    from .placement.load.adding import add_hosts
    from .placement.load.bulk import HostArrays, load_hosts
    from .placement.load.reports import report_hosts
    from .placement.numa.fit import FittedCell, FittedNuma
    from .placement.persist.file import load as load_fleet
    from .placement.persist.file import load_requests
    from .placement.persist.file import save as save_fleet
    from .placement.plan.checking import check_plan
    from .placement.plan.goals import Balance, Consolidate, Defragment, Drain, EvacuateProof, MakeRoom
    from .placement.policy.policy import HostlerOptions, Policy
    from .placement.request.placement_query import PlacementQuery, RequestGroup
    from .placement.storage.batch import VolumeDecisions
    from .placement.storage.decision import PoolAlternate, PoolSelection, VolumeDecision, VolumeGroupDecision
    from .placement.storage.engine import VolumeEngine
    from .placement.storage.explain import PoolReason, RankedPool, VolumeExplanation
    from .placement.storage.pools.filter_properties import FilterProperties
    from .placement.storage.pools.filters.base import PoolFilter
    from .placement.storage.pools.options import StorageOptions
    from .placement.storage.pools.policy import VolumePolicy
    from .placement.storage.pools.pools import Pools
    from .placement.storage.pools.reports import BackendReport, PoolFacts, VolumeService
    from .placement.storage.pools.request import (
        Retry,
        VolumeGroupRequest,
        VolumeRequest,
        VolumeRequestChanges,
        VolumeSpec,
        VolumeType,
    )
    from .placement.storage.pools.volumes import Volume
    from .placement.storage.pools.weighers.base import PoolWeigher
    from .placement.storage.scan import PoolRanking, WeigherScores
    from .placement.storage.with_guests import JointDecision, JointRequest, Locality, place_together
    from .placement.types.decision import (
        Alternate,
        Counterfactual,
        Decision,
        NumaLimits,
        Reason,
        Refusal,
        ScorePart,
        Selection,
    )
    from .placement.types.errors import (
        CapacityExceeded,
        DuplicateName,
        HostlerError,
        InUse,
        InvalidValue,
        MetricNotFound,
        NoValidHost,
        RuleFailed,
        SnapshotError,
        UnknownName,
    )
    from .placement.types.host import (
        Aggregate,
        Host,
        HostState,
        MemoryPages,
        NumaCell,
        NumaTopology,
        PciPool,
        RunningInstance,
        Service,
    )
    from .placement.types.host_classes import HostClass
    from .placement.types.host_report import HostReport, Reported
    from .placement.types.moves import PendingMove
    from .placement.types.networks import NetworkMetadata
    from .placement.types.options import (
        CinderOptions,
        ComputeOptions,
        DefaultOptions,
        FilterSchedulerOptions,
        GpuOptions,
        MetricsOptions,
        NumaOptions,
        OptionGroup,
        Options,
        PciOptions,
        Ratios,
        SchedulerOptions,
        UpgradeLevelsOptions,
        WorkaroundsOptions,
    )
    from .placement.types.pci_alias import PciAliases
    from .placement.types.plans import (
        Admission,
        Difference,
        Goal,
        LeftGuest,
        Measure,
        Plan,
        PlanCheck,
        PlannedMove,
        PlanOptions,
        Wave,
    )
    from .placement.types.request import (
        Destination,
        Flavor,
        Image,
        InstanceNumaCell,
        InstanceNumaTopology,
        PciRequest,
        Request,
        RequestChanges,
        RequestedNetwork,
        RequestLevelParams,
        RequestSpec,
        ServerGroup,
    )
    from .placement.types.request import RequestGroup as SpecRequestGroup
    from .placement.weighers.adapter import NovaWeigherAdapter
    from .placement.weighers.base import Formula, Weigher

__version__ = "0.2.0"

__all__ = [
    "AcrossGuest",
    "AddInventory",
    "Address",
    "Admission",
    "Aggregate",
    "AggregateLine",
    "Alternate",
    "AreaSummary",
    "AskedVolume",
    "AsyncioScheduler",
    "BackendLine",
    "BackendReport",
    "BackendStatus",
    "BackupLine",
    "BackupPlaced",
    "BackupServiceLine",
    "Balance",
    "BlockingClient",
    "Bound",
    "Candidates",
    "CapacityExceeded",
    "CapacityOf",
    "CellDetail",
    "CinderOptions",
    "Client",
    "ComputeOptions",
    "ConsoleAddress",
    "Consolidate",
    "Consumer",
    "ConsumerAllocations",
    "ConsumerLine",
    "ConsumerView",
    "Counterfactual",
    "CreateProvider",
    "CreateResourceClass",
    "CreateTrait",
    "Decision",
    "Decisions",
    "DefaultOptions",
    "Defragment",
    "DeleteAllocations",
    "DeleteInventories",
    "DeleteInventory",
    "DeleteProvider",
    "DeleteProviderTraits",
    "DeleteResourceClass",
    "DeleteTrait",
    "Destination",
    "Difference",
    "Drain",
    "DriftLine",
    "DuplicateName",
    "Engine",
    "ErrorValue",
    "EvacuateProof",
    "Event",
    "Explanation",
    "Extras",
    "Filter",
    "FilterProperties",
    "FilterSchedulerOptions",
    "FilterSelection",
    "Fit",
    "FittedCell",
    "FittedNuma",
    "Flavor",
    "FlavorLine",
    "Fleet",
    "FleetView",
    "Formula",
    "Goal",
    "GpuDecisions",
    "GpuOptions",
    "GroupPlaced",
    "GuestChange",
    "GuestLine",
    "GuestSnapshotLine",
    "GuestVolume",
    "Host",
    "HostArrays",
    "HostClass",
    "HostDetail",
    "HostFacts",
    "HostLine",
    "HostReason",
    "HostReport",
    "HostState",
    "HostView",
    "HostlerError",
    "HostlerOptions",
    "Image",
    "ImageLine",
    "InUse",
    "InstanceDetail",
    "InstanceLine",
    "InstanceNumaCell",
    "InstanceNumaTopology",
    "InvalidValue",
    "Inventories",
    "Inventory",
    "JointDecision",
    "JointRequest",
    "LeftGuest",
    "Locality",
    "MakeRoom",
    "Measure",
    "MemberLine",
    "MemoryPages",
    "MetricNotFound",
    "MetricsOptions",
    "NameTable",
    "Named",
    "NetworkMetadata",
    "NewToken",
    "NoValidHost",
    "NovaFilterAdapter",
    "NovaWeigherAdapter",
    "NumaCell",
    "NumaLimits",
    "NumaOptions",
    "NumaTopology",
    "OptionGroup",
    "Options",
    "PagesDetail",
    "PciAliases",
    "PciOptions",
    "PciPool",
    "PciPoolDetail",
    "PciRequest",
    "PendingMove",
    "Placed",
    "PlacedAcross",
    "PlacementCommand",
    "PlacementModel",
    "PlacementQuery",
    "Plan",
    "PlanCheck",
    "PlanOptions",
    "PlannedMove",
    "Policy",
    "PolicyInForce",
    "PoolAlternate",
    "PoolFacts",
    "PoolFilter",
    "PoolLine",
    "PoolRanking",
    "PoolReason",
    "PoolSelection",
    "PoolWeigher",
    "Pools",
    "ProjectLine",
    "Provider",
    "ProviderAggregates",
    "ProviderAllocations",
    "ProviderDetail",
    "ProviderLine",
    "ProviderTraits",
    "ProviderUsages",
    "Ranked",
    "RankedHost",
    "RankedHostLine",
    "RankedPool",
    "Ranking",
    "Ratios",
    "Reason",
    "ReconcileStatus",
    "Refusal",
    "RegionGuestLine",
    "RegionLine",
    "RegionSummary",
    "RenameResourceClass",
    "Reported",
    "Request",
    "RequestChanges",
    "RequestGroup",
    "RequestLevelParams",
    "RequestSpec",
    "RequestedNetwork",
    "Reshape",
    "ReshapedProvider",
    "Retry",
    "RuleFailed",
    "RunningInstance",
    "Scheduler",
    "SchedulerOptions",
    "ScorePart",
    "Selection",
    "ServerGroup",
    "ServerGroupLine",
    "Service",
    "SetAggregates",
    "SetAllocations",
    "SetInventories",
    "SetInventory",
    "SetTraits",
    "ShadowCounts",
    "ShadowDifference",
    "ShadowStatus",
    "ShapeClass",
    "SharedFit",
    "SnapshotChange",
    "SnapshotError",
    "SnapshotLine",
    "SnapshotList",
    "SnapshotPlaced",
    "SpecRequestGroup",
    "StatusOf",
    "Stock",
    "StorageOptions",
    "StrangerLine",
    "TokenLine",
    "Tried",
    "TypeUsage",
    "UnknownName",
    "UpdateProvider",
    "UpgradeLevelsOptions",
    "UsageAndLimits",
    "UserLine",
    "Volume",
    "VolumeBackendLine",
    "VolumeDecision",
    "VolumeDecisions",
    "VolumeDetail",
    "VolumeEngine",
    "VolumeExplanation",
    "VolumeGroupDecision",
    "VolumeGroupLine",
    "VolumeGroupRequest",
    "VolumeLifeLine",
    "VolumeLine",
    "VolumeMoved",
    "VolumePolicy",
    "VolumePoolLine",
    "VolumeRanking",
    "VolumeRequest",
    "VolumeRequestChanges",
    "VolumeService",
    "VolumeSpec",
    "VolumeType",
    "VolumeTypeLine",
    "Wave",
    "WeighedPool",
    "Weigher",
    "WeigherScores",
    "Welcome",
    "WorkaroundsOptions",
    "add_gpus",
    "add_hosts",
    "check_plan",
    "gpu_extra_specs",
    "guest_volume",
    "load_fleet",
    "load_hosts",
    "load_requests",
    "open_asyncio_scheduler",
    "open_client",
    "open_scheduler",
    "place_gpus",
    "place_together",
    "report_hosts",
    "save_fleet",
]

_HOME: Final = {
    each.partition("=")[0]: (module, each)
    for module, names in (*_homes.MODULES.items(), *_homes.ANSWERS.items())
    for each in names.split()
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, named = _HOME[name]
    value = getattr(import_module(f".{module}", __name__), named.rpartition("=")[2])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
