"""Adoption of guests that others made on a back end, on the service's state: what counted as use by others is charged
to a project. The reconciler marks the guest, and tells whether it could."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, InvalidValue, UnknownName
from ...placement.types.request import RequestSpec
from ..engine_commands import Asked
from ..lifecycle_commands import AdoptGuest
from . import backend_changes
from .lives import GuestLife
from .state import ServiceState

UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Place = Callable[[ServiceState, Asked, float], Decision]


def begin(state: ServiceState, command: AdoptGuest, now: float, place: Place) -> tuple[Decision, GuestLife | None]:
    """Charge a stranger on its node, and begin its life unless that is refused. HostlerError, with nothing charged."""
    _check(state, command)
    asked = command.request
    if not asked.instance_uuids and UUID.fullmatch(command.key):
        asked = msgspec.structs.replace(asked, instance_uuids=(command.key,))
    for uuid in asked.instance_uuids:
        if uuid in state.lives.guests:
            raise DuplicateName(f"there is a guest {uuid}", field="request.instance_uuids", hint="delete it first")
    spec = state.spec_of(asked)
    flavor, kept = spec.flavor, bytes(state.kept_spec(asked))
    disk_gb = flavor.root_gb + flavor.ephemeral_gb
    there = msgspec.structs.replace(asked, spec=_on(kept, command.node))
    backend_changes.report_again(state, command.backend, command.node, (flavor.vcpus, flavor.memory_mb, disk_gb))
    placed = False
    try:
        decision = place(state, there, now)
        placed = decision.placed
    finally:
        if not placed:
            backend_changes.report_again(state, command.backend, command.node)
    if not placed:
        return decision, None
    uuid = decision.selections[0].instance_uuid
    state.requests.keep((uuid,), kept)
    return decision, _life_of(command, asked, spec, kept, uuid)


def _check(state: ServiceState, command: AdoptGuest) -> None:
    asked, lives = command.request, state.lives
    if len(asked.instance_uuids) > 1:
        raise InvalidValue("one guest is adopted at a time", field="request.instance_uuids")
    if asked.server_group is not None and not isinstance(asked.server_group, str):
        raise InvalidValue("the server group is one that the service keeps", field="request.server_group")
    if command.backend not in lives.backends:
        raise UnknownName.among("back end", command.backend, lives.backends, field="backend")
    if lives.backend_of(command.node) != command.backend:
        problem = f"node {command.node[:100]} is not one of back end {command.backend}"
        raise InvalidValue(problem, field="node")
    for life in lives.guests.values():
        if life.backend == command.backend and life.key == command.key:
            problem = f"back end {command.backend} has {command.key[:100]} as guest {life.uuid} already"
            raise DuplicateName(problem, field="key")


def _on(kept: bytes, node: str) -> msgspec.Raw:
    """A spec for one node only."""
    spec: dict[str, Any] = msgspec.msgpack.decode(kept)
    return msgspec.Raw(msgspec.msgpack.encode({**spec, "requested_destination": {"node": node}}))


def _life_of(command: AdoptGuest, asked: Asked, spec: RequestSpec, kept: bytes, uuid: str) -> GuestLife:
    flavor = spec.flavor
    return GuestLife(
        uuid=uuid,
        project_id=asked.project_id,
        user_id=asked.user_id,
        name=command.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        disk_gb=flavor.root_gb + flavor.ephemeral_gb,
        image="",
        networks=(),
        user_data=None,
        spec=kept,
        server_group=asked.server_group if isinstance(asked.server_group, str) else None,
        attempts=1,
        build_seconds=command.seconds,
        adopting=True,
    )
