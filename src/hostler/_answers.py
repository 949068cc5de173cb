"""What the methods of the RPC interface answer: types of the values of ``Client.call``. The package re-exports them."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .core.cluster_status import MemberLine, SnapshotList
    from .core.errors import ErrorValue
    from .core.machine.catalog_queries import FlavorLine, ImageLine
    from .core.machine.group_queries import ServerGroupLine
    from .core.machine.host_detail import CellDetail, PagesDetail, PciPoolDetail
    from .core.machine.instance_queries import InstanceLine
    from .core.machine.lifecycle_queries import BackendLine, VolumeLifeLine
    from .core.machine.provider_queries import AggregateLine, ConsumerLine, ProviderDetail, ProviderLine
    from .core.machine.queries import DriftLine, HostDetail, HostLine, InstanceDetail, PolicyInForce, Stock
    from .core.machine.ranking import RankedHostLine, Ranking
    from .core.machine.region_queries import RegionGuestLine, RegionLine
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
    from .core.region_commands import AcrossGuest, PlacedAcross
    from .core.rpc.methods import StatusOf, Welcome
    from .core.shadow.status import ShadowCounts, ShadowDifference, ShadowStatus
    from .core.storage_commands import BackupPlaced, GroupPlaced, SnapshotPlaced, VolumeMoved
    from .core.tenancy.new_token import NewToken

__all__ = [
    "AcrossGuest",
    "AggregateLine",
    "BackendLine",
    "BackupLine",
    "BackupPlaced",
    "BackupServiceLine",
    "CellDetail",
    "ConsumerLine",
    "DriftLine",
    "ErrorValue",
    "FlavorLine",
    "GroupPlaced",
    "HostDetail",
    "HostLine",
    "ImageLine",
    "InstanceDetail",
    "InstanceLine",
    "MemberLine",
    "NewToken",
    "PagesDetail",
    "PciPoolDetail",
    "PlacedAcross",
    "PolicyInForce",
    "PoolLine",
    "ProjectLine",
    "ProviderDetail",
    "ProviderLine",
    "RankedHostLine",
    "Ranking",
    "RegionGuestLine",
    "RegionLine",
    "ServerGroupLine",
    "ShadowCounts",
    "ShadowDifference",
    "ShadowStatus",
    "SnapshotLine",
    "SnapshotList",
    "SnapshotPlaced",
    "StatusOf",
    "Stock",
    "TokenLine",
    "Tried",
    "UsageAndLimits",
    "UserLine",
    "VolumeBackendLine",
    "VolumeDetail",
    "VolumeGroupLine",
    "VolumeLifeLine",
    "VolumeLine",
    "VolumeMoved",
    "VolumePoolLine",
    "VolumeRanking",
    "VolumeTypeLine",
    "WeighedPool",
    "Welcome",
]

MODULES: Final = {
    "core.cluster_status": "MemberLine SnapshotList",
    "core.errors": "ErrorValue",
    "core.machine.catalog_queries": "FlavorLine ImageLine",
    "core.machine.group_queries": "ServerGroupLine",
    "core.machine.host_detail": "CellDetail PagesDetail PciPoolDetail",
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
"""Where the names are."""
