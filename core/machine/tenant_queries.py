"""Queries about tenants: usage and limits, domains, projects, users, tokens and pools, with their answers."""

from __future__ import annotations

import msgspec

from ...placement.types.errors import InvalidValue
from ..tenancy.rights import may_see_tokens, unseen
from ..tenancy.tenants import CLOUD
from .question import Query
from .state import ServiceState


class ShowUsage(Query, frozen=True):
    """Usage of a domain or project, including its descendants, and its limits. For its readers."""

    scope: str


class Domains(Query, frozen=True):
    """All domains. For readers of the cloud."""


class Projects(Query, frozen=True):
    """Projects of a domain, of all without one. For readers of the domain or the cloud."""

    domain: str | None = None


class Users(Query, frozen=True):
    """Users of a domain, of all without one, with their roles. For admins of the domain or the cloud."""

    domain: str | None = None


class Tokens(Query, frozen=True):
    """Tokens of a user, without their secrets. For the user, and admins of the user's domain."""

    user: str


class ListPools(Query, frozen=True):
    """All resource pools. For readers of the cloud."""


class UsageAndLimits(msgspec.Struct, frozen=True):
    """Amounts by resource class and ``instances``."""

    used: dict[str, int]
    limits: dict[str, int]


class ProjectLine(msgspec.Struct, frozen=True):
    """A project."""

    id: str
    domain: str
    parent: str | None


class UserLine(msgspec.Struct, frozen=True):
    """A user with (role, scope) pairs."""

    id: str
    domain: str
    identities: list[str]
    roles: list[tuple[str, str]]


class TokenLine(msgspec.Struct, frozen=True):
    """A token; ``expires`` in seconds since the epoch."""

    id: str
    user: str
    expires: float


class PoolLine(msgspec.Struct, frozen=True):
    """A resource pool."""

    id: str
    exclusive: bool
    scopes: list[str]
    hosts: list[str]


def usage(state: ServiceState, user: str, query: ShowUsage) -> UsageAndLimits:
    scope, tenants = query.scope, state.tenants
    kind, _, name = scope.partition(":")
    if kind not in ("domain", "project") or not name:
        raise InvalidValue(f"{scope[:100]!r} is not a scope", field="scope", hint="use domain:ID or project:ID")
    tenants.require(user, "reader", scope)
    if kind == "domain":  # guests may belong to a project that was never created
        tenants.check_scope(scope)
    return UsageAndLimits(state.usage.of(scope) | tenants.counted(scope), dict(tenants.limits.get(scope, {})))


def domains(state: ServiceState, user: str, query: Domains) -> list[str]:
    return list(state.tenants.domains)


def projects(state: ServiceState, user: str, query: Projects) -> list[ProjectLine]:
    state.tenants.require(user, "reader", f"domain:{query.domain}" if query.domain is not None else CLOUD)
    return [
        ProjectLine(name, each.domain, each.parent)
        for name, each in state.tenants.projects.items()
        if query.domain in (None, each.domain)
    ]


def users(state: ServiceState, user: str, query: Users) -> list[UserLine]:
    if query.domain is None:
        state.tenants.require(user, "cloud_admin", CLOUD)
    else:
        state.tenants.require(user, "domain_admin", f"domain:{query.domain}")
    return [
        UserLine(name, each.domain, list(each.identities), list(each.roles))
        for name, each in state.tenants.users.items()
        if query.domain in (None, each.domain)
    ]


def tokens(state: ServiceState, user: str, query: Tokens) -> list[TokenLine]:
    tenants = state.tenants
    if not may_see_tokens(tenants, user, query.user):
        raise unseen(user, query.user, "user")
    return [TokenLine(name, query.user, tenants.tokens[name].expires) for name in tenants.tokens_of(query.user)]


def pools(state: ServiceState, user: str, query: ListPools) -> list[PoolLine]:
    pools = state.pools
    return [
        PoolLine(name, pool.exclusive, list(pool.scopes), pools.hosts(state.fleet, name))
        for name, pool in pools.pools.items()
    ]
