"""What hooks ask of the service, and have it carry out, as the user who called. Every right is checked where RPC's
calls are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from ....placement.types.decision import Decision
from ....placement.types.errors import HostlerError, InvalidValue
from ....placement.types.uuids import plain_uuid
from ...engine_commands import Asked, ConfirmHold, Hold, Release
from ...machine.call_uuids import with_canonical_uuids
from ...machine.orders import AnyCommand
from ...machine.question import Query
from ...machine.ranking import Rank, Ranking
from ...machine.replicated import unpacked
from ...machine.volume_ranking import RankVolume, VolumeRanking
from ...machine.what_if import WhatIf
from ...service import Identity, Service
from ...storage_commands import AskedVolume
from ...tenancy.errors import NotAllowed
from ...tenancy.rights import no_instance, project_scope
from ...tenancy.tenants import RANK

Spec = dict[str, Any]
"""A RequestSpec, or a VolumeSpec, as RPC has it."""


class Asking:
    """The service, as one caller sees it. ``may_change``: False for a caller who may only ask."""

    def __init__(self, service: Service, caller: Identity, *, may_change: bool = True) -> None:
        self._service, self._caller, self._may_change = service, caller, may_change

    async def rank(self, spec: Spec, hosts: Iterable[str] | None, project: str = "") -> Ranking:
        """Those of ``hosts`` (None: of all) that pass for a spec, best first. HostlerError if it is malformed."""
        asked = Asked(spec=_packed(spec), project_id=project)
        ranking: Ranking = await self._ask(Rank(request=asked, hosts=_names(hosts), limit=0), Ranking)
        return ranking

    async def rank_volume(self, spec: Spec, pools: Iterable[str], project: str = "") -> VolumeRanking:
        """Those of ``pools`` that pass for a volume, best first. HostlerError if it is malformed."""
        asked = AskedVolume(spec=_packed(spec), project_id=project)
        question = RankVolume(request=asked, pools=_names(pools), limit=0)
        ranking: VolumeRanking = await self._ask(question, VolumeRanking)
        return ranking

    async def place_after_release(self, spec: Spec, victims: Mapping[str, Sequence[str]]) -> dict[str, bool]:
        """Of each node whether the spec could be placed there if its victims, guests by their uuids, were gone. Guests
        that are not known take nothing. Changes nothing."""
        commands: list[Any] = []
        placing: dict[int, str] = {}
        for node, uuids in victims.items():
            commands += [Release(uuids=(uuid,)) for uuid in uuids]
            placing[len(commands)] = node
            there = {**spec, "requested_destination": {"node": node}}
            commands.append(Hold(request=Asked(spec=_packed(there)), expires_in=1.0))
        tried = await self._ask(WhatIf(commands=commands), list[dict[str, Any]])
        return {node: _is_placed(tried[position]["result"]) for position, node in placing.items()}

    def holds_at_most(self, node: str, resource: str) -> int:
        """What a guest may take of a resource class on a node on which nothing else runs; 0 of one that it does not
        have. UnknownName for a node that is not known. O(classes)."""
        found = self._service.state.fleet.inventory(node).get(resource)
        if found is None:
            return 0
        inventory, _ = found
        return min(inventory.max_unit, int((inventory.total - inventory.reserved) * inventory.allocation_ratio))

    # Of guests that the caller may not read, these know as little as of those that are not there.

    def is_held(self, uuid: str) -> bool:
        """True for a guest that is held. O(1)."""
        return plain_uuid(uuid) in self._service.state.holds and self._may_read(uuid)

    def node_of(self, uuid: str) -> str | None:
        """The node of a guest; None if there is no such guest. O(1)."""
        return self._service.state.fleet.consumer(uuid).provider if self._may_read(uuid) else None

    def spec_of(self, uuid: str) -> Spec:
        """What a guest was asked with. NotAllowed if there is no such guest, InvalidValue if it is not known."""
        if not self._may_read(uuid):
            raise no_instance(uuid, "uuid")
        found: Spec = msgspec.msgpack.decode(self._service.state.asked_of(plain_uuid(uuid)).spec)
        return found

    def check_may_change(self, uuid: str) -> None:
        """NotAllowed for a guest that the caller may not release, or that is not there. O(1)."""
        if not self._may_read(uuid):
            raise no_instance(uuid, "uuid")
        self._check_token()
        state = self._service.state
        state.tenants.require(self._service.user(self._caller), "member", project_scope(state.project_of(uuid)))

    def _check_token(self) -> None:
        if not self._may_change:
            raise NotAllowed("the token may only ask", field="token", hint="give it the role admin or service")

    def _may_read(self, uuid: str) -> bool:
        """True for guests of projects that the caller is a reader of. O(1)."""
        state = self._service.state
        user = self._service.user(self._caller)
        try:
            project = state.project_of(uuid)
        except HostlerError:
            return False
        return state.tenants.role(user, project_scope(project)) >= RANK["reader"]

    async def hold(self, uuid: str, spec: Spec, seconds: float, project: str = "") -> Decision:
        """Place a guest for a time. HostlerError as of RPC's ``hold``."""
        asked = Asked(spec=_packed(spec), instance_uuids=(uuid,), project_id=project)
        decision: Decision = await self._order(Hold(request=asked, expires_in=seconds))
        return decision

    async def confirm(self, uuids: Sequence[str]) -> int:
        """Have held guests stay. HostlerError as of RPC's ``confirm_hold``."""
        confirmed: int = await self._order(ConfirmHold(uuids=tuple(uuids)))
        return confirmed

    async def release(self, uuid: str) -> None:
        """Release a guest. HostlerError as of RPC's ``release``."""
        await self._order(Release(uuids=(uuid,)))

    async def aside(self, work: Callable[[], bytes]) -> bytes:
        """The result of work that takes long and changes nothing, made by a child process."""
        lane = self._service.user(self._caller)
        return await self._service.children.ask(work, lane=lane)

    async def _ask(self, question: Query, kind: Any) -> Any:
        """The answer, converted to ``kind``."""
        service, question = self._service, with_canonical_uuids(question)
        if service.takes_long(question):
            raw = await service.ask_aside(self._caller, question)
            return msgspec.msgpack.decode(raw, type=kind)
        answer = service.ask(self._caller, question)
        return answer if isinstance(kind, type) else msgspec.convert(msgspec.to_builtins(answer), kind)

    async def _order(self, command: AnyCommand) -> Any:
        self._check_token()
        done = trio.Event()
        pending = self._service.order(self._caller, with_canonical_uuids(command), partial(_told, done))
        try:
            await done.wait()
        except trio.Cancelled:
            self._service.writer.cancel(pending)
            raise
        if pending.error is not None:
            raise pending.error
        return unpacked(pending.result)


def _told(done: trio.Event, pending: object) -> None:
    done.set()


def _packed(spec: Spec) -> msgspec.Raw:
    """A spec as commands carry it. InvalidValue for a number that none of its fields may be."""
    try:
        return msgspec.Raw(msgspec.msgpack.encode(spec))
    except OverflowError as error:
        raise InvalidValue(f"the spec has a number that is too large: {error}", field="spec") from None


def _names(names: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(dict.fromkeys(names))


def _is_placed(result: Any) -> bool:
    return isinstance(result, dict) and result.get("refusal") is None
