"""In-memory log of the events of recent commands, for subscribers that reconnect or read slowly. Independent of
subscribers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from ...placement.storage.decision import PoolSelection, VolumeDecision, VolumeGroupDecision
from ...placement.storage.with_guests import JointDecision
from ...placement.types.decision import Decision, PackedDecision
from ...placement.types.errors import HostlerError
from .. import engine_commands as p
from .. import storage_commands as s
from ..lifecycle_commands import AdoptGuest, CreateGuest, CreateVolume, OnVolumeClaim
from ..region_commands import ClaimInRegion, SettleRegionClaim, on_behalf_of
from ..tenancy import commands as c
from ..tenancy.tenants import RANK
from .lives import GuestChange, VolumeChange
from .machine import ServiceMachine, guests_named
from .orders import Guests, Order
from .queries import CapacityOf
from .region_summary import RegionSummary

KEPT: Final = 10_000
"""Commands that are remembered. One counts as many as it has requests, guests, or KiB of what is kept of it, if these
are more."""

_NOBODY: Final[Guests] = {}
_SPEC, _UUIDS = attrgetter("spec"), attrgetter("instance_uuids")
_PLACE: Final = str(p.Place.__struct_config__.tag)

log = logging.getLogger("hostler.history")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event: ``sequence`` of the command, its ``time`` in seconds since the epoch, its user and name; ``project``
    owns it, nil or empty: the cloud. Decisions have hosts by instance, refusals a code and a sentence, changes the
    existing ``instances`` they affect, and the ``volumes`` (also snapshots, backups and volume groups); decisions on
    volumes have ``backends`` (pools) by volume, capacity events the capacity, summary events what parents of
    regions read. A ``gap`` means that events up to ``sequence`` are no longer available; later ones are complete."""

    kind: str
    sequence: int
    time: float
    user: str = ""
    command: str = ""
    project: str | None = None
    hosts: dict[str, str] = {}
    instances: list[str] = []
    backends: dict[str, str] = {}
    volumes: list[str] = []
    code: str | None = None
    sentence: str | None = None
    capacity: dict[str, CapacityOf] = {}
    summary: RegionSummary | None = None


class _PlacedOne(msgspec.Struct, frozen=True, gc=False):
    """The same of one guest."""

    time: float
    user: str
    project: str
    uuid: str
    host: str

    def event(self, sequence: int) -> Event:
        """What it was as number ``sequence``."""
        return _Placed(self.time, self.user, self.project, {self.uuid: self.host}).event(sequence)


class _Placed(msgspec.Struct, frozen=True, gc=False):
    """Compact record of a placement's event: keeping order and decision would retain many small objects per
    placement."""

    time: float
    user: str
    project: str
    hosts: dict[str, str]

    def event(self, sequence: int) -> Event:
        """What it was as number ``sequence``."""
        return Event(
            kind="decisions",
            sequence=sequence,
            time=self.time,
            user=self.user,
            command=_PLACE,
            project=self.project,
            hosts=self.hosts,
        )


class History:
    """Events of the last commands, without gaps. An observer of the writer, and of what it replays."""

    def __init__(self, machine: ServiceMachine, kept: int = KEPT) -> None:
        self._machine, self._kept = machine, kept
        self._entries: dict[int, _PlacedOne | _Placed | tuple[Order, Any, Guests] | list[Event]] = {}
        """By sequence number, ascending; events are made when they are asked for, where that can wait."""
        self._made: dict[str, int] = {}
        """Projects that were made by a command that is remembered, and by which."""
        self._sizes: deque[int] = deque()
        self._size = 0
        self.first = 1
        """The first command that is remembered, or the next one."""

    @property
    def last(self) -> int:
        """The last command that is remembered, or the one before ``first``."""
        return self.first + len(self._entries) - 1

    def begin(self, sequence: int) -> None:
        """The next command is the one after ``sequence``. What is remembered of others is forgotten."""
        if self.last != sequence:
            self._entries.clear()
            self._sizes.clear()
            self._made.clear()
            self._size, self.first = 0, sequence + 1

    def add(self, sequence: int, order: Order, outcome: Any) -> None:
        """Record the event of an applied command."""
        entries = self._entries
        command: Any = order.command
        if self.first + len(entries) != sequence:
            self.begin(sequence - 1)
        size = 1
        if type(outcome) is PackedDecision:  # as nearly always: of a Place
            project = command.request.project_id
            entries[sequence] = _PlacedOne(order.now, order.user, project, outcome.instance_uuid, outcome.host)
        elif isinstance(outcome, HostlerError):
            concerned = self._concerned(order)
            entries[sequence] = self._refused(_made(sequence, order, outcome, concerned), order.user)
            size = sum(map(len, concerned.values()))
        elif isinstance(command, p.Place):
            if type(outcome) is Decision and outcome.refusal is None:
                hosts = {}
                for selection in outcome.selections:
                    hosts[selection.instance_uuid] = selection.host
                entries[sequence], size = _Placed(order.now, order.user, command.request.project_id, hosts), len(hosts)
            else:
                entries[sequence], size = (order, outcome, _NOBODY), _weight(command.request)
        elif isinstance(command, p.Release):
            entries[sequence] = (order, outcome, self._machine.concerned(order))
            size = len(command.uuids)
        elif isinstance(command, p.PlaceMany):
            entries[sequence], size = (order, outcome, _NOBODY), _weight_of_all(command.requests)
        else:
            if isinstance(command, c.CreateProject):
                self._made.pop(command.id, None)
                self._made[command.id] = sequence
            concerned = self._concerned(order)
            entries[sequence] = _made(sequence, order, outcome, concerned)
            size = sum(map(len, concerned.values()))
        size = size or 1
        self._sizes.append(size)
        size += self._size
        while size > self._kept and len(entries) > 1:
            del entries[self.first]
            size -= self._sizes.popleft()
            self.first += 1
        self._size = size
        while self._made and (oldest := next(iter(self._made.items())))[1] < self.first:
            del self._made[oldest[0]]

    def _concerned(self, order: Order) -> Guests:
        """The guests and volumes that a command names, by project."""
        names = isinstance(order.command, s.StorageBase | OnVolumeClaim) or guests_named(order.command)
        return self._machine.concerned(order) if names else _NOBODY

    def _refused(self, events: list[Event], user: str) -> list[Event]:
        """Events of a refused command. What a user tries who may not read a project is told to the cloud, not to the
        project, which would learn their name."""
        tenants, foreign = self._machine.state.tenants, set[str]()
        for name in {each.project for each in events if each.project}:
            if tenants.role(user, f"project:{name}") < RANK["reader"]:
                foreign.add(name)
        return [msgspec.structs.replace(each, project=None) if each.project in foreign else each for each in events]

    def is_of(self, project: str, sequence: int) -> bool:
        """True if what a command did to a project's guests concerns the project of that name that there is now, not one
        before it, or guests placed under the name before it was made. O(1)."""
        return sequence >= self._made.get(project, 0)

    def events(self, sequence: int) -> list[Event]:
        """The events of a logged command."""
        entry = self._entries[sequence]
        if isinstance(entry, _PlacedOne | _Placed):
            return [entry.event(sequence)]
        if isinstance(entry, tuple):
            entry = _made(sequence, *entry)
        return entry


def _weight(request: p.Asked) -> int:
    """What a request that is kept counts."""
    return max(len(request.instance_uuids), memoryview(request.spec).nbytes >> 10, 1)


def _weight_of_all(requests: Sequence[p.Asked]) -> int:
    """What several requests that are kept count together. O(requests), some 0.1 us each."""
    own = list(map(len, map(_UUIDS, requests)))
    nbytes = sum(map(len, map(bytes, map(_SPEC, requests))))
    return max(sum(own) + own.count(0), 1) + (nbytes >> 10)


def _made(sequence: int, order: Order, outcome: Any, concerned: Guests) -> list[Event]:
    try:
        return list(_events(sequence, order, outcome, concerned))
    except Exception:  # the command has been applied, so that an error here must not stop the writer
        log.exception("no event can be made for command %d", sequence)
        return []


def _events(sequence: int, order: Order, outcome: Any, concerned: Guests) -> Iterator[Event]:
    command = order.command
    about: dict[str, Any] = {
        "sequence": sequence,
        "time": order.now,
        "user": on_behalf_of(command, order.user),
        "command": str(type(command).__struct_config__.tag),
    }
    if isinstance(command, p.PlaceMany) and not isinstance(outcome, HostlerError):
        yield from _many(command, outcome, about)
        return
    if isinstance(outcome, VolumeChange):
        about |= {"code": outcome.status, "sentence": outcome.sentence}
    if isinstance(command, s.StorageBase | OnVolumeClaim | CreateVolume):
        yield from _of_storage(command, outcome, concerned, about)
    elif isinstance(outcome, HostlerError | Decision):
        # The refusal of a command on guests of several projects may reveal facts of one project to another.
        guests = next(iter(concerned.items())) if len(concerned) == 1 else (_project(command), ())
        yield _outcome(outcome, guests, about)
    else:
        if isinstance(outcome, GuestChange):
            about |= {"code": outcome.status, "sentence": outcome.sentence}
        for project, instances in concerned.items() or ((_project(command), ()),):
            yield Event(kind="changes", project=project, instances=list(instances), **about)


def _of_storage(command: Any, outcome: Any, concerned: Guests, about: dict[str, Any]) -> Iterator[Event]:
    project = next(iter(concerned)) if len(concerned) == 1 else _project(command)
    if isinstance(outcome, HostlerError):
        named = list(concerned.get(project or "", ()))
        code, sentence = outcome.code, str(outcome)
        yield Event(kind="refusals", project=project, volumes=named, code=code, sentence=sentence, **about)
        return
    decision = outcome.decision if isinstance(outcome, (s.SnapshotPlaced, s.GroupPlaced)) else outcome
    if isinstance(decision, (VolumeDecision, VolumeGroupDecision, JointDecision)):
        if decision.refusal is not None:
            sentence = decision.refusal.sentence
            yield Event(kind="refusals", project=project, code="no_valid_host", sentence=sentence, **about)
            return
        yield Event(kind="decisions", project=project, hosts=_hosts(decision), backends=_backends(decision), **about)
        return
    for owner, uuids in concerned.items() or ((project, ()),):
        yield Event(kind="changes", project=owner, volumes=list(uuids), **about)


def _hosts(decision: VolumeDecision | VolumeGroupDecision | JointDecision) -> dict[str, str]:
    guest = decision.guest if isinstance(decision, JointDecision) else None
    return {} if guest is None else {each.instance_uuid: each.host for each in guest.selections}


def _backends(decision: VolumeDecision | VolumeGroupDecision | JointDecision) -> dict[str, str]:
    match decision:
        case VolumeDecision(selection=selection):
            selections: list[PoolSelection | None] = [selection]
        case VolumeGroupDecision():
            selections = list(decision.selections)
        case JointDecision(volumes=volumes):
            selections = [each.selection for each in volumes]
    return {each.volume_id: each.backend_id for each in selections if each is not None}


def _project(command: Any) -> str | None:
    """The project that a command names as its own."""
    match command:
        case (
            p.Place(request=request)
            | p.PlaceCandidates(request=request)
            | p.Hold(request=request)
            | p.Resize(request=request)
            | CreateGuest(request=request)
            | AdoptGuest(request=request)
            | CreateVolume(request=request)
            | s.PlaceVolume(request=request)
            | s.ManageVolume(request=request)
            | s.PlaceTogether(request=request)
        ):
            return request.project_id
        case s.PlaceVolumeGroup(project_id=project) | SettleRegionClaim(project=project):
            return project
        case ClaimInRegion(request=request):
            return request.project_id
        case p.Move(request=p.Asked() as request) | p.BeginMove(request=p.Asked() as request):
            return request.project_id
        case c.CreateProject(id=name) | c.DeleteProject(id=name):
            return name
        case c.SetLimits() | c.Grant() | c.Revoke() | c.GrantPool() | c.UngrantPool():
            kind, _, name = command.scope.partition(":")
            return name if kind == "project" else None
    return None


def _outcome(
    outcome: HostlerError | Decision, guests: tuple[str | None, Iterable[str]], about: dict[str, Any]
) -> Event:
    project, instances = guests
    about = {**about, "project": project, "instances": list(instances)}
    if isinstance(outcome, HostlerError):
        return Event(kind="refusals", code=outcome.code, sentence=str(outcome), **about)
    if outcome.refusal is not None:
        return Event(kind="refusals", code="no_valid_host", sentence=outcome.refusal.sentence, **about)
    hosts = {selection.instance_uuid: selection.host for selection in outcome.selections}
    return Event(kind="decisions", hosts=hosts, **about)


def _many(command: p.PlaceMany, outcome: p.Placed, about: dict[str, Any]) -> Iterator[Event]:
    by_project: dict[str, dict[str, str]] = {}
    for request, host, uuid in zip(command.requests, outcome.hosts, outcome.instance_uuids, strict=True):
        if host is not None:
            by_project.setdefault(request.project_id, {})[uuid] = host
    for project, placed in by_project.items():
        yield Event(kind="decisions", project=project, hosts=placed, **about)
    for position, (code, sentence) in outcome.refusals.items():
        project = command.requests[position].project_id
        yield Event(kind="refusals", project=project, code=code, sentence=sentence, **about)
