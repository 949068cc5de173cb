"""Access rights: the role that each command requires, and in which scope.

Guests belong to projects; hosts, providers, aggregates, policies, flavors and pools to the cloud; a scope's users,
projects and limits to the admins of it or of what it lies in. An admin of a scope cannot raise the scope's own limits.

What is refused is told alike for what is not there and for what is not the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol

from ...placement.types.errors import HostlerError, UnknownName
from ...placement.types.request import RequestSpec, ServerGroup
from ..engine_commands import (
    AddServerGroup,
    Asked,
    BeginMove,
    ConfirmHold,
    ConfirmMove,
    Hold,
    Place,
    PlaceMany,
    Release,
    RemoveServerGroup,
    Resize,
    RevertMove,
    Spawned,
)
from ..lifecycle_commands import (
    AttachVolume,
    CreateGuest,
    CreateVolume,
    DeleteGuest,
    DeleteGuestSnapshot,
    DetachVolume,
    ResizeGuest,
    SnapshotGuest,
    StartGuest,
    StopGuest,
)
from ..region_commands import BeginRegionRelease, ClaimInRegion, PlaceAcross
from . import admission
from . import commands as c
from .errors import NotAllowed
from .tenants import CLOUD, RANK, Tenants, is_internal

_HOST: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAILBOX: Final = re.compile(r"[A-Za-z0-9._+-]+")
ADMIN_ROLE: Final = {"cloud": "cloud_admin", "domain": "domain_admin", "project": "project_admin"}


class Need(NamedTuple):
    """A role that a command needs, and where. ``uuid`` is the guest because of which."""

    role: str
    scope: str
    uuid: str = ""


HOSTS_BY_ADMINS: Final = 6
"""The revision of the rules since which only cloud admins name a host in an availability zone, or as the target of a
resize."""
FOR_CLOUD_ADMINS: Final = Need("cloud_admin", CLOUD)
FOR_OTHERS: Final = frozenset(
    (
        *(
            Place,
            PlaceMany,
            PlaceAcross,
            Hold,
            ConfirmHold,
            Release,
            Spawned,
            Resize,
            BeginMove,
            ConfirmMove,
            RevertMove,
        ),
        *(
            ClaimInRegion,
            BeginRegionRelease,
            AddServerGroup,
            RemoveServerGroup,
            CreateVolume,
            AttachVolume,
            DetachVolume,
        ),
        *(CreateGuest, StartGuest, StopGuest, DeleteGuest, ResizeGuest, SnapshotGuest, DeleteGuestSnapshot),
        *(c.CreateProject, c.DeleteProject, c.SetLimits),
        *(c.CreateUser, c.DeleteUser, c.Grant, c.Revoke, c.CreateToken, c.RevokeToken),
    )
)
"""Commands, beside those on storage, that others than cloud admins may give."""


class Facts(Protocol):
    """What has to be known of the state, besides the tenants."""

    def project_of(self, uuid: str) -> str:
        """Project of an instance; UnknownName if there is none."""

    def projects_of(self, uuids: Sequence[str]) -> Sequence[str | None]:
        """The same of each instance; None where there is none."""

    def spec_of(self, asked: Asked) -> RequestSpec:
        """The spec of a request. InvalidValue or UnknownName if it has none."""

    def check_spec_of_tenant(self, asked: Asked) -> None:
        """HostlerError if a spec may come from cloud admins only, or names what its project may not use."""

    def group_project(self, uuid: str) -> str | None:
        """Project of a kept server group; None while it belongs to no one. UnknownName if there is none."""


def project_scope(project: str) -> str:
    """The scope of a project; guests without a project belong to the cloud."""
    return f"project:{project}" if project else CLOUD


def check(tenants: Tenants, user: str, command: Any, facts: Facts, rules: int) -> Sequence[Need]:
    """NotAllowed unless the user may give the command; also where a name is unknown, for those who may not know it.
    Returns what that took. ``rules``: the revision that the command was given under. O(instances named)."""
    if is_internal(user):
        return ()
    found = needs(tenants, user, command, facts, rules)
    for need in found:
        if tenants.role(user, need.scope) < RANK[need.role]:
            raise _refusal(user, command, need)
    match command:
        case BeginMove(target=str()) if rules >= HOSTS_BY_ADMINS and tenants.role(user, CLOUD) < RANK["cloud_admin"]:
            raise admission.refused("target")
        case ResizeGuest(target=str()) if tenants.role(user, CLOUD) < RANK["cloud_admin"]:
            raise admission.refused("target")
    match command:
        case (
            Place(request=request)
            | Hold(request=request)
            | CreateGuest(request=request)
            | ClaimInRegion(request=request)
            | Resize(request=request)
            | ResizeGuest(request=request)
            | BeginMove(kind="resize", request=Asked() as request)
        ):
            _check_requests(tenants, user, (request,), facts, rules)
        case PlaceMany(requests=requests) | PlaceAcross(requests=requests):
            _check_requests(tenants, user, requests, facts, rules)
        case c.Grant() | c.Revoke() if rules:
            _check_grantee(tenants, user, command)
        case c.CreateUser(identities=identities, domain=domain) if rules and identities:
            _check_identities(tenants, user, domain, identities)
    return found


def check_again(tenants: Tenants, user: str, command: Any, found: Iterable[Need]) -> None:
    """NotAllowed unless the user still has the role that a command required when it was executed."""
    for need in found:
        if tenants.role(user, need.scope) < RANK[need.role]:
            raise _refusal(user, command, need)


def needs(tenants: Tenants, user: str, command: Any, facts: Facts, rules: int) -> Sequence[Need]:
    """The roles that a command needs. O(instances named)."""
    match command:
        case (
            Place(request=request)
            | Hold(request=request)
            | CreateGuest(request=request)
            | CreateVolume(request=request)
            | ClaimInRegion(request=request)
        ):
            return (Need("member", project_scope(request.project_id)),)
        case PlaceMany(requests=requests) | PlaceAcross(requests=requests):
            projects = dict.fromkeys(request.project_id for request in requests)
            return [Need("member", project_scope(project)) for project in projects]
        case Release(uuids=uuids) | Spawned(uuids=uuids) | ConfirmHold(uuids=uuids) | BeginRegionRelease(uuids=uuids):
            return _to_touch(uuids, facts)
        case Resize(uuid=uuid) | ConfirmMove(uuid=uuid) | RevertMove(uuid=uuid):
            return _to_touch((uuid,), facts)
        case (
            StartGuest(uuid=uuid)
            | StopGuest(uuid=uuid)
            | DeleteGuest(uuid=uuid)
            | ResizeGuest(uuid=uuid)
            | SnapshotGuest(uuid=uuid)
            | DeleteGuestSnapshot(uuid=uuid)
            | AttachVolume(uuid=uuid)
            | DetachVolume(uuid=uuid)
        ):
            return _to_touch((uuid,), facts)
        case BeginMove(uuid=uuid, kind="resize", request=Asked()):
            return _to_touch((uuid,), facts)
        case c.Grant(role=role, scope=scope) | c.Revoke(role=role, scope=scope):
            # An admin hands on what they have, within what they have.
            return (Need(ADMIN_ROLE[scope.partition(":")[0]], scope), Need(role, scope))
        case c.DeleteUser(id=name):
            more = _all_of(tenants, name) if rules else ()
            return (Need("domain_admin", _home(tenants, name)), *more)
        case AddServerGroup(project_id=project) if project:
            return (Need("member", project_scope(project)),)
        case RemoveServerGroup(uuid=uuid):
            return (_to_remove_group(uuid, facts),)
    return _to_change_tenants(tenants, user, command)


def _to_remove_group(uuid: str, facts: Facts) -> Need:
    try:
        project = facts.group_project(uuid)
    except UnknownName:
        project = ""
    return Need("member", project_scope(project), uuid) if project else FOR_CLOUD_ADMINS


def _to_touch(uuids: Sequence[str], facts: Facts) -> list[Need]:
    first: dict[str | None, str] = {}
    for uuid, project in zip(uuids, facts.projects_of(uuids), strict=True):
        if project not in first:
            first[project] = uuid
    return [
        FOR_CLOUD_ADMINS._replace(uuid=uuid) if project is None else Need("member", project_scope(project), uuid)
        for project, uuid in first.items()
    ]


def _to_change_tenants(tenants: Tenants, user: str, command: Any) -> Sequence[Need]:
    match command:
        case c.CreateProject(adopt=True):
            return (FOR_CLOUD_ADMINS,)
        case c.CreateProject(parent=str(parent)):
            return (Need("project_admin", f"project:{parent}"),)
        case c.CreateProject(domain=str(domain)) | c.CreateUser(domain=domain):
            return (Need("domain_admin", f"domain:{domain}"),)
        case c.DeleteProject(id=name):
            return (_above(tenants, f"project:{name}"),)
        case c.SetLimits(scope=scope):
            return (_above(tenants, scope),)
        case c.CreateToken(user=name):
            return _for_token(tenants, user, name)
        case c.RevokeToken(id=name):
            token = tenants.tokens.get(name)
            return _for_token(tenants, user, token.user if token is not None else "")
    return (FOR_CLOUD_ADMINS,)


def _for_token(tenants: Tenants, user: str, name: str) -> Sequence[Need]:
    """The user's own, or those of users of the same domain with no higher role."""
    if user == name:
        return ()
    return (Need("domain_admin", _home(tenants, name)), *_all_of(tenants, name))


def may_see_tokens(tenants: Tenants, user: str, name: str) -> bool:
    """True for one's own tokens, and those that one could make or revoke."""
    return all(tenants.role(user, need.scope) >= RANK[need.role] for need in _for_token(tenants, user, name))


def _all_of(tenants: Tenants, name: str) -> list[Need]:
    """All that a user may: who decides over them must be allowed as much."""
    known = tenants.users.get(name)
    return [Need(role, scope) for role, scope in known.roles] if known is not None else []


def _home(tenants: Tenants, name: str) -> str:
    known = tenants.users.get(name)
    return f"domain:{known.domain}" if known is not None else CLOUD


def _above(tenants: Tenants, scope: str) -> Need:
    """The admins next above a scope."""
    above = list(tenants.above(scope))
    outer = above[1] if len(above) > 1 else CLOUD
    return Need(ADMIN_ROLE[outer.partition(":")[0]], outer)


# what else may be wrong


def _check_requests(tenants: Tenants, user: str, requests: Iterable[Asked], facts: Facts, rules: int) -> None:
    """Only cloud admins choose the host themselves, as in Nova's default policy, or by what leads to it."""
    if tenants.role(user, CLOUD) >= RANK["cloud_admin"]:
        return
    for request, _ in groupby(requests):  # equal ones are judged once
        if not rules:
            spec = facts.spec_of(request)
            if spec.force_hosts or spec.force_nodes or spec.requested_destination is not None:
                tenants.require(user, "cloud_admin", CLOUD)
            continue
        facts.check_spec_of_tenant(request)
        if rules >= HOSTS_BY_ADMINS and ":" in (facts.spec_of(request).availability_zone or ""):
            raise admission.refused("spec.availability_zone", "a host in spec.availability_zone")
        if request.user_id not in ("", user):
            raise admission.refused("user_id")
        if request.claim:
            raise admission.refused("claim")
        _check_group(tenants, user, request.server_group, facts)
        named = tuple(admission.named_guests(facts.spec_of(request)))
        unread = not_readable(tenants, user, [uuid for _, uuid in named], facts) if named else None
        if unread is not None:
            hint, uuid = named[unread]
            raise no_instance(uuid, f"spec.scheduler_hints.{hint}")


def depends_on_guests(request: Asked, facts: Facts) -> bool:
    """True if whether a tenant may make a request depends on which guests there are."""
    if request.server_group is not None:
        return True
    try:
        return next(admission.named_guests(facts.spec_of(request)), None) is not None
    except HostlerError:
        return False


def check_request_of_reader(
    tenants: Tenants, user: str, request: Asked, facts: Facts, rules: int = HOSTS_BY_ADMINS
) -> None:
    """NotAllowed if a reader of a request's project asks about what members could not place. ``rules``: the revision
    that a command was given under; questions are judged by the newest."""
    if not is_internal(user):
        _check_requests(tenants, user, (request,), facts, rules=max(rules, 1))


def _check_group(tenants: Tenants, user: str, group: ServerGroup | str | None, facts: Facts) -> None:
    if group is None:
        return
    if isinstance(group, ServerGroup):
        raise admission.refused("server_group")
    try:
        project = facts.group_project(group)
    except UnknownName:
        project = ""
    if project is not None and tenants.role(user, project_scope(project)) < RANK["member"]:
        raise _no_group(group, "server_group")


def not_readable(tenants: Tenants, user: str, uuids: Sequence[str], facts: Facts) -> int | None:
    """Position of the first of several guests that a user may not read, or that is not there. O(guests)."""
    may: dict[str | None, bool] = {None: False}
    for position, project in enumerate(facts.projects_of(uuids)):
        if project not in may:
            may[project] = tenants.role(user, project_scope(project or "")) >= RANK["reader"]
        if not may[project]:
            return position
    return None


def _check_grantee(tenants: Tenants, user: str, command: c.Grant | c.Revoke) -> None:
    """UnknownName, alike for users who are not there and those of others: who may be given roles in a scope, or had
    them, are users of its domain and of domains of which one is an admin."""
    if tenants.role(user, CLOUD) >= RANK["cloud_admin"]:
        return
    known = tenants.users.get(command.user)
    if isinstance(command, c.Revoke) and known is not None and (command.role, command.scope) in known.roles:
        return
    domain = tenants.domain_of_scope(command.scope)
    if known is not None and (known.domain == domain or is_admin_of(tenants, user, known.domain)):
        return
    names = (name for name, each in tenants.users.items() if each.domain == domain)
    raise UnknownName.among("user", command.user, names)


def is_admin_of(tenants: Tenants, user: str, domain: str) -> bool:
    """True for admins of a domain or the cloud."""
    return tenants.role(user, f"domain:{domain}") >= RANK["domain_admin"]


def _is_within(identity: str, suffix: str) -> bool:
    """True for the name of a host (.example.org) or a mail address (@example.org) that ends with the suffix."""
    form = _HOST if suffix.startswith(".") else _MAILBOX
    return identity.endswith(suffix) and form.fullmatch(identity.removesuffix(suffix)) is not None


def _check_identities(tenants: Tenants, user: str, domain: str, identities: Iterable[str]) -> None:
    """Names in certificates are the whole service's: those outside the domain's suffixes are for cloud admins."""
    if tenants.role(user, CLOUD) >= RANK["cloud_admin"]:
        return
    suffixes = tenants.identity_suffixes(domain)
    for identity in identities:
        if not any(_is_within(identity, suffix) for suffix in suffixes):
            within = f"those that end with {', '.join(suffixes)}" if suffixes else "none"
            raise NotAllowed(
                f"identity {identity[:200]!r} is for cloud admins to give; admins of the domain may give {within}",
                field="identities",
            )


# refusals


def _refusal(user: str, command: Any, need: Need) -> NotAllowed:
    match command:
        case c.DeleteProject(id=name) | c.DeleteUser(id=name) | c.RevokeToken(id=name):
            return unseen(user, name, "id")
        case c.CreateToken(user=name):
            return unseen(user, name, "user")
        case c.SetLimits(scope=name):
            return unseen(user, name, "scope")
        case RemoveServerGroup(uuid=uuid):
            return _no_group(uuid, "uuid")
    if need.uuid:  # of a guest, whose project is not the caller's to know
        return no_instance(need.uuid, "uuid" if hasattr(command, "uuid") else "uuids")
    return NotAllowed(
        f"user {user} is no {need.role} of {need.scope[:200]}", field="user", hint="ask an admin of that scope"
    )


def unseen(user: str, name: str, field: str) -> NotAllowed:
    """The same error for an object that does not exist and for one of another tenant."""
    text = f"user {user} may not do that to {name[:100]}: it is not there, or for others to decide on"
    return NotAllowed(text, field=field)


def no_instance(uuid: str, field: str = "uuids") -> NotAllowed:
    """The same error for instances of others and for unknown ones."""
    return NotAllowed(f"no instance {uuid[:40]} of a project of yours", field=field)


def _no_group(uuid: str, field: str) -> NotAllowed:
    """Alike for groups of others and for none."""
    return NotAllowed(f"no server group {uuid[:40]} of a project of yours", field=field)
