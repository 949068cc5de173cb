"""What Nova's conductor sends and is answered, as plain dictionaries: RequestSpec 1.x, Selection 1.1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ....core.engine_commands import asked
from ....core.machine.orders import SelectDestinations
from ....placement.types.decision import ALLOCATION_REQUEST_VERSION, Alternate, Decision, NumaLimits, Selection
from ....placement.types.errors import HostlerError, InvalidValue
from ....placement.types.request import Request
from ..nova.requests import NotModelled, request_of
from ..primitives import DATA, NAME, VERSION, Primitive, is_primitive

_GROUP: Final = "instance_group"


class NoValidHost(Exception):
    """Nova's exception of this name, as its clients know it on the wire: by module, name and ``kwargs``."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"No valid host was found. {reason}")
        self.kwargs = {"reason": reason, "code": 500}


NoValidHost.__module__ = "nova.exception"


def read_request(spec: object, instance_uuids: Sequence[str] | None, *, alternates: int, now: float) -> Request:
    """A RequestSpec as it was sent, for these instances. HostlerError for one that cannot be read, or names what
    Hostler does not decide by Nova's rules."""
    if not is_primitive(spec):
        raise NotModelled("the request is in the form from before Nova 13", field="old_conductor")
    assert isinstance(spec, Mapping)
    try:
        uuids = list(instance_uuids or ())
        found = Primitive(_with_policy(spec))
        if not uuids:
            if (
                "instance_uuid" not in found
                or not found.instance_uuid
                or ("num_instances" in found and found.num_instances > 1)
            ):
                raise NotModelled("the conductor names no instances", field="old_conductor")
            uuids = [found.instance_uuid]
        return request_of(found, uuids, alternates=alternates, now=now)
    except HostlerError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"the request cannot be read: {error}", field="spec_obj") from error


def command_of(request: Request) -> SelectDestinations:
    """The command that decides a request. InvalidValue if the journal could not have it, or be read again with it: a
    value of the request is of another kind than its field. O(request)."""
    try:
        command = SelectDestinations(request=asked(request), replaces=True)
        msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=SelectDestinations)
    except (TypeError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidValue(f"the request cannot be read: {error}", field="spec_obj") from error
    return command


def _with_policy(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A spec whose server group has ``policy``: before InstanceGroup 1.11 it was the first of ``policies``."""
    data = spec.get(DATA)
    group = data.get(_GROUP) if isinstance(data, Mapping) else None
    inner = group.get(DATA) if isinstance(group, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(group, Mapping) or not isinstance(inner, Mapping):
        return spec
    if inner.get("policy") is None and inner.get("policies"):
        policy = inner["policies"][0]
        return {**spec, DATA: {**data, _GROUP: {**group, DATA: {**inner, "policy": policy}}}}
    return spec


def selections(decision: Decision, *, claimed: bool) -> list[list[dict[str, Any]]]:
    """A decision as lists of Selection objects, one for each instance with its alternates. ``claimed``: whether there
    are allocations at all (there are none for the check of a rebuild)."""
    return [
        [_selection(chosen, claimed=claimed), *(_selection(each, claimed=claimed) for each in chosen.alternates)]
        for chosen in decision.selections
    ]


def old_selections(decision: Decision) -> list[dict[str, Any]]:
    """A decision for callers that do not know Selection objects (before Nova 17)."""
    return [
        {"host": each.host, "nodename": each.node, "limits": _limit_values(each.limits)} for each in decision.selections
    ]


def _selection(chosen: Selection | Alternate, *, claimed: bool) -> dict[str, Any]:
    request = json.dumps(chosen.allocation_request) if claimed else json.dumps(None)
    return _object(
        "Selection",
        "1.1",
        compute_node_uuid=chosen.provider_uuid,
        service_host=chosen.host,
        nodename=chosen.node,
        cell_uuid=chosen.cell_uuid,
        limits=_limits(chosen.limits),
        allocation_request=request,
        allocation_request_version=ALLOCATION_REQUEST_VERSION if claimed else None,
        availability_zone=chosen.availability_zone,
    )


def _limits(limits: NumaLimits | None) -> dict[str, Any]:
    return _object(
        "SchedulerLimits", "1.0", numa_topology=_numa_limits(limits), vcpu=None, disk_gb=None, memory_mb=None
    )


def _limit_values(limits: NumaLimits | None) -> dict[str, Any]:
    return {} if limits is None else {"numa_topology": _numa_limits(limits)}


def _numa_limits(limits: NumaLimits | None) -> dict[str, Any] | None:
    if limits is None:
        return None
    values: dict[str, Any] = {
        "cpu_allocation_ratio": limits.cpu_allocation_ratio,
        "ram_allocation_ratio": limits.ram_allocation_ratio,
    }
    networks = limits.network_metadata
    if networks is not None:
        values["network_metadata"] = _object(
            "NetworkMetadata", "1.0", physnets=sorted(networks.physnets), tunneled=networks.tunneled
        )
    return _object("NUMATopologyLimits", "1.1", **values)


def _object(kind: str, version: str, **data: Any) -> dict[str, Any]:
    return {
        NAME: kind,
        "nova_object.namespace": "nova",
        VERSION: version,
        DATA: data,
        "nova_object.changes": sorted(data),
    }


__all__ = ["NoValidHost", "command_of", "old_selections", "read_request", "selections"]
