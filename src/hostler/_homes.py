"""Where the names that the package exports are defined."""

from typing import Final

ANSWERS: Final = {
    "core.cluster_status": "MemberLine SnapshotList",
    "core.errors": "ErrorValue",
    "core.machine.catalog_queries": "FlavorLine ImageLine",
    "core.machine.group_queries": "ServerGroupLine",
    "core.machine.host_detail": "CellDetail HostFacts PagesDetail PciPoolDetail",
    "core.machine.instance_queries": "InstanceLine",
    "core.machine.lifecycle_queries": "BackendLine VolumeLifeLine",
    "core.machine.provider_queries": "AggregateLine ConsumerLine ProviderDetail ProviderLine",
    "core.machine.queries": "DriftLine HostDetail HostLine InstanceDetail PolicyInForce Stock",
    "core.machine.ranking": "RankedHostLine Ranking",
    "core.machine.region_queries": "RegionGuestLine RegionLine",
    "core.machine.tenant_queries": "PoolLine ProjectLine TokenLine UsageAndLimits UserLine",
    "core.machine.volume_backend_queries": "BackupServiceLine VolumeBackendLine VolumePoolLine",
    "core.machine.volume_queries": "BackupLine SnapshotLine VolumeDetail VolumeGroupLine VolumeLine VolumeTypeLine",
    "core.machine.volume_ranking": "VolumeRanking WeighedPool",
    "core.machine.what_if": "Tried",
    "core.region_commands": "AcrossGuest PlacedAcross",
    "core.rpc.methods": "StatusOf Welcome",
    "core.shadow.status": "ShadowCounts ShadowDifference ShadowStatus",
    "core.storage_commands": "BackupPlaced GroupPlaced SnapshotPlaced VolumeMoved",
    "core.tenancy.new_token": "NewToken",
}
"""Types of the values of ``Client.call``, by module."""

MODULES: Final = {
    "core.engine_commands": "Placed",
    "core.machine.event_log": "Event",
    "core.backends.values": "ConsoleAddress",
    "core.machine.lifecycle_queries": "GuestLine GuestSnapshotLine",
    "core.machine.lives": "GuestChange SnapshotChange",
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
    "NoValidHost RuleFailed SnapshotError UnknownName",
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
"""All others; ``new=old`` where one has another name there."""
