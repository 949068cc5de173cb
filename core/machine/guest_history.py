"""The guests in a data folder's journal: time and content of each request, and when the guest was released. Volumes
are counted only.

The journal contains commands, not answers. They are replayed, including quotas and access rights, to recover generated
uuids and refusals.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import trio

from ...ext.constants import NOT_INSTANCE
from ...ext.tables import format_uuid
from ...placement.api.commands import DeleteAllocations, Reshape, SetAllocations
from ...placement.fleet.fleet import GROUP_POLICIES
from ...placement.storage.with_guests import JointDecision
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, InvalidValue, NoValidHost
from ...placement.types.guest_history import GuestHistory, PastGuest
from ...placement.types.request import Flavor, RequestSpec
from ..engine_commands import (
    Asked,
    BeginMove,
    ConfirmHold,
    Hold,
    Move,
    Place,
    PlaceCandidates,
    PlaceMany,
    Release,
    Resize,
    SpecField,
)
from ..engine_commands import Placed as PlacedMany
from ..storage_commands import ManageVolume, PlaceTogether, PlaceVolume, PlaceVolumeGroup
from ..tenancy.commands import CatalogCommand
from .machine import ServiceMachine
from .orders import Order, PlacementWrite
from .replaying import begin, records


def read_guests(folder: str | os.PathLike[str]) -> GuestHistory:
    """The guests of a data folder, given itself or a journal file in it. InvalidValue if there is no journal,
    DataDamaged if it is corrupt. O(commands)."""
    path = Path(folder)
    path = path if path.is_dir() else path.parent
    if not any(path.glob("journal-*.sqlite")):
        raise InvalidValue(f"{folder}: no journal of Hostler", field="trace", hint="name the service's data folder")
    return trio.run(_read, path)


async def _read(folder: Path) -> GuestHistory:
    machine = ServiceMachine()
    last = begin(folder, machine)
    told = _Guests(machine)
    async with aclosing(records(folder, last)) as parts:
        async for read in parts:
            told.note([machine.decode(record.body) for record in read])
    return told.history()


def _with_same_flavors(orders: Sequence[Order]) -> Iterator[Sequence[Order]]:
    """Parts of orders in which no flavor or image changes, so that specs still mean the same after each."""
    start = 0
    for position, order in enumerate(orders):
        if isinstance(order.command, CatalogCommand):
            yield orders[start:position]
            start = position
    yield orders[start:]


class _Guests:
    """Guests so far, by position; ``here`` = uuid -> position of those that are placed, ``refused`` of those that may
    be asked for again."""

    def __init__(self, machine: ServiceMachine) -> None:
        self.machine = machine
        self.guests: list[PastGuest] = []
        self.here: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self._held: dict[str, float] = {}
        """Ends of holds by uuid."""
        self.not_admitted = self.batches = self.standing = self.volumes = 0
        self.began = self.ended = 0.0
        self._shapes: dict[tuple[tuple[str, int], ...], RequestSpec] = {}

    def note(self, orders: Sequence[Order]) -> None:
        """Apply orders and record the outcomes."""
        if not self.began:
            self.began = orders[0].now
            self._stand()
        for part in _with_same_flavors(orders):
            self._carry_out(part)

    def _carry_out(self, orders: Sequence[Order]) -> None:
        for order, outcome in zip(orders, self.machine.apply_batch(orders), strict=True):
            self.ended = max(self.ended, order.now)
            for uuid in [uuid for uuid, expires in self._held.items() if expires <= order.now]:
                self._left(self._held.pop(uuid), [uuid])
            match order.command:
                case Place(request=asked) | PlaceCandidates(request=asked):
                    self._asked(order.now, asked, outcome)
                case PlaceTogether(request=asked, volumes=volumes):
                    self._asked(order.now, asked, outcome.guest if isinstance(outcome, JointDecision) else outcome)
                    self.volumes += len(volumes)
                case PlaceVolume() | ManageVolume():
                    self.volumes += 1
                case PlaceVolumeGroup(volumes=volumes):
                    self.volumes += len(volumes)
                case Hold(request=asked, expires_in=seconds):
                    self._asked(order.now, asked, outcome)
                    if isinstance(outcome, Decision):
                        expires = order.now + seconds
                        self._held.update((each.instance_uuid, expires) for each in outcome.selections)
                case ConfirmHold(uuids=uuids) if not isinstance(outcome, HostlerError):
                    for uuid in uuids:
                        self._held.pop(uuid, None)
                case PlaceMany(requests=requests) if isinstance(outcome, PlacedMany):
                    for position, asked in enumerate(requests):
                        self._one_of_many(order.now, asked, outcome, position)
                case Release(uuids=uuids) if not isinstance(outcome, HostlerError):
                    self._left(order.now, uuids)
                case (
                    Resize(uuid=uuid, request=asked, changes=changes)
                    | Move(uuid=uuid, request=Asked() as asked, changes=changes)
                    | BeginMove(uuid=uuid, request=Asked() as asked, changes=changes)
                ):
                    self._changed(order.now, uuid, asked, changes, outcome)
                case PlacementWrite(command=DeleteAllocations(consumer=uuid)) if not isinstance(outcome, HostlerError):
                    self._left(order.now, [uuid])
                case PlacementWrite(command=SetAllocations(consumers=held) | Reshape(consumers=held)) if not isinstance(
                    outcome, HostlerError
                ):
                    self._left(order.now, [uuid for uuid, each in held.items() if not each.allocations])

    def history(self) -> GuestHistory:
        """What was found."""
        guests = [guest for guest in self.guests if guest.batch >= 0]
        return GuestHistory(
            guests=tuple(guests),
            standing=self.standing,
            began=self.began,
            ended=self.ended,
            not_admitted=self.not_admitted,
            volumes=self.volumes,
        )

    def _stand(self) -> None:
        """Guests in a snapshot: their requests are derived from their allocations."""
        fleet = self.machine.state.fleet
        for row in range(fleet.rows):
            if not fleet._host_class(row).is_host:
                continue
            lines = map(fleet._kernel.consumer, fleet._kernel.consumers_on(row))
            for uuid in sorted(format_uuid(*line[:2]) for line in lines if not line[7] & NOT_INSTANCE):
                guest = fleet.consumer(uuid)
                group = guest.server_group or ""
                asked = (self._shape(guest.resources), guest.project_id, group)
                self._add(uuid, *asked, came=self.began, placed=True, batch=self.batches)
                self.batches += 1
        self.standing = len(self.guests)

    def _shape(self, resources: Mapping[str, int]) -> RequestSpec:
        key = tuple(sorted(resources.items()))
        if key not in self._shapes:
            vcpus, memory_mb, disk_gb = (resources.get(name, 0) for name in ("VCPU", "MEMORY_MB", "DISK_GB"))
            flavor = Flavor(name=f"{vcpus}x{memory_mb}", vcpus=vcpus, memory_mb=memory_mb, root_gb=disk_gb)
            self._shapes[key] = RequestSpec(flavor=flavor)
        return self._shapes[key]

    def _asked(self, now: float, asked: Asked, outcome: Any) -> None:
        placed = [each.instance_uuid for each in outcome.selections] if isinstance(outcome, Decision) else []
        uuids = asked.instance_uuids or placed or ("",)
        if isinstance(outcome, HostlerError) and not isinstance(outcome, NoValidHost):
            self.not_admitted += len(uuids)
            return
        self._came(now, asked, uuids, placed=bool(placed))

    def _one_of_many(self, now: float, asked: Asked, outcome: PlacedMany, position: int) -> None:
        uuids = asked.instance_uuids or (outcome.instance_uuids[position],)
        code, _ = outcome.refusals.get(position, ("", ""))
        if code not in ("", NoValidHost.code):
            self.not_admitted += len(uuids)
            return
        self._came(now, asked, uuids, placed=outcome.hosts[position] is not None)

    def _came(self, now: float, asked: Asked, uuids: Sequence[str], *, placed: bool) -> None:
        spec, group = self.machine.state.specs.of(asked.spec), asked.server_group
        apart = self._apart(group if isinstance(group, str) else "")
        if group is not None and not isinstance(group, str):
            apart = group.uuid if group.policy == "anti-affinity" else ""
        for uuid in uuids:
            before = self.refused.pop(uuid, None) if uuid else None
            came = now
            if before is not None:  # asked for again: it has waited since
                came = self.guests[before].came
                self.guests[before] = self.guests[before]._replace(batch=-1)
            self._add(uuid, spec, asked.project_id, apart, came=came, placed=placed, batch=self.batches)
        self.batches += 1

    def _add(
        self, uuid: str, spec: RequestSpec, project: str, group: str, *, came: float, placed: bool, batch: int
    ) -> None:
        (self.here if placed else self.refused)[uuid] = len(self.guests)
        self.guests.append(PastGuest(uuid, project, spec, came, None, placed, batch, group))

    def _apart(self, group: str) -> str:
        fleet = self.machine.state.fleet
        known = fleet._server_groups.find(group)
        return (
            group
            if known is not None and fleet._kernel.group_policy(known)[0] == GROUP_POLICIES["anti-affinity"]
            else ""
        )

    def _left(self, now: float, uuids: Sequence[str]) -> None:
        for uuid in uuids:
            self._held.pop(uuid, None)
            position = self.here.pop(uuid, None)
            if position is not None:
                self.guests[position] = self.guests[position]._replace(left=now)

    def _changed(self, now: float, uuid: str, asked: Asked, changes: Sequence[SpecField] | None, outcome: Any) -> None:
        """A resized guest counts as released, and as a new guest with the new size."""
        if not isinstance(outcome, Decision) or not outcome.placed or uuid not in self.here:
            return
        before, spec = self.guests[self.here[uuid]], self.machine.state.specs.of(asked.spec)
        if changes is not None:
            changed: dict[str, Any] = {name: getattr(spec, name) for name in changes}
            spec = dataclasses.replace(before.spec, **changed)
        if spec is before.spec or spec.flavor == before.spec.flavor:
            return
        self._left(now, [uuid])
        self._add(uuid, spec, before.project_id, before.group, came=now, placed=True, batch=self.batches)
        self.batches += 1
