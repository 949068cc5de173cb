"""Who may give which command: the role that each needs, and where.

Guests belong to projects; hosts, providers, aggregates, policies and pools to the cloud; a scope's users, projects and
limits to the admins of it or of what it lies in. An admin of a scope cannot raise the scope's own limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from ...placement.types.errors import UnknownName
from ...placement.types.request import RequestSpec
from ..machine.engine_commands import Asked, Move, Place, PlaceMany, Release, Resize, Spawned
from . import commands as c
from .errors import NotAllowed
from .tenants import CLOUD, RANK, Tenants, is_internal

ADMIN_ROLE: Final = {"cloud": "cloud_admin", "domain": "domain_admin", "project": "project_admin"}

ProjectOf = Callable[[str], str]
"""Project of an instance; UnknownName if there is none."""
SpecOf = Callable[[Asked], RequestSpec]


def project_scope(project: str) -> str:
    """The scope of a project; guests that belong to none are the cloud's."""
    return f"project:{project}" if project else CLOUD


def check(tenants: Tenants, user: str, command: Any, project_of: ProjectOf, spec_of: SpecOf) -> None:
    """NotAllowed unless the user may give the command; also where a name is unknown, for those who may not know it.
    O(instances named)."""
    if is_internal(user):
        return
    match command:
        case Place(request=request):
            _may_place(tenants, user, (request,), spec_of)
        case PlaceMany(requests=requests):
            _may_place(tenants, user, requests, spec_of)
        case Release(uuids=uuids) | Spawned(uuids=uuids):
            _may_touch(tenants, user, uuids, project_of)
        case Resize(uuid=uuid, request=request):
            _may_touch(tenants, user, (uuid,), project_of)
            _may_steer(tenants, user, (request,), spec_of)
        case Move():
            tenants.require(user, "cloud_admin", CLOUD)
        case c.Grant(role=role, scope=scope) | c.Revoke(role=role, scope=scope):
            _may_grant(tenants, user, role, scope)
        case _:
            _may_change_tenants(tenants, user, command)


def _may_place(tenants: Tenants, user: str, requests: Iterable[Asked], spec_of: SpecOf) -> None:
    for project in dict.fromkeys(request.project_id for request in requests):
        tenants.require(user, "member", project_scope(project))
    _may_steer(tenants, user, requests, spec_of)


def _may_steer(tenants: Tenants, user: str, requests: Iterable[Asked], spec_of: SpecOf) -> None:
    """Only cloud admins choose the host themselves, as in Nova's default policy."""
    for request in requests:
        spec = spec_of(request)
        if spec.force_hosts or spec.force_nodes or spec.requested_destination is not None:
            tenants.require(user, "cloud_admin", CLOUD)


def _may_touch(tenants: Tenants, user: str, uuids: Iterable[str], project_of: ProjectOf) -> None:
    for uuid in uuids:
        try:
            scope = project_scope(project_of(uuid))
        except UnknownName:
            if tenants.role(user, CLOUD) < RANK["cloud_admin"]:
                raise _unseen(uuid) from None
            raise
        if tenants.role(user, scope) < RANK["member"]:
            raise _unseen(uuid)


def _unseen(uuid: str) -> NotAllowed:
    """Alike for instances of others and for none."""
    return NotAllowed(f"no instance {uuid[:40]} of a project of yours", field="uuids")


def _may_grant(tenants: Tenants, user: str, role: str, scope: str) -> None:
    """An admin hands on what he has, within what he has."""
    kind = scope.partition(":")[0]
    tenants.require(user, ADMIN_ROLE[kind], scope)
    tenants.require(user, role, scope)


def _may_change_tenants(tenants: Tenants, user: str, command: Any) -> None:
    require = tenants.require
    match command:
        case c.CreateProject(parent=str(parent)):
            require(user, "project_admin", f"project:{parent}")
        case c.CreateProject(domain=str(domain)):
            require(user, "domain_admin", f"domain:{domain}")
        case c.DeleteProject(id=name):
            require(user, *_above(tenants, f"project:{name}"))
        case c.SetLimits(scope=scope):
            require(user, *_above(tenants, scope))
        case c.CreateUser(domain=domain):
            require(user, "domain_admin", f"domain:{domain}")
        case c.DeleteUser(id=name):
            require(user, "domain_admin", _home(tenants, name))
        case c.CreateToken(user=name):
            _may_have_token(tenants, user, name)
        case c.RevokeToken(id=name):
            token = tenants.tokens.get(name)
            _may_have_token(tenants, user, token.user if token is not None else "")
        case _:
            require(user, "cloud_admin", CLOUD)


def _may_have_token(tenants: Tenants, user: str, name: str) -> None:
    """One's own, or those of users of one's domain who are no more than oneself."""
    if user == name:
        return
    tenants.require(user, "domain_admin", _home(tenants, name))
    known = tenants.users.get(name)
    for role, scope in known.roles if known is not None else ():
        tenants.require(user, role, scope)


def _home(tenants: Tenants, name: str) -> str:
    known = tenants.users.get(name)
    return f"domain:{known.domain}" if known is not None else CLOUD


def _above(tenants: Tenants, scope: str) -> tuple[str, str]:
    """(role, scope) of the admins next above a scope."""
    above = list(tenants.above(scope))
    outer = above[1] if len(above) > 1 else CLOUD
    return ADMIN_ROLE[outer.partition(":")[0]], outer
