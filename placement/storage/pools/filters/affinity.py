"""SameBackendFilter and DifferentBackendFilter: beside, or away from, volumes that exist. Source: Cinder 29.

The hints ``same_host`` and ``different_host`` are a volume's uuid or a list; only volumes of the request's project
count, and "on the same backend" means in the same pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..filter_properties import FilterProperties
from ..request import is_uuid
from .base import REQUEST, PoolFilter

if TYPE_CHECKING:
    from ..pools import Pools


class _AffinityFilter(PoolFilter):
    """Base of both filters; ``wants`` is the result for a pool that holds one of the volumes."""

    reads: ClassVar[str] = REQUEST
    hint: ClassVar[str]
    wants: ClassVar[bool]

    def applies(self, filter_properties: FilterProperties) -> bool:
        hint: object = filter_properties.spec.scheduler_hints.get(self.hint, [])
        return hint != []

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        ids = self._ids(filter_properties)
        if not ids:
            return False
        facts = pools.fact(row)
        held = pools.volumes.any_on(frozenset(ids), filter_properties.project_id, facts.host, facts.cluster_name)
        return held is self.wants

    def _ids(self, filter_properties: FilterProperties) -> list[str]:
        """The uuids of the hint; empty if something in it is none."""
        given = filter_properties.spec.scheduler_hints[self.hint]
        ids = list(given) if isinstance(given, list | tuple) else [given]
        return ids if all(map(is_uuid, ids)) else []

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        if not self._ids(filter_properties):
            hint = filter_properties.spec.scheduler_hints[self.hint]
            return f"the hint {self.hint} is not a list of uuids: {hint!r:.80}"
        return f"holds {'none' if self.wants else 'one'} of the volumes of the hint {self.hint}"


class SameBackendFilter(_AffinityFilter):
    """Passes a pool that holds one of the volumes of ``same_host``."""

    name: ClassVar[str] = "SameBackendFilter"
    hint: ClassVar[str] = "same_host"
    wants: ClassVar[bool] = True


class DifferentBackendFilter(_AffinityFilter):
    """Passes a pool that holds none of the volumes of ``different_host``."""

    name: ClassVar[str] = "DifferentBackendFilter"
    hint: ClassVar[str] = "different_host"
    wants: ClassVar[bool] = False
