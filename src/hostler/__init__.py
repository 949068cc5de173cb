"""Hostler: a deterministic scheduler core over a columnar fleet, for compute hosts, storage pools and whatever else
holds capacity. A name is imported when it is first used, so that a command loads what it needs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .placement.decision import Alternate, Decision, ScorePart, Selection
    from .placement.engine import Engine
    from .placement.errors import (
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
    from .placement.filters.base import Bound, Filter
    from .placement.filters.base import Selection as FilterSelection
    from .placement.fleet import Fleet, Inventory
    from .placement.fleet_file import load as load_fleet
    from .placement.fleet_file import save as save_fleet
    from .placement.host import Aggregate, Host, MemoryPages, NumaCell, NumaTopology, PciPool, Service
    from .placement.load import add_hosts, load_hosts
    from .placement.policy import Policy
    from .placement.request import (
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
    from .placement.storage.joint import JointRequest, Locality, place_together
    from .placement.storage.reports import BackendReport, VolumeService
    from .placement.storage.volume_engine import VolumeEngine
    from .placement.storage.volume_policy import VolumePolicy
    from .placement.storage.volume_request import Retry, VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType
    from .placement.storage.volumes import Volume
    from .placement.weighers.base import Weigher

__version__ = "0.1.0"

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
    "Request",
    "RequestSpec",
    "Retry",
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
    "save_fleet",
]

_MODULES: Final = {
    "placement.decision": "Alternate Decision ScorePart Selection",
    "placement.engine": "Engine",
    "placement.errors": "CapacityExceeded DuplicateName HostlerError InUse InvalidValue MetricNotFound NoValidHost "
    "SnapshotError UnknownName",
    "placement.filters.base": "Bound Filter FilterSelection=Selection",
    "placement.fleet": "Fleet Inventory",
    "placement.fleet_file": "load_fleet=load save_fleet=save",
    "placement.host": "Aggregate Host MemoryPages NumaCell NumaTopology PciPool Service",
    "placement.load": "add_hosts load_hosts",
    "placement.policy": "Policy",
    "placement.request": "Destination Flavor Image InstanceNumaCell InstanceNumaTopology PciRequest Request "
    "RequestSpec ServerGroup",
    "placement.storage.joint": "JointRequest Locality place_together",
    "placement.storage.reports": "BackendReport VolumeService",
    "placement.storage.volume_engine": "VolumeEngine",
    "placement.storage.volume_policy": "VolumePolicy",
    "placement.storage.volume_request": "Retry VolumeGroupRequest VolumeRequest VolumeSpec VolumeType",
    "placement.storage.volumes": "Volume",
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
