"""Hostler: a deterministic scheduler core over a columnar fleet, for compute hosts, storage pools and whatever else
holds capacity. A name is imported when it is first used, so that a command loads what it needs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .placement.decide.engine import Engine
    from .placement.filters.base import Bound, Filter
    from .placement.filters.base import Selection as FilterSelection
    from .placement.fleet.fleet import Fleet, Inventory
    from .placement.load.bulk import add_hosts, load_hosts
    from .placement.load.reports import report_hosts
    from .placement.persist.file import load as load_fleet
    from .placement.persist.file import save as save_fleet
    from .placement.policy.policy import Policy
    from .placement.storage.engine import VolumeEngine
    from .placement.storage.pools.policy import VolumePolicy
    from .placement.storage.pools.reports import BackendReport, VolumeService
    from .placement.storage.pools.request import Retry, VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType
    from .placement.storage.pools.volumes import Volume
    from .placement.storage.with_guests import JointRequest, Locality, place_together
    from .placement.types.decision import Alternate, Decision, ScorePart, Selection
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
        MemoryPages,
        NumaCell,
        NumaTopology,
        PciPool,
        RunningInstance,
        Service,
    )
    from .placement.types.host_report import HostReport, Reported
    from .placement.types.request import (
        Destination,
        Flavor,
        Image,
        InstanceNumaCell,
        InstanceNumaTopology,
        PciRequest,
        Request,
        RequestSpec,
        ServerGroup,
    )
    from .placement.weighers.base import Weigher

__version__ = "0.2.0"

__all__ = [
    "Aggregate",
    "Alternate",
    "BackendReport",
    "Bound",
    "CapacityExceeded",
    "Decision",
    "Destination",
    "DuplicateName",
    "Engine",
    "Filter",
    "FilterSelection",
    "Flavor",
    "Fleet",
    "Host",
    "HostReport",
    "HostlerError",
    "Image",
    "InUse",
    "InstanceNumaCell",
    "InstanceNumaTopology",
    "InvalidValue",
    "Inventory",
    "JointRequest",
    "Locality",
    "MemoryPages",
    "MetricNotFound",
    "NoValidHost",
    "NumaCell",
    "NumaTopology",
    "PciPool",
    "PciRequest",
    "Policy",
    "Reported",
    "Request",
    "RequestSpec",
    "Retry",
    "RunningInstance",
    "ScorePart",
    "Selection",
    "ServerGroup",
    "Service",
    "SnapshotError",
    "UnknownName",
    "Volume",
    "VolumeEngine",
    "VolumeGroupRequest",
    "VolumePolicy",
    "VolumeRequest",
    "VolumeService",
    "VolumeSpec",
    "VolumeType",
    "Weigher",
    "add_hosts",
    "load_fleet",
    "load_hosts",
    "place_together",
    "report_hosts",
    "save_fleet",
]

_MODULES: Final = {
    "placement.types.decision": "Alternate Decision ScorePart Selection",
    "placement.decide.engine": "Engine",
    "placement.types.errors": "CapacityExceeded DuplicateName HostlerError InUse InvalidValue MetricNotFound "
    "NoValidHost SnapshotError UnknownName",
    "placement.filters.base": "Bound Filter FilterSelection=Selection",
    "placement.fleet.fleet": "Fleet Inventory",
    "placement.persist.file": "load_fleet=load save_fleet=save",
    "placement.types.host": "Aggregate Host MemoryPages NumaCell NumaTopology PciPool RunningInstance Service",
    "placement.types.host_report": "HostReport Reported",
    "placement.load.reports": "report_hosts",
    "placement.load.bulk": "add_hosts load_hosts",
    "placement.policy.policy": "Policy",
    "placement.types.request": "Destination Flavor Image InstanceNumaCell InstanceNumaTopology PciRequest Request "
    "RequestSpec ServerGroup",
    "placement.storage.with_guests": "JointRequest Locality place_together",
    "placement.storage.pools.reports": "BackendReport VolumeService",
    "placement.storage.engine": "VolumeEngine",
    "placement.storage.pools.policy": "VolumePolicy",
    "placement.storage.pools.request": "Retry VolumeGroupRequest VolumeRequest VolumeSpec VolumeType",
    "placement.storage.pools.volumes": "Volume",
    "placement.weighers.base": "Weigher",
}
"""Where the names are; ``new=old`` where one has another name there."""
_HOME: Final = {each.partition("=")[0]: (module, each) for module, names in _MODULES.items() for each in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, named = _HOME[name]
    value = getattr(import_module(f".{module}", __name__), named.rpartition("=")[2])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
