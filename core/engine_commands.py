"""Every change of an engine's state as a plain, tagged value.

A journal stores these, a network sends them; the same commands at the same times give the same answers. Names and
meaning of fields are those of ``Engine`` and ``Fleet``.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec

from ..placement.fleet.inventories import Inventory
from ..placement.load.reports import CLAIM_TIMEOUT
from ..placement.types.errors import HostlerError, InvalidValue
from ..placement.types.from_builtins import from_msgspec, from_plain
from ..placement.types.host import Aggregate, Host
from ..placement.types.moves import Expiry, MoveKind
from ..placement.types.recently_used import RecentlyUsed
from ..placement.types.request import Flavor, Image, Request, RequestSpec, ServerGroup
from ..placement.types.validation import MAX_NESTING, is_deeper

SPECS_BYTES: Final = 32 << 20
"""Memory of decoded specs; those that were used least recently are forgotten."""
SPEC_BYTES: Final = 2 << 10
"""What a decoded spec takes beside its contents, measured."""
_DECODED: Final = 8
"""Bytes of memory for a byte of a spec, decoded: short words, and lists of them."""


SpecField = Literal["flavor", "image", "availability_zone", "scheduler_hints"]
"""Fields of a RequestSpec that a move can change, all else being as it was asked."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A Request as it is sent: ``spec`` is its RequestSpec in MessagePack, kept as it came, so that requests with equal
    bytes share one object. Its ``flavor`` and ``image`` may be names of those that the service keeps. Its time is the
    command's. ``claim``: the id under which a parent of regions asks; a request whose instances were placed under the
    same id gets the decision on them, and ``release`` can be limited to them."""

    spec: msgspec.Raw
    instance_uuids: tuple[str, ...] = ()
    project_id: str = ""
    user_id: str = ""
    server_group: ServerGroup | str | None = None
    alternates: int = 0
    request_id: str | None = None
    claim: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Command(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="do", gc=False
):
    """Base of all commands."""


class Place(Command, frozen=True, tag="place"):
    """Choose a host for each instance of one request, and charge it."""

    request: Asked


class Hold(Command, frozen=True, tag="hold"):
    """Place a request for ``expires_in`` seconds: guests that confirm_hold does not name until then are released."""

    request: Asked
    expires_in: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]


class ConfirmHold(Command, frozen=True, tag="confirm_hold"):
    """Held instances stay; all or none. Those that are not held, or no longer, are InvalidValue or UnknownName."""

    uuids: tuple[str, ...]


class PlaceMany(Command, frozen=True, tag="place_many"):
    """Place each request, one after the other; a refusal does not stop the rest."""

    requests: tuple[Asked, ...]


class ProviderResources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a candidate takes of one resource provider, by resource class."""

    resources: dict[str, Annotated[int, msgspec.Meta(ge=1)]]


class AllocationCandidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An element of ``allocation_requests`` of the Placement API's GET /allocation_candidates: what is taken, by uuid
    of the provider, and the providers of each request group."""

    allocations: dict[str, ProviderResources]
    mappings: dict[str, tuple[str, ...]] = {}


class PlaceCandidates(Command, frozen=True, tag="place_candidates"):
    """Choose a host for each instance of one request among allocation candidates that were made before, by uuid of the
    host's provider, and charge what the candidate says. Of each host the first is taken that the filters leave and that
    there is room for now; providers that are no hosts, and candidates that name unknown ones, are left out. The
    candidates decide about traits and aggregates, which are not judged again."""

    request: Asked
    candidates: dict[str, tuple[AllocationCandidate, ...]]


class Release(Command, frozen=True, tag="release"):
    """Remove instances and return their resources; all or none. ``claim``: only those that were placed under this id;
    others count as unknown."""

    uuids: tuple[str, ...]
    claim: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Spawned(Command, frozen=True, tag="spawned"):
    """Instances have been built: they no longer count as I/O operations of their hosts."""

    uuids: tuple[str, ...]


class Move(Command, frozen=True, tag="move"):
    """Place an instance again on another host (a migration). Without a request it is judged by what was asked when it
    was placed. ``changes``: only these fields of the request's spec replace what was asked then, where that is known;
    forced hosts are dropped."""

    uuid: str
    request: Asked | None = None
    changes: tuple[SpecField, ...] | None = None


class Resize(Command, frozen=True, tag="resize"):
    """Place an instance again with another flavor. ``changes`` as of ``move``."""

    uuid: str
    request: Asked
    changes: tuple[SpecField, ...] | None = None


class BeginMove(Command, frozen=True, tag="begin_move"):
    """Claim a new place for an instance and keep the old one until confirm_move or revert_move. Without a request it is
    judged by what was asked when it was placed. ``expires_in``: seconds after which the move is reverted, or confirmed
    where ``on_expiry`` says so. ``target``, for cloud admins: the node that it must move to, judged by every rule; an
    instance whose request is not known is then judged by what it holds. ``changes`` as of ``move``."""

    uuid: str
    kind: MoveKind = "cold_migrate"
    request: Asked | None = None
    migration: str | None = None
    expires_in: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] | None = None
    on_expiry: Expiry = "revert"
    target: str | None = None
    changes: tuple[SpecField, ...] | None = None


class ConfirmMove(Command, frozen=True, tag="confirm_move"):
    """An instance has moved: what it held before is given back."""

    uuid: str


class RevertMove(Command, frozen=True, tag="revert_move"):
    """An instance stays, or is back, where it was: its new place is given back."""

    uuid: str


class AddHosts(Command, frozen=True, tag="add_hosts"):
    """Add compute hosts; all or none. ``negative_free``: free_ram_mb and free_disk_mb of -1 are amounts; without it
    they mean that the amount follows from the totals."""

    hosts: tuple[Host, ...]
    negative_free: bool = False


class ReportHosts(Command, frozen=True, tag="report_hosts"):
    """Complete reports of compute hosts, in columns: ``same`` = fields of Host that all have alike, ``each`` = fields
    by host, all of one length (``at``, ``includes``, ``service`` and ``inventories`` of the report among them); what is
    in neither has its default. ``at`` is the command's time where it is left out. Instances whose claims no report has
    included for ``claim_timeout`` seconds are released."""

    each: dict[str, list[Any]]
    same: dict[str, Any] = {}
    claim_timeout: Annotated[float, msgspec.Meta(gt=0)] = CLAIM_TIMEOUT


class RemoveHost(Command, frozen=True, tag="remove_host"):
    """Remove a host, or another resource provider, without allocations. One that clients of the Placement API have
    written is theirs, and is refused unless ``force`` is given."""

    name: str
    force: bool = False


class SetService(Command, frozen=True, tag="set_service"):
    """Enable, disable or force down a host's compute service; omitted settings are kept."""

    name: str
    disabled: bool | None = None
    disabled_reason: str | None = None
    forced_down: bool | None = None


class Heartbeats(Command, frozen=True, tag="heartbeats"):
    """The compute services of hosts have reported, at the command's time."""

    names: tuple[str, ...]


class Report(Command, frozen=True, tag="report"):
    """Single figures that a compute node reports: free_ram_mb, free_disk_mb (MiB), vcpus_used, num_io_ops,
    num_instances, failed_builds. ``at``: time of the report in seconds since the epoch; one that is older than what is
    known of the host is left aside."""

    name: str
    figures: dict[str, float]
    at: float | None = None


class AddProvider(Command, frozen=True, tag="add_provider"):
    """Add a resource provider that is not a compute host."""

    name: str
    uuid: str | None = None
    parent: str | None = None
    traits: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()


class SetParent(Command, frozen=True, tag="set_parent"):
    """Move a provider, with its descendants, under another one, or make it a root."""

    name: str
    parent: str | None = None


class SetTraits(Command, frozen=True, tag="set_traits"):
    """Replace a provider's traits."""

    name: str
    traits: tuple[str, ...]


class SetInventory(Command, frozen=True, tag="set_inventory"):
    """Replace a provider's inventories, by resource class."""

    name: str
    inventories: dict[str, Inventory]


class SetAggregates(Command, frozen=True, tag="set_aggregates"):
    """Replace the aggregates of a provider."""

    name: str
    aggregates: tuple[Aggregate, ...]


class UpdateAggregate(Command, frozen=True, tag="update_aggregate"):
    """Replace an aggregate's name and metadata."""

    aggregate: Aggregate


class RemoveAggregate(Command, frozen=True, tag="remove_aggregate"):
    """Remove an aggregate, by its uuid. As in Nova, that is refused while hosts or other providers are in it. The
    aggregate of a resource pool is removed with its pool."""

    uuid: str


class AddServerGroup(Command, frozen=True, tag="add_server_group"):
    """Keep a server group; its members are the instances placed with its uuid. It belongs to the project that is named,
    else to that of its members. Members of a project may keep groups for it, as many as its limit ``server_groups``
    says (1,000 where there is none)."""

    uuid: str
    policy: str
    max_server_per_host: int = 1
    project_id: str = ""


class RemoveServerGroup(Command, frozen=True, tag="remove_server_group"):
    """Delete a server group. Its members stay placed and belong to no group."""

    uuid: str


class SetPolicy(Command, frozen=True, tag="set_policy"):
    """Decide by another policy from now on: nova.conf's groups and ``hostler``, option by option."""

    policy: dict[str, dict[str, Any]]


EngineCommand = (
    Place
    | Hold
    | ConfirmHold
    | PlaceMany
    | PlaceCandidates
    | Release
    | Spawned
    | Move
    | Resize
    | BeginMove
    | ConfirmMove
    | RevertMove
    | AddHosts
    | ReportHosts
    | RemoveHost
    | SetService
    | Heartbeats
    | Report
    | AddProvider
    | SetParent
    | SetTraits
    | SetInventory
    | SetAggregates
    | UpdateAggregate
    | RemoveAggregate
    | AddServerGroup
    | RemoveServerGroup
    | SetPolicy
)


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to PlaceMany, by position: the service host (None: refused) and the uuid of each (first) instance.
    ``refusals`` = position -> (error code, sentence), also for malformed requests. Decisions are numbered from
    ``sequence``. For all requests without a host together, ``refused_by`` counts them by the stage that left no host,
    and ``removed`` counts the hosts that each stage removed."""

    sequence: int
    hosts: list[str | None]
    instance_uuids: list[str]
    refusals: dict[int, tuple[str, str]] = {}
    refused_by: dict[str, int] = {}
    removed: dict[str, int] = {}

    @property
    def placed(self) -> int:
        """Number of requests that were placed."""
        return len(self.hosts) - len(self.refusals)


class Kept(Protocol):
    """Flavors and images that the service keeps. UnknownName for others."""

    def flavor(self, name: str) -> Flavor:
        """The flavor of a name."""

    def image(self, name: str) -> Image:
        """The image of a name."""


class KnownSpec(msgspec.Struct):
    """A spec that was sent, and the names of the flavor and image in it that the service keeps (None: they came with
    it). ``problem``: why tenants may not send it, once that has been ``judged``."""

    spec: RequestSpec
    flavor: str | None = None
    image: str | None = None
    judged: bool = False
    problem: HostlerError | None = None
    written: bytes | None = None
    """The spec with its flavor and image written out, once that was needed."""
    placed: bool = False
    """True once guests were placed with it: an engine has compiled it."""


def bytes_decoded(data: bytes) -> int:
    """About how much memory a spec takes that was sent as ``data``."""
    return SPEC_BYTES + _DECODED * len(data)


class Specs(RecentlyUsed[bytes, KnownSpec]):
    """RequestSpecs by their bytes: requests that are sent with equal ones share an object. A spec is read when it is
    first asked for (``specs[data]``): InvalidValue or UnknownName, naming the field, if it is malformed."""

    def __init__(self, kept: Kept) -> None:
        super().__init__(SPECS_BYTES)
        self._kept = kept

    def __missing__(self, data: bytes) -> KnownSpec:
        return self.again(data) or self.keep(data, self._read(data), bytes_decoded(data))

    def of(self, raw: msgspec.Raw) -> RequestSpec:
        """The spec encoded in ``raw``. Errors as above. O(1) if known."""
        return self[bytes(raw)].spec

    def forget_named(self, kept: Kept) -> None:
        """Flavors or images have changed: specs that name some are read again. O(specs)."""
        self._kept = kept
        for data, each in self.both():
            if each.flavor is not None or each.image is not None:
                self.forget(data)

    def _read(self, data: bytes) -> KnownSpec:
        value = decode_spec(data)
        flavor = image = None
        if isinstance(value, dict):
            if isinstance(value.get("flavor"), str):
                flavor = value["flavor"]
                value = {**value, "flavor": msgspec.to_builtins(self._kept.flavor(flavor))}
            if isinstance(value.get("image"), str):
                image = value["image"]
                value = {**value, "image": msgspec.to_builtins(self._kept.image(image))}
        return KnownSpec(from_plain(value, RequestSpec, "spec"), flavor, image)


def decode_spec(data: bytes) -> Any:
    """What a spec is in MessagePack. InvalidValue for malformed input, and for one nested so deep that functions which
    read or store it could exceed the limit of the interpreter. O(size)."""
    try:
        value = msgspec.msgpack.decode(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"spec is not MessagePack: {error}", field="spec") from None
    if is_deeper(value, MAX_NESTING):
        raise InvalidValue(f"spec is nested more than {MAX_NESTING} levels deep", field="spec")
    return value


def _defaults_of(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    """(name, default) of each field of a dataclass; MISSING where it has none."""
    made = ((each.name, each.default, each.default_factory) for each in fields(kind))
    return tuple((name, default if factory is MISSING else factory()) for name, default, factory in made)


_DEFAULTS: Final = {kind: _defaults_of(kind) for kind in (RequestSpec, Flavor, Image)}


def _sent(value: Any) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    found = {}
    for name, default in _DEFAULTS[type(value)]:
        held = getattr(value, name)
        if held is not default and (held != default or type(held) is not type(default)):
            found[name] = _sent(held) if type(held) in _DEFAULTS else held
    return found


@lru_cache(256)
def _sent_spec(spec: RequestSpec) -> bytes:
    return msgspec.msgpack.encode(_sent(spec) if type(spec) is RequestSpec else spec)


def asked(request: Request) -> Asked:
    """A request as it is sent. Its time is left out, and the fields of its spec, flavor and image that have their
    defaults: what is sent is read, compared and kept many times."""
    return Asked(
        spec=msgspec.Raw(_sent_spec(request.spec)),
        instance_uuids=request.instance_uuids,
        project_id=request.project_id,
        user_id=request.user_id,
        server_group=request.server_group,
        alternates=request.alternates,
        request_id=request.request_id,
    )


_DECODERS: Final[dict[type[Any], msgspec.msgpack.Decoder[Any]]] = {}


def decode_params(data: bytes | msgspec.Raw, kind: type[Any]) -> Any:
    """Decode a Struct from MessagePack. InvalidValue, naming the field, for malformed input."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise from_msgspec(error, "params") from None
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"params are not MessagePack: {error}", field="params") from None
