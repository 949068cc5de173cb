"""The hook by which Nova with an external scheduler (SAP's fork) has the hosts sorted that passed its own filters.

``POST /scheduler/nova/external`` with spec, hosts and weights; the answer names hosts, best first. Every name in it was
in the request, as the client fails the whole request otherwise. 400 has Nova go on with its own order.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from ....placement.types.errors import DuplicateName
from ...tenancy.errors import QuotaExceeded
from ..errors import HttpError
from .calling import Call
from .ordering import Body, Sorted, merged, names_of

_WRAPPED: Final = "nova_object.data"
CHECK_TYPE: Final = "_nova_check_type"
"""Hint that says what the hosts are for: rebuild, resize, live_migrate, evacuate; without it, for a create."""
_FLAVOR: Final = ("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap")


async def sort_hosts(call: Call) -> Sorted:
    """The hosts of a request, best first (``ordering.merged``). HttpError 400 for a malformed request, and where
    Hostler knows none of the hosts or refuses all. With ``hold_nova`` the guest of a create is held on the first."""
    body: Body = call.read(Body)
    names = names_of(body)
    if not names:
        return Sorted([])
    data = table_of(unwrapped(body.spec), "spec")
    spec, project = spec_of(data), str(data.get("project_id") or "")
    uuid = _held_guest(call, data)
    if uuid is not None and call.asking.is_held(uuid):
        await call.asking.release(uuid)  # asked again: what it holds is not to count against it
    ranking = await call.asking.rank(spec, names, project)
    best = [each.host for each in ranking.hosts]
    found = merged(call, best, names, body.weights, set(ranking.unknown))
    if uuid is not None and call.asking.node_of(uuid) is None:
        top = next(each for each in ranking.hosts if each.host == found[0])
        there = {**spec, "requested_destination": {"node": top.node}}
        with suppress(QuotaExceeded, DuplicateName):  # Nova decides: an answer without a hold is an answer
            await call.asking.hold(uuid, there, call.config.hold_seconds, project)
    return Sorted(found)


def _held_guest(call: Call, data: dict[str, Any]) -> str | None:
    """Uuid of the guest to hold: of one that is created, where guests are to be held; None for others."""
    uuid = data.get("instance_uuid")
    if not call.config.hold_nova or not isinstance(uuid, str) or (data.get("num_instances") or 1) != 1:
        return None
    return None if table_of(data.get("scheduler_hints"), "scheduler_hints").get(CHECK_TYPE) else uuid


def unwrapped(value: Any) -> Any:
    """A versioned object's fields as plain values, at any depth."""
    if isinstance(value, dict):
        if _WRAPPED in value:
            return unwrapped(value[_WRAPPED])
        return {key: unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return value


def table_of(value: Any, name: str) -> dict[str, Any]:
    """A value that is an object, or None for one without fields. HttpError 400 for others."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HttpError(400, f"{name} is no object")
    return value


def spec_of(data: dict[str, Any]) -> dict[str, Any]:
    """The spec as RPC has it, of a RequestSpec's fields. Named hosts, destinations and networks are left out: Nova's
    filters have judged them. HttpError 400 without a flavor, or where an object is something else."""
    flavor = table_of(data.get("flavor"), "flavor")
    if not flavor:
        raise HttpError(400, "the spec has no flavor")
    image = data.get("image")
    extra = table_of(flavor.get("extra_specs"), "extra_specs")
    spec: dict[str, Any] = {
        "flavor": {
            "name": str(flavor.get("name") or "unnamed"),
            **{key: flavor[key] for key in _FLAVOR if flavor.get(key) is not None},
            "extra_specs": {str(key): str(value) for key, value in extra.items()},
        },
        "is_bfv": bool(data.get("is_bfv")),
        "prepare": False,
    }
    if data.get("availability_zone"):
        spec["availability_zone"] = data["availability_zone"]
    hints = table_of(data.get("scheduler_hints"), "scheduler_hints")
    spec["scheduler_hints"] = {
        key: value if isinstance(value, list) else [value] for key, value in hints.items() if not key.startswith("_")
    }
    if image is not None:
        properties = table_of(table_of(image, "image").get("properties"), "properties")
        spec["image"] = {"properties": {key: value for key, value in properties.items() if value is not None}}
    return spec
