"""InstanceLocalityFilter: on the host of a guest, by the hint ``local_to_instance``. Source: Cinder 29.

Nova is not queried: the engine knows the hosts of its guests, or uses ``instance_host``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..backend_names import host_part
from ..filter_properties import FilterProperties
from ..request import is_uuid
from .base import REQUEST, PoolFilter

if TYPE_CHECKING:
    from ..pools import Pools


class InstanceLocalityFilter(PoolFilter):
    """Passes a pool whose host part is the guest's service host. A hint that is not a uuid refuses every pool."""

    name: ClassVar[str] = "InstanceLocalityFilter"
    reads: ClassVar[str] = REQUEST

    def applies(self, filter_properties: FilterProperties) -> bool:
        return bool(filter_properties.spec.scheduler_hints.get("local_to_instance"))

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        uuid = filter_properties.spec.scheduler_hints["local_to_instance"]
        if not is_uuid(uuid):
            raise ValueError(f"the hint local_to_instance is not a uuid: {uuid!r:.60}")
        host = filter_properties.instance_host(uuid)
        if host is None:
            raise LookupError(f"no instance {uuid} is known")
        return host_part(pools.fact(row).backend_id) == host

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        uuid = filter_properties.spec.scheduler_hints["local_to_instance"]
        return f"on {host_part(pools.fact(row).backend_id)}, the instance is on {filter_properties.instance_host(uuid)}"
