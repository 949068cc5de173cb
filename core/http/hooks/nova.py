"""The hook by which Nova with an external scheduler (SAP's fork) has the hosts sorted that passed its own filters.

``POST /scheduler/nova/external`` with spec, hosts and weights; the answer names hosts, best first. Every name in it was
in the request, as the client fails the whole request otherwise. 400 has Nova go on with its own order.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..errors import HttpError
from .asking import Asking
from .config import HooksConfig

_WRAPPED: Final = "nova_object.data"
_FLAVOR: Final = ("vcpus", "memory_mb", "root_gb", "ephemeral_gb", "swap")


class Candidate(msgspec.Struct, frozen=True):
    """A host that passed Nova's filters."""

    host: str
    hypervisor_hostname: str = ""


class Body(msgspec.Struct, frozen=True):
    """What Nova sends; keys that are not named here are not needed."""

    spec: dict[str, Any]
    hosts: list[Candidate]
    weights: dict[str, float]


class Sorted(msgspec.Struct, frozen=True):
    """The answer."""

    hosts: list[str]


async def sort_hosts(asking: Asking, config: HooksConfig, raw: bytes) -> Sorted:
    """The hosts of a request, best first: by Hostler's weighers, then those that its filters refuse (unless they are
    to be left out) and those that it does not know, by the weights that Nova gave. HttpError 400 for a malformed
    request, and where Hostler knows none of the hosts or refuses all."""
    try:
        body = msgspec.json.decode(raw, type=Body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HttpError(400, f"the request is malformed: {error}") from None
    names = [each.host for each in body.hosts]
    if len(set(names)) != len(names):
        raise HttpError(400, "a host is named twice")
    if set(names) != set(body.weights):
        raise HttpError(400, "each host needs a weight, and each weight a host")
    if not names:
        return Sorted([])
    data = unwrapped(body.spec)
    ranking = await asking.rank(spec_of(data), names, str(data.get("project_id") or ""))
    known = list(dict.fromkeys(each.host for each in ranking.hosts if each.host in body.weights))
    if not known:
        raise HttpError(400, "no host of the request is known and passes here: keep your own order")
    rest = [name for name in names if name not in set(known)]
    if config.refuse:
        unknown = set(ranking.unknown)
        rest = [name for name in rest if name in unknown]
    rest.sort(key=lambda name: -body.weights[name])  # stable: equal weights keep Nova's order
    return Sorted(known + rest)


def unwrapped(value: Any) -> Any:
    """A versioned object's fields as plain values, at any depth."""
    if isinstance(value, dict):
        if _WRAPPED in value:
            return unwrapped(value[_WRAPPED])
        return {key: unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return value


def spec_of(data: dict[str, Any]) -> dict[str, Any]:
    """The spec as RPC has it, of a RequestSpec's fields. Named hosts, destinations and networks are left out: Nova's
    filters have judged them. HttpError 400 without a flavor."""
    flavor = data.get("flavor")
    if not isinstance(flavor, dict):
        raise HttpError(400, "the spec has no flavor")
    image = data.get("image") if isinstance(data.get("image"), dict) else None
    spec: dict[str, Any] = {
        "flavor": {
            "name": str(flavor.get("name") or "unnamed"),
            **{key: flavor[key] for key in _FLAVOR if flavor.get(key) is not None},
            "extra_specs": {str(key): str(value) for key, value in (flavor.get("extra_specs") or {}).items()},
        },
        "is_bfv": bool(data.get("is_bfv")),
        "prepare": False,
    }
    if data.get("availability_zone"):
        spec["availability_zone"] = data["availability_zone"]
    hints = data.get("scheduler_hints") or {}
    spec["scheduler_hints"] = {
        key: value if isinstance(value, list) else [value] for key, value in hints.items() if not key.startswith("_")
    }
    if image is not None:
        properties = image.get("properties") if isinstance(image.get("properties"), dict) else {}
        spec["image"] = {"properties": {key: value for key, value in properties.items() if value is not None}}
    return spec
