"""How much one request or call may ask for, checked before a command is queued, and what it will cost, about.

Neither affects what a command does: commands in a journal are executed regardless of the present limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec

from ...placement.types.errors import InvalidValue
from ...placement.types.request import ServerGroup
from ..engine_commands import (
    AddHosts,
    Asked,
    BeginMove,
    ConfirmHold,
    Heartbeats,
    Hold,
    Move,
    Place,
    PlaceCandidates,
    PlaceMany,
    Release,
    ReportHosts,
    Resize,
    Spawned,
    Specs,
)
from ..lifecycle_commands import (
    AdoptGuest,
    CreateGuest,
    CreateVolume,
    MoveGuest,
    ReportBackend,
    ReportPools,
    ResizeGuest,
)
from ..region_commands import PlaceAcross
from ..storage_commands import (
    AskedVolume,
    BeginRetype,
    BeginVolumeMigration,
    CreateVolumeSnapshot,
    DeleteVolumeBackups,
    DeleteVolumes,
    DeleteVolumeSnapshots,
    ExtendVolume,
    ManageVolume,
    PlaceTogether,
    PlaceVolume,
    PlaceVolumeGroup,
    ReportVolumeBackends,
    RetryVolume,
)
from ..tenancy.commands import CreatePool, SetPoolHosts
from .orders import SelectDestinations
from .placing import weights_of
from .queries import FitsMany

PART_REQUESTS: Final = 512
PART_SHAPES: Final = 8
"""Requests, and different specs among them, of a ``place_many`` that are executed as one command."""
STEP_WEIGHT: Final = 128
NEW_SPEC_WEIGHT: Final = 8
"""Requests of a call that are checked at a time, about a millisecond; one with a spec that was not seen before counts
as several."""
PLACE_COST: Final = 15
"""Microseconds of one more placement of a known spec."""
BATCHED_COST: Final = 6
"""The same within a command of many."""
SHAPE_COST: Final = 400
SHAPE_COST_PER_HOST: Final = 0.15
"""Microseconds of a spec that was not seen before, and per host."""
INSTANCE_COST: Final = 60
INSTANCE_COST_PER_HOST: Final = 0.02
"""Microseconds of each instance of a request for several, and per host."""
NAME_COST: Final = 2
"""Microseconds per name or uuid in other commands."""
VOLUME_COST: Final = 300
"""Microseconds per volume that is placed, or judged again."""
CANDIDATE_COST: Final = 25
"""Microseconds per allocation candidate that comes with a request."""
HOST_COST: Final = 50
"""Microseconds per host that is added, or put into a pool."""
_SPEC, _UUIDS, _ALTERNATES = attrgetter("spec"), attrgetter("instance_uuids"), attrgetter("alternates")
_REQUEST_ID, _GROUP = attrgetter("request_id"), attrgetter("server_group")
_NAMES: Final = (attrgetter("project_id"), attrgetter("user_id"), attrgetter("claim"))
ON_MANY: Final = (Release, Spawned, ConfirmHold, DeleteVolumes, DeleteVolumeSnapshots, DeleteVolumeBackups)
"""Commands on several guests, volumes, snapshots or backups, their ``uuids``."""
LONGEST_NAME: Final = 255
"""Characters of the names and ids in a request, as in OpenStack's Placement API."""
LONGEST_TEXT: Final = 4_096
"""Characters of any other text that a command or question has beside its requests."""


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request or call may ask for at most."""

    instances: int = 100
    """Of one request, placed all or none."""
    requests: int = 20_000
    """Of one ``place_many``; executed in parts of up to 512 requests and 8 different specs."""
    alternates: int = 100
    """Of one request."""
    selections: int = 1_000
    """Hosts that one request selects: for each instance one, and its alternates."""
    spec_bytes: int = 64 << 10
    """Length of one request's spec in MessagePack."""
    volumes: int = 100
    """Of one request: of a volume group, or beside a guest."""
    group_members: int = 1_000
    """Of a server group that a request brings along."""
    uuids: int = 10_000
    """Of one command on several guests, volumes, snapshots or backups, such as ``release`` or ``delete_volumes``."""
    candidates: int = 10_000
    """Allocation candidates that come with one request, of all its hosts."""
    question_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 10.0
    """Of processor time, rounded up, of a question that is answered by a child process, unless its asker has a role in
    the cloud: others' wait behind it."""

    def assess(self, command: Any, specs: Specs, hosts: Callable[[], int]) -> int:
        """Microseconds that a command will take, about, on so many ``hosts``. InvalidValue as for ``check``.
        O(requests)."""
        if type(command) is Place:
            request = command.request
            one = len(request.instance_uuids) < 2 and not request.alternates
            group = request.server_group
            if one and (group is None or (type(group) is str and len(group) <= LONGEST_NAME)):
                spec, identifier = bytes(request.spec), request.request_id
                if spec in specs and len(spec) <= self.spec_bytes and not request.claim:
                    named = len(request.project_id) <= LONGEST_NAME and len(request.user_id) <= LONGEST_NAME
                    if named and (identifier is None or len(identifier) <= LONGEST_NAME):
                        return PLACE_COST
        self.check(command)
        return cost_of(command, specs, hosts())

    def check(self, command: Any) -> None:
        """InvalidValue, naming the field, for a command or question that asks for too much. O(requests)."""
        match command:
            case PlaceMany():
                self.check_count(command)
        if isinstance(command, ON_MANY) and len(command.uuids) > self.uuids:
            raise too_much("uuids", len(command.uuids), self.uuids)
        for inner in (command, *getattr(command, "commands", ())):
            if isinstance(inner, PlaceCandidates) and (offers := offers_of(inner)) > self.candidates:
                raise too_much("candidates", offers, self.candidates)
        _check_texts(command, "", LONGEST_TEXT)
        requests = requests_of(command)
        if not isinstance(requests, tuple) or not self._take_all(requests):
            for request in requests:
                _check_texts(request, "request.", LONGEST_NAME)
                self._check_request(request)
        volumes = volumes_of(command)
        if isinstance(command, (PlaceTogether, PlaceVolumeGroup, CreateGuest)) and len(command.volumes) > self.volumes:
            raise too_much("volumes", len(command.volumes), self.volumes)
        for volume in volumes:
            _check_texts(volume, "request.", LONGEST_NAME)
            size = memoryview(volume.spec).nbytes
            if size > self.spec_bytes:
                raise too_much("request.spec", size, self.spec_bytes, "bytes")

    def _take_all(self, requests: tuple[Asked, ...]) -> bool:
        """True if all requests are within the limits, which is found column by column; False: they are to be looked at
        one by one. O(requests), some 0.5 us each."""
        names = chain(*(map(column, requests) for column in _NAMES), filter(None, map(_REQUEST_ID, requests)))
        instances = max(map(len, map(_UUIDS, requests)), default=0)
        alternates = max(map(_ALTERNATES, requests), default=0)
        return (
            max(map(len, names), default=0) <= LONGEST_NAME
            and instances <= self.instances
            and alternates <= self.alternates
            and max(1, instances) * (1 + alternates) <= self.selections
            and max(map(len, map(bytes, map(_SPEC, requests))), default=0) <= self.spec_bytes
            and not any(map(_GROUP, requests))
        )

    def check_count(self, command: PlaceMany) -> None:
        """InvalidValue for a call of too many requests. O(1)."""
        if len(command.requests) > self.requests:
            raise too_much("requests", len(command.requests), self.requests)

    def _check_request(self, request: Asked) -> None:
        if len(request.instance_uuids) > self.instances:
            raise too_much("request.instance_uuids", len(request.instance_uuids), self.instances)
        if request.alternates > self.alternates:
            raise too_much("request.alternates", request.alternates, self.alternates)
        selections = max(1, len(request.instance_uuids)) * (1 + request.alternates)
        if selections > (most := max(self.selections, self.instances, 1 + self.alternates)):
            problem = f"{request.alternates} alternates each are {selections} hosts in all, at most {most} are selected"
            raise InvalidValue(problem, field="request.alternates", hint="ask for fewer, or in several calls")
        size = memoryview(request.spec).nbytes
        if size > self.spec_bytes:
            raise too_much("request.spec", size, self.spec_bytes, "bytes")
        group = request.server_group
        if isinstance(group, ServerGroup) and len(group.members) > self.group_members:
            raise too_much("request.server_group.members", len(group.members), self.group_members)


def _check_texts(value: msgspec.Struct, where: str, most: int) -> None:
    """InvalidValue for a text of more characters among the fields. O(fields)."""
    for name in value.__struct_fields__:
        text = getattr(value, name)
        if type(text) is str and len(text) > most:
            raise InvalidValue(
                f"{where}{name} has {len(text)} characters, at most {most} are taken", field=f"{where}{name}"
            )


def too_much(field: str, count: int, limit: int, unit: str = "") -> InvalidValue:
    """The error for a field with more than a call may have."""
    name = field.rpartition(".")[2]
    of = f"{unit} of {name}" if unit else name
    hint = "ask in several calls, or have the operator raise [limits]"
    return InvalidValue(f"{count} {of}, at most {limit} are taken", field=field, hint=hint)


def requests_of(command: Any) -> Iterable[Asked]:
    """The requests that a command or question has."""
    match command:
        case PlaceMany(requests=requests) | PlaceAcross(requests=requests) | FitsMany(requests=requests):
            return requests
        case Place() | Resize():
            return (command.request,)
    request = getattr(command, "request", None)
    if isinstance(request, Asked):
        return (request,)
    commands = getattr(command, "commands", ())
    return [each for inner in commands for each in requests_of(inner)]


def offers_of(command: PlaceCandidates) -> int:
    """How many candidates a command has; a provider without any counts too. O(providers)."""
    return sum(max(1, len(each)) for each in command.candidates.values())


def volumes_of(command: Any) -> Iterable[AskedVolume]:
    """The volumes that a command or question asks for."""
    request = getattr(command, "request", None)
    if isinstance(request, AskedVolume):
        return (request,)
    if isinstance(command, (PlaceTogether, PlaceVolumeGroup)):
        return command.volumes
    if isinstance(command, CreateGuest):
        return [each.request for each in command.volumes]
    commands = getattr(command, "commands", ())
    return [each for inner in commands for each in volumes_of(inner)]


def cost_of(command: Any, specs: Specs, hosts: int) -> int:
    """Microseconds that a command will take, about. O(requests)."""
    match command:
        case CreateGuest(request=request, volumes=volumes) if volumes:
            return _cost_of_requests((request,), specs, hosts) + VOLUME_COST * (1 + len(volumes))
        case PlaceCandidates(request=request):
            return _cost_of_requests((request,), specs, hosts) + CANDIDATE_COST * offers_of(command)
        case MoveGuest() | ResizeGuest():
            return SHAPE_COST + int(SHAPE_COST_PER_HOST * hosts)
        case (
            Place(request=request)
            | Hold(request=request)
            | Resize(request=request)
            | CreateGuest(request=request)
            | AdoptGuest(request=request)
            | SelectDestinations(request=request)
        ):
            return _cost_of_requests((request,), specs, hosts)
        case Move(request=Asked() as request) | BeginMove(request=Asked() as request):
            return _cost_of_requests((request,), specs, hosts)
        case PlaceTogether(request=request, volumes=volumes):
            return _cost_of_requests((request,), specs, hosts) + VOLUME_COST * (1 + len(volumes))
        case PlaceVolumeGroup(volumes=volumes):
            return VOLUME_COST * (1 + 4 * len(volumes))
        case (
            PlaceVolume()
            | CreateVolume()
            | ExtendVolume()
            | BeginRetype()
            | BeginVolumeMigration()
            | CreateVolumeSnapshot()
            | RetryVolume()
            | ManageVolume()
        ):
            return VOLUME_COST
        case ReportVolumeBackends(reports=reports):
            pools = [each.capabilities.get("pools") for each in reports]
            return HOST_COST * (1 + len(reports) + sum(len(each) for each in pools if isinstance(each, list)))
        case DeleteVolumes(uuids=uuids) | DeleteVolumeSnapshots(uuids=uuids) | DeleteVolumeBackups(uuids=uuids):
            return PLACE_COST * (1 + len(uuids))
        case ReportBackend(nodes=nodes):
            return HOST_COST * (1 + len(nodes))
        case ReportPools(pools=reported):
            return HOST_COST * (1 + len(reported))
        case ReportHosts(each=each):
            return HOST_COST * (1 + max(map(len, each.values()), default=0))
        case PlaceMany(requests=requests) | PlaceAcross(requests=requests):
            return _cost_of_requests(requests, specs, hosts)
        case CreatePool(hosts=changed):
            return HOST_COST * (1 + len(changed))
        case SetPoolHosts(add=added, remove=removed):
            return HOST_COST * (1 + len(added) + len(removed))
        case AddHosts(hosts=new):
            return HOST_COST * (1 + len(new))
        case Release(uuids=names) | Spawned(uuids=names) | ConfirmHold(uuids=names) | Heartbeats(names=names):
            return PLACE_COST + NAME_COST * len(names)
    return 10 * PLACE_COST


def _cost_of_requests(requests: Sequence[Asked], specs: Specs, hosts: int) -> int:
    cost = float(PLACE_COST + BATCHED_COST * (len(requests) - 1))
    new = [spec for spec in set(map(bytes, map(_SPEC, requests))) if spec not in specs]
    several = sum([count for count in map(len, map(_UUIDS, requests)) if count > 1])
    cost += (INSTANCE_COST + INSTANCE_COST_PER_HOST * hosts) * several
    if any(map(_ALTERNATES, requests)):
        cost += sum(max(1, len(each.instance_uuids)) * each.alternates for each in requests) * PLACE_COST / 3
    return int(cost + len(new) * (SHAPE_COST + SHAPE_COST_PER_HOST * hosts))


def parts_of(command: PlaceMany) -> Iterator[PlaceMany]:
    """A ``place_many`` as commands of at most PART_REQUESTS requests (those for several instances count as many) and
    PART_SHAPES different specs each. The same call always makes the same parts."""
    requests, first, position, weight = command.requests, 0, 0, 0
    shapes = set[bytes]()
    for few in _pieces(requests, PART_REQUESTS):
        specs, weights = list(map(bytes, map(_SPEC, few))), weights_of(few)
        if len(few) == len(requests) and len(set(specs)) <= PART_SHAPES and not any(weights):
            break
        for (shape, instances), alike in groupby(zip(specs, weights, strict=True)):
            left, own = len(list(alike)), max(1, instances)
            while left:
                full = weight + own > PART_REQUESTS or (shape not in shapes and len(shapes) == PART_SHAPES)
                if weight and full:
                    yield _part(command, first, position)
                    first, weight = position, 0
                    shapes.clear()
                shapes.add(shape)
                some = min(left, max(1, (PART_REQUESTS - weight) // own))
                weight += some * own
                position += some
                left -= some
    yield _part(command, first, len(requests))


def checked_parts_of(command: PlaceMany, specs: Specs) -> Iterator[PlaceMany]:
    """A ``place_many`` in parts that are each checked in about a millisecond."""
    requests, first, position, weight = command.requests, 0, 0, 0
    last: bytes | None = None
    for few in _pieces(requests, STEP_WEIGHT):
        for shape, alike in groupby(map(bytes, map(_SPEC, few))):
            own, left = 1 if shape == last or shape in specs else NEW_SPEC_WEIGHT, len(list(alike))
            last = shape
            while left:
                some = min(left, max(STEP_WEIGHT - weight - own + 1, 1))
                weight += own + some - 1
                own = 1
                position += some
                left -= some
                if weight >= STEP_WEIGHT:
                    yield _part(command, first, position)
                    first, weight = position, 0
    if first < position:
        yield _part(command, first, position)


def _pieces(requests: tuple[Asked, ...], most: int) -> Iterator[tuple[Asked, ...]]:
    """Requests in pieces of so many at most: what is read of one piece at a time takes no longer than that."""
    return (requests[first : first + most] for first in range(0, len(requests), most))


def _part(command: PlaceMany, first: int, end: int) -> PlaceMany:
    requests = command.requests
    return command if end - first == len(requests) else PlaceMany(requests=requests[first:end])
