"""The hook for allocations of bare metal, in the form of Ironic's API: a resource class, traits and candidate nodes in,
one node out, which is held until the caller shows that it took it.

An allocation is active, or in error, when it is answered; nodes are Hostler's hosts whose inventory has the resource
class as CUSTOM_NAME.
"""

from __future__ import annotations

import re
import uuid as uuids
from typing import Annotated, Any, Final, Literal

import msgspec

from ....placement.types.errors import DuplicateName
from ..errors import HttpError
from .calling import Answer, Call

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
MOST_NODES: Final = 10_000


class Wanted(msgspec.Struct, frozen=True):
    """The request of ``POST /v1/allocations`` of Ironic's API; keys that are not named here are not needed."""

    resource_class: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    traits: Annotated[list[Name], msgspec.Meta(max_length=50)] | None = None
    candidate_nodes: Annotated[list[Name], msgspec.Meta(max_length=MOST_NODES)] | None = None
    uuid: str | None = None
    name: str | None = None
    owner: str | None = None


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """An allocation. ``node_uuid`` is the name of the node as Hostler has it; None in the state ``error``, for which
    ``last_error`` has the reason."""

    uuid: str
    name: str | None = None
    node_uuid: str | None
    state: Literal["active", "error"]
    last_error: str | None = None
    resource_class: str
    traits: list[str] = []
    candidate_nodes: list[str] = []
    owner: str | None = None
    held: bool = False
    """True until the caller confirms, or the node reports the allocation."""


async def allocate(call: Call) -> Answer:
    """Hold the best of the candidate nodes (of all, where none are named). 201 with the allocation. HttpError 400, and
    409 for a uuid that is in use."""
    wanted: Wanted = call.read(Wanted)
    uuid = _uuid(wanted.uuid) if wanted.uuid else str(uuids.uuid4())
    spec, project = spec_of(wanted), wanted.owner or ""
    ranking = await call.asking.rank(spec, wanted.candidate_nodes, project)
    reason = "no candidate node has the resource class and traits, and is free"
    for best in ranking.hosts:
        there = {**spec, "requested_destination": {"node": best.node}}
        try:
            decision = await call.asking.hold(uuid, there, call.config.hold_seconds, project)
        except DuplicateName as error:
            raise HttpError(409, str(error)) from None
        if decision.placed:
            return Answer(_shown(uuid, wanted, node=best.node, held=True), 201)
        if decision.refusal is not None:
            reason = decision.refusal.sentence  # another took it meanwhile
    return Answer(_shown(uuid, wanted, error=reason), 201)


async def show(call: Call) -> Allocation:
    """The allocation of a uuid. HttpError 404."""
    uuid = _uuid(call.item)
    node = call.asking.node_of(uuid)
    if node is None:
        raise HttpError(404, f"there is no allocation {uuid}")
    wanted = _wanted(call.asking.spec_of(uuid))
    return _shown(uuid, wanted, node=node, held=call.asking.is_held(uuid))


async def delete(call: Call) -> Answer:
    """Give an allocation back. 204; HttpError 404."""
    uuid = _uuid(call.item)
    if call.asking.node_of(uuid) is None:
        raise HttpError(404, f"there is no allocation {uuid}")
    await call.asking.release(uuid)
    return Answer(b"", 204)


def spec_of(wanted: Wanted) -> dict[str, Any]:
    """The spec as RPC has it: one of the resource class, and nothing of CPUs, memory and disk."""
    name = re.sub(r"[^A-Z0-9_]", "_", wanted.resource_class.upper())
    extra = {f"resources:CUSTOM_{name}": "1", "resources:VCPU": "0", "resources:MEMORY_MB": "0"}
    extra["resources:DISK_GB"] = "0"
    extra |= {f"trait:{trait}": "required" for trait in wanted.traits or ()}
    flavor = {"name": wanted.resource_class, "vcpus": 1, "memory_mb": 1, "extra_specs": extra}
    return {"flavor": flavor, "prepare": False}


def _wanted(spec: dict[str, Any]) -> Wanted:
    """What an allocation asked for, of its spec."""
    flavor = spec.get("flavor") or {}
    traits = [key.removeprefix("trait:") for key in flavor.get("extra_specs") or {} if key.startswith("trait:")]
    return Wanted(resource_class=flavor.get("name") or "unknown", traits=traits)


def _shown(
    uuid: str, wanted: Wanted, *, node: str | None = None, error: str | None = None, held: bool = False
) -> Allocation:
    return Allocation(
        uuid=uuid,
        name=wanted.name,
        node_uuid=node,
        state="error" if node is None else "active",
        last_error=error,
        resource_class=wanted.resource_class,
        traits=wanted.traits or [],
        candidate_nodes=wanted.candidate_nodes or [],
        owner=wanted.owner,
        held=held,
    )


def _uuid(text: str) -> str:
    try:
        return str(uuids.UUID(text))
    except ValueError:
        raise HttpError(400, f"{text[:64]!r} is not a uuid") from None
