"""Hostler: a deterministic scheduler core over a columnar fleet, for compute hosts, storage pools and whatever else
holds capacity. A name is imported when it is first used, so that a command loads what it needs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from . import _answers

if TYPE_CHECKING:
    from ._answers import *  # noqa: F403  # its names are in __all__
    from .core.engine_commands import Placed
    from .core.lifecycle_commands import GuestVolume, guest_volume
    from .core.machine.event_log import Event
    from .core.machine.lifecycle_queries import GuestLine
    from .core.machine.lives import GuestChange
    from .core.machine.queries import CapacityOf
    from .core.machine.region_summary import AreaSummary, RegionSummary, ShapeClass
    from .core.process.asyncio_scheduler import AsyncioScheduler, open_asyncio_scheduler
    from .core.process.scheduler import Scheduler, open_scheduler
    from .core.reconcile.status import BackendStatus, ReconcileStatus, StrangerLine
    from .core.rpc.addresses import Address
    from .core.rpc.blocking_client import BlockingClient
    from .core.rpc.client import Client, open_client
    from .core.storage_commands import AskedVolume
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
    "AddInventory",
    "Address",
    "Admission",
    "Aggregate",
    "Alternate",
    "AreaSummary",
    "AskedVolume",
    "AsyncioScheduler",
    "BackendReport",
    "BackendStatus",
    "Balance",
    "BlockingClient",
    "Bound",
    "Candidates",
    "CapacityExceeded",
    "CapacityOf",
    "CinderOptions",
    "Client",
    "ComputeOptions",
    "Consolidate",
    "Consumer",
    "ConsumerAllocations",
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
    "DuplicateName",
    "Engine",
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
    "Fleet",
    "FleetView",
    "Formula",
    "Goal",
    "GpuDecisions",
    "GpuOptions",
    "GuestChange",
    "GuestLine",
    "GuestVolume",
    "Host",
    "HostArrays",
    "HostClass",
    "HostReason",
    "HostReport",
    "HostState",
    "HostView",
    "HostlerError",
    "HostlerOptions",
    "Image",
    "InUse",
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
    "MemoryPages",
    "MetricNotFound",
    "MetricsOptions",
    "NameTable",
    "Named",
    "NetworkMetadata",
    "NoValidHost",
    "NovaFilterAdapter",
    "NovaWeigherAdapter",
    "NumaCell",
    "NumaLimits",
    "NumaOptions",
    "NumaTopology",
    "OptionGroup",
    "Options",
    "PciAliases",
    "PciOptions",
    "PciPool",
    "PciRequest",
    "PendingMove",
    "Placed",
    "PlacementCommand",
    "PlacementModel",
    "PlacementQuery",
    "Plan",
    "PlanCheck",
    "PlanOptions",
    "PlannedMove",
    "Policy",
    "PoolAlternate",
    "PoolFacts",
    "PoolFilter",
    "PoolRanking",
    "PoolReason",
    "PoolSelection",
    "PoolWeigher",
    "Pools",
    "Provider",
    "ProviderAggregates",
    "ProviderAllocations",
    "ProviderTraits",
    "ProviderUsages",
    "Ranked",
    "RankedHost",
    "RankedPool",
    "Ratios",
    "Reason",
    "ReconcileStatus",
    "Refusal",
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
    "RunningInstance",
    "Scheduler",
    "SchedulerOptions",
    "ScorePart",
    "Selection",
    "ServerGroup",
    "Service",
    "SetAggregates",
    "SetAllocations",
    "SetInventories",
    "SetInventory",
    "SetTraits",
    "ShapeClass",
    "SharedFit",
    "SnapshotError",
    "SpecRequestGroup",
    "StorageOptions",
    "StrangerLine",
    "TypeUsage",
    "UnknownName",
    "UpdateProvider",
    "UpgradeLevelsOptions",
    "Volume",
    "VolumeDecision",
    "VolumeDecisions",
    "VolumeEngine",
    "VolumeExplanation",
    "VolumeGroupDecision",
    "VolumeGroupRequest",
    "VolumePolicy",
    "VolumeRequest",
    "VolumeRequestChanges",
    "VolumeService",
    "VolumeSpec",
    "VolumeType",
    "Wave",
    "Weigher",
    "WeigherScores",
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
__all__ += _answers.__all__

_MODULES: Final = {
    "core.engine_commands": "Placed",
    "core.machine.event_log": "Event",
    "core.machine.lifecycle_queries": "GuestLine",
    "core.machine.lives": "GuestChange",
    "core.machine.queries": "CapacityOf",
    "core.lifecycle_commands": "GuestVolume guest_volume",
    "core.storage_commands": "AskedVolume",
    "core.process.asyncio_scheduler": "AsyncioScheduler open_asyncio_scheduler",
    "core.machine.region_summary": "AreaSummary RegionSummary ShapeClass",
    "core.process.scheduler": "Scheduler open_scheduler",
    "core.reconcile.status": "BackendStatus ReconcileStatus StrangerLine",
    "core.rpc.addresses": "Address",
    "core.rpc.blocking_client": "BlockingClient",
    "core.rpc.client": "Client open_client",
    "ext.tables": "NameTable",
    "placement.api.answers": "Candidates ConsumerView Inventories Named Provider ProviderAggregates "
    "ProviderAllocations ProviderTraits ProviderUsages TypeUsage",
    "placement.api.commands": "AddInventory ConsumerAllocations CreateProvider CreateResourceClass CreateTrait "
    "DeleteAllocations DeleteInventories DeleteInventory DeleteProvider "
    "DeleteProviderTraits DeleteResourceClass DeleteTrait PlacementCommand "
    "RenameResourceClass Reshape ReshapedProvider SetAggregates SetAllocations "
    "SetInventories SetInventory SetTraits UpdateProvider",
    "placement.api.placement_model": "PlacementModel",
    "placement.decide.batch_decisions": "Decisions",
    "placement.decide.engine": "Engine",
    "placement.decide.explain.explanation": "Explanation HostReason RankedHost",
    "placement.decide.fits": "Fit SharedFit",
    "placement.decide.scan": "Ranked",
    "placement.filters.base": "Bound Filter FilterSelection=Selection",
    "placement.fleet.consumers": "Consumer Extras",
    "placement.fleet.fleet": "Fleet Inventory",
    "placement.fleet.host_view": "FleetView HostView",
    "placement.load.adding": "add_hosts",
    "placement.load.bulk": "HostArrays load_hosts",
    "placement.load.reports": "report_hosts",
    "placement.numa.fit": "FittedCell FittedNuma",
    "placement.persist.file": "load_fleet=load load_requests save_fleet=save",
    "placement.plan.checking": "check_plan",
    "placement.plan.goals": "Balance Consolidate Defragment Drain EvacuateProof MakeRoom",
    "placement.policy.policy": "HostlerOptions Policy",
    "placement.request.placement_query": "PlacementQuery RequestGroup",
    "placement.storage.batch": "VolumeDecisions",
    "placement.storage.decision": "PoolAlternate PoolSelection VolumeDecision VolumeGroupDecision",
    "placement.storage.engine": "VolumeEngine",
    "placement.storage.explain": "PoolReason RankedPool VolumeExplanation",
    "placement.storage.pools.filter_properties": "FilterProperties",
    "placement.storage.pools.filters.base": "PoolFilter",
    "placement.storage.pools.options": "StorageOptions",
    "placement.storage.pools.policy": "VolumePolicy",
    "placement.storage.pools.pools": "Pools",
    "placement.storage.pools.reports": "BackendReport PoolFacts VolumeService",
    "placement.storage.pools.request": "Retry VolumeGroupRequest VolumeRequest "
    "VolumeRequestChanges VolumeSpec VolumeType",
    "placement.storage.pools.volumes": "Volume",
    "placement.storage.pools.weighers.base": "PoolWeigher",
    "placement.storage.scan": "PoolRanking WeigherScores",
    "placement.storage.with_guests": "JointDecision JointRequest Locality place_together",
    "placement.types.decision": "Alternate Counterfactual Decision NumaLimits Reason Refusal ScorePart Selection",
    "placement.types.errors": "CapacityExceeded DuplicateName HostlerError InUse InvalidValue MetricNotFound "
    "NoValidHost SnapshotError UnknownName",
    "placement.types.host": "Aggregate Host HostState MemoryPages NumaCell NumaTopology PciPool RunningInstance "
    "Service",
    "placement.types.host_classes": "HostClass",
    "placement.types.host_report": "HostReport Reported",
    "placement.types.moves": "PendingMove",
    "placement.types.networks": "NetworkMetadata",
    "placement.types.options": "CinderOptions ComputeOptions DefaultOptions FilterSchedulerOptions GpuOptions "
    "MetricsOptions NumaOptions OptionGroup Options PciOptions Ratios SchedulerOptions "
    "UpgradeLevelsOptions WorkaroundsOptions",
    "placement.types.pci_alias": "PciAliases",
    "placement.types.plans": "Admission Difference Goal LeftGuest Measure Plan PlanCheck PlanOptions PlannedMove Wave",
    "placement.types.request": "Destination Flavor Image InstanceNumaCell InstanceNumaTopology PciRequest Request "
    "RequestChanges RequestLevelParams RequestSpec RequestedNetwork ServerGroup "
    "SpecRequestGroup=RequestGroup",
    "placement.decide.gpu_batch": "GpuDecisions place_gpus",
    "placement.filters.adapter": "NovaFilterAdapter",
    "placement.gpu.providers": "add_gpus gpu_extra_specs",
    "placement.weighers.adapter": "NovaWeigherAdapter",
    "placement.weighers.base": "Formula Weigher",
}
"""Where the names are; ``new=old`` where one has another name there."""
_HOME: Final = {
    each.partition("=")[0]: (module, each)
    for module, names in (*_MODULES.items(), *_answers.MODULES.items())
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
