"""What is asked of the storage scheduler: volume types, sizes, hints, earlier attempts, as plain frozen values."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypedDict, Unpack

from ...types.cached_texts import cached_texts
from ...types.content import ContentEquality
from ...types.errors import InvalidValue
from ...types.limits import MAX_AMOUNT
from ...types.uuids import plain_uuid
from ...types.validation import MAX_NESTING, check_text, is_deeper, shown, uuid_words, whole_number
from .reports import moment

MAX_QUERY: Final = 64
"""Levels of lists in the hint ``query``, as for compute hosts."""
OPERATIONS: Final = ("create_volume", "extend_volume", "retype", "manage", "migrate")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeType(ContentEquality):
    """A volume type, or a group type. ``extra_specs``: requirement by capability, None for "must be None"."""

    name: str = ""
    id: str | None = None
    extra_specs: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retry(ContentEquality):
    """Earlier attempts at the same request: the pools that were tried, the last one last, and how many times.

    ``hosts`` is read where ``backends`` is None (messages of old releases)."""

    num_attempts: int = 0
    backends: tuple[str, ...] | None = ()
    hosts: tuple[str, ...] = ()

    @property
    def tried(self) -> tuple[str, ...]:
        """The pools not to try again."""
        return self.hosts if self.backends is None else self.backends


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeSpec(ContentEquality):
    """The part of a request that many requests share; the engine compiles equal ones once.

    ``availability_zones`` (any of them) goes before ``availability_zone``. ``scheduler_hints``: query, same_host,
    different_host, local_to_instance. ``properties`` are further volume properties that expressions may read.
    ``resource_backend`` is the pool, or ``host@backend``, that it must go to (a clone of a volume there).
    """

    size_gb: int
    volume_type: VolumeType | None = None
    qos_specs: Mapping[str, Any] | None = None
    availability_zone: str | None = None
    availability_zones: tuple[str, ...] = ()
    scheduler_hints: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    attach_status: str = "detached"
    properties: Mapping[str, Any] = field(default_factory=dict)
    resource_backend: str | None = None

    @property
    def extra_specs(self) -> Mapping[str, str | None]:
        """The volume type's extra specs."""
        return self.volume_type.extra_specs if self.volume_type is not None else {}

    @property
    def thin(self) -> bool:
        """False if the volume type asks for thick provisioning."""
        return self.extra_specs.get("provisioning:type") != "thick"


class VolumeRequestChanges(TypedDict, total=False):
    """Fields of a ``VolumeRequest`` to replace."""

    spec: VolumeSpec
    volume_id: str | None
    project_id: str
    user_id: str
    retry: Retry | None
    now: float | None
    alternates: int
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeRequest(ContentEquality):
    """One command to place one volume. ``volume_id`` left out is made from the engine's seed and sequence number.

    ``now``: the command's time in seconds since the epoch (None: the last known). ``alternates``: further pools named.
    """

    spec: VolumeSpec
    volume_id: str | None = None
    project_id: str = ""
    user_id: str = ""
    retry: Retry | None = None
    now: float | None = None
    alternates: int = 0
    request_id: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.volume_id, str) and (plain := plain_uuid(self.volume_id)) != self.volume_id:
            object.__setattr__(self, "volume_id", plain)

    def with_changes(self, **changes: Unpack[VolumeRequestChanges]) -> VolumeRequest:
        """The same request with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeGroupRequest(ContentEquality):
    """Volumes of one generic volume group, on one backend. ``group_type`` must be satisfied too."""

    volumes: tuple[VolumeRequest, ...]
    group_type: VolumeType | None = None
    availability_zone: str | None = None
    now: float | None = None
    request_id: str | None = None


def check_volume_spec(spec: object) -> VolumeSpec:
    """The spec if every field is what it should be; InvalidValue that names the field otherwise. O(size)."""
    if not isinstance(spec, VolumeSpec):
        raise InvalidValue(f"spec must be a VolumeSpec, got {shown(spec)}", field="spec")
    whole_number(spec.size_gb, "size_gb", most=MAX_AMOUNT)
    if spec.volume_type is not None:
        check_volume_type(spec.volume_type, "volume_type")
    for name in ("scheduler_hints", "metadata", "properties", "qos_specs"):
        value = getattr(spec, name)
        if value is None and name == "qos_specs":
            continue
        given = _mapping(value, name)
        if given and is_deeper(given, MAX_NESTING):
            raise InvalidValue(f"{name} is nested more than {MAX_NESTING} levels deep", field=name)
    for name in ("availability_zone", "resource_backend"):
        if getattr(spec, name) is not None:
            check_text(getattr(spec, name), name)
    check_text(spec.attach_status, "attach_status")
    texts(spec.availability_zones, "availability_zones")
    query = spec.scheduler_hints.get("query")
    if query is not None and not isinstance(query, str):
        raise InvalidValue(f"the hint query must be a text, got {shown(query)}", field="scheduler_hints.query")
    if query is not None and _nests(query):
        problem = f"the hint query nests lists deeper than {MAX_QUERY}"
        raise InvalidValue(problem, field="scheduler_hints.query")
    return spec


@cached_texts(256)
def _nests(query: str) -> bool:
    """True for a query whose lists lie in each other deeper than it may be. O(length)."""
    if query.count("[") + query.count("{") <= MAX_QUERY:
        return False
    try:
        return is_deeper(json.loads(query), MAX_QUERY)
    except RecursionError:
        return True
    except ValueError:
        return False  # JsonFilter refuses every pool


def check_volume_type(value: object, field: str) -> VolumeType:
    """The volume type if it is one; InvalidValue otherwise. O(extra specs)."""
    if not isinstance(value, VolumeType):
        raise InvalidValue(f"{field} must be a VolumeType, got {shown(value)}", field=field)
    for key, wanted in _mapping(value.extra_specs, f"{field}.extra_specs").items():
        if not isinstance(key, str) or not (wanted is None or isinstance(wanted, str)):
            problem = f"{field}.extra_specs must map texts to texts, got {shown(key)}: {shown(wanted)}"
            raise InvalidValue(problem, field=f"{field}.extra_specs")
    return value


def check_volume_request(request: object) -> VolumeRequest:
    """The request if every field beside its spec is what it should be; InvalidValue otherwise. O(1)."""
    if not isinstance(request, VolumeRequest):
        raise InvalidValue(f"request must be a VolumeRequest, got {shown(request)}", field="request")
    if request.volume_id is not None:
        uuid_words(request.volume_id, "volume_id")
    if request.now is not None:
        moment(request.now, "now")
    if request.alternates:
        whole_number(request.alternates, "alternates")
    if request.project_id or request.user_id:
        check_text(request.project_id, "project_id")
        check_text(request.user_id, "user_id")
    if request.retry is not None:
        _check_retry(request.retry)
    return request


def _check_retry(retry: object) -> None:
    if not isinstance(retry, Retry):
        raise InvalidValue(f"retry must be a Retry, got {shown(retry)}", field="retry")
    whole_number(retry.num_attempts, "retry.num_attempts")
    if retry.backends is not None:
        texts(retry.backends, "retry.backends")
    texts(retry.hosts, "retry.hosts")


def texts(value: object, field: str) -> tuple[str, ...]:
    """Several texts; InvalidValue otherwise. O(texts)."""
    if isinstance(value, str) or not isinstance(value, tuple | list):
        raise InvalidValue(f"{field} must be several texts, got {shown(value)}", field=field)
    return tuple(check_text(each, field) for each in value)


def _mapping(value: object, field: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{field} must be a mapping, got {shown(value)}", field=field)
    return value


def is_uuid(value: object) -> bool:
    """True for a text that is a uuid, however it is written (braces, hyphens, ``urn:uuid:``). O(1)."""
    if not isinstance(value, str):
        return False
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True
