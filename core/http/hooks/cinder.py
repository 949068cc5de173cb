"""The hooks by which Cinder and Manila with an external scheduler (SAP's forks) have the pools sorted that passed their
own filters: ``POST /scheduler/cinder/external`` and ``POST /scheduler/manila/external``.

Pools are those that Hostler keeps for volumes; pools of shares are reported in the same way.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import HttpError
from .calling import Call
from .ordering import Body, Sorted, merged, names_of

CINDER: Final = ("volume_properties", "volume_type")
MANILA: Final = ("share_properties", "share_type")
"""Keys of a request's properties and type."""


async def sort_volume_pools(call: Call) -> Sorted:
    """Cinder's pools, best first (``ordering.merged``). HttpError 400."""
    return await _sorted(call, *CINDER)


async def sort_share_pools(call: Call) -> Sorted:
    """Manila's pools, best first (``ordering.merged``). HttpError 400."""
    return await _sorted(call, *MANILA)


async def _sorted(call: Call, properties: str, kind: str) -> Sorted:
    body: Body = call.read(Body)
    names = names_of(body)
    if not names:
        return Sorted([])
    spec, project = spec_of(body.spec, properties, kind)
    ranking = await call.asking.rank_volume(spec, names, project)
    best = [each.backend_id for each in ranking.pools]
    return Sorted(merged(call, best, names, body.weights, set(ranking.unknown)))


def spec_of(given: dict[str, Any], properties: str, kind: str) -> tuple[dict[str, Any], str]:
    """The VolumeSpec as RPC has it, of a request spec, and its project. Hints that name volumes and the pool of a
    source are left out: the caller's filters have judged them. HttpError 400 without a size."""
    found = given.get(properties)
    values = found if isinstance(found, dict) else {}
    size = values.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise HttpError(400, f"the spec has no size in {properties}")
    spec: dict[str, Any] = {"size_gb": size}
    zone = values.get("availability_zone")
    if isinstance(zone, str) and zone:
        spec["availability_zone"] = zone
    wanted = given.get(kind)
    if isinstance(wanted, dict):
        extra = wanted.get("extra_specs")
        specs = extra if isinstance(extra, dict) else {}
        spec["volume_type"] = {
            "name": str(wanted.get("name") or ""),
            "extra_specs": {str(key): None if value is None else str(value) for key, value in specs.items()},
        }
    return spec, str(values.get("project_id") or "")
