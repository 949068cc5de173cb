"""Commands that change tenancy, as plain, tagged values.

A *scope* is ``cloud``, ``domain:ID`` or ``project:ID``. A *role* is one of ``ROLES``. An id is a text of letters,
digits and ``._-`` that the caller chooses; it does not begin with ``hst_`` as tokens do, so that no token is written
down where an id was meant.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from ..machine.engine_commands import Command

Id = Annotated[str, msgspec.Meta(pattern=r"^(?!hst_)[A-Za-z0-9._-]{1,64}$")]
Scope = Annotated[str, msgspec.Meta(pattern=r"^(cloud|(domain|project):[A-Za-z0-9._-]{1,64})$")]
Role = Literal["cloud_admin", "domain_admin", "project_admin", "member", "reader"]
Limit = Annotated[int, msgspec.Meta(ge=-1, le=2**53)]

ROLES: Final = ("reader", "member", "project_admin", "domain_admin", "cloud_admin")
"""Each may what those before it may."""


class CreateDomain(Command, frozen=True, tag="create_domain"):
    """Make a domain: a customer, with projects and users of its own."""

    id: Id


class DeleteDomain(Command, frozen=True, tag="delete_domain"):
    """Delete a domain that has no projects and users any more."""

    id: Id


class CreateProject(Command, frozen=True, tag="create_project"):
    """Make a project in a domain, or below another project, whose domain it then shares."""

    id: Id
    domain: Id | None = None
    parent: Id | None = None


class DeleteProject(Command, frozen=True, tag="delete_project"):
    """Delete a project that has no instances and no projects below it."""

    id: Id


class CreateUser(Command, frozen=True, tag="create_user"):
    """Make a user of a domain. ``identities`` are the names (common name, or a DNS or URI alternative name) in client
    certificates that stand for the user."""

    id: Id
    domain: Id
    identities: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=255)], ...] = ()


class DeleteUser(Command, frozen=True, tag="delete_user"):
    """Delete a user with all roles and tokens."""

    id: Id


class Grant(Command, frozen=True, tag="grant"):
    """Give a user a role in a scope, and so in all below it."""

    user: Id
    role: Role
    scope: Scope


class Revoke(Command, frozen=True, tag="revoke"):
    """Take a role back."""

    user: Id
    role: Role
    scope: Scope


class CreateToken(Command, frozen=True, tag="create_token"):
    """Make a token of a user. ``digest`` is the SHA-256 of its secret, which is kept nowhere; ``expires`` is in seconds
    since the epoch."""

    id: Id
    user: Id
    digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    expires: float


class RevokeToken(Command, frozen=True, tag="revoke_token"):
    """Make a token worthless."""

    id: Id


class SetLimits(Command, frozen=True, tag="set_limits"):
    """Set limits of a domain or project, by resource class and ``instances``; -1 lifts one, others stay."""

    scope: Scope
    limits: dict[str, Limit]


class CreatePool(Command, frozen=True, tag="create_pool"):
    """Make a resource pool of hosts (node names). On an exclusive pool's hosts only those may place whom it is granted
    to; whoever is granted a pool places on hosts of his pools only."""

    id: Id
    hosts: tuple[str, ...] = ()
    exclusive: bool = False


class DeletePool(Command, frozen=True, tag="delete_pool"):
    """Delete a pool; its hosts stay."""

    id: Id


class SetPoolHosts(Command, frozen=True, tag="set_pool_hosts"):
    """Put hosts into a pool, and take hosts out of it."""

    id: Id
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class GrantPool(Command, frozen=True, tag="grant_pool"):
    """Grant a pool to a domain or project."""

    id: Id
    scope: Scope


class UngrantPool(Command, frozen=True, tag="ungrant_pool"):
    """Take a grant of a pool back."""

    id: Id
    scope: Scope


PoolCommand = CreatePool | DeletePool | SetPoolHosts | GrantPool | UngrantPool
TenancyCommand = (
    CreateDomain
    | DeleteDomain
    | CreateProject
    | DeleteProject
    | CreateUser
    | DeleteUser
    | Grant
    | Revoke
    | CreateToken
    | RevokeToken
    | SetLimits
    | PoolCommand
)
