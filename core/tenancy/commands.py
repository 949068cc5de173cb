"""Commands that change tenancy, as plain, tagged values.

A *scope* is ``cloud``, ``domain:ID`` or ``project:ID``. A *role* is one of ``ROLES``. An id is a text of letters,
digits and ``._-`` that the caller chooses; it does not begin with ``hst_`` as tokens do, so that no token is written
down where an id was meant.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from ...placement.storage.pools.request import VolumeType
from ...placement.types.request import Flavor, Image
from ..engine_commands import Command

_ID: Final = r"^(?!hst_)[A-Za-z0-9._-]{1,64}$"
_SCOPE: Final = r"^(cloud|(domain|project):[A-Za-z0-9._-]{1,64})$"
_SUFFIX: Final = r"^[.@][A-Za-z0-9_-][A-Za-z0-9._-]{0,252}$"
Id = Annotated[str, msgspec.Meta(pattern=_ID)]
Scope = Annotated[str, msgspec.Meta(pattern=_SCOPE)]
Suffix = Annotated[str, msgspec.Meta(pattern=_SUFFIX)]
PATTERNS: Final = {
    _ID: "an id has 1 to 64 letters, digits and ._-, and does not begin with hst_",
    _SCOPE: "a scope is cloud, domain:ID or project:ID",
    _SUFFIX: "a suffix of identities begins with . (names of hosts) or @ (mail addresses), such as .example.org",
}
"""What each pattern means, for errors."""
Role = Literal["cloud_admin", "domain_admin", "project_admin", "member", "reader"]
Limit = Annotated[int, msgspec.Meta(ge=-1, le=2**53)]

ROLES: Final = ("reader", "member", "project_admin", "domain_admin", "cloud_admin")
"""Each may what those before it may."""


class CreateDomain(Command, frozen=True, tag="create_domain"):
    """Make a domain: a customer, with projects and users of its own. ``identity_suffixes``: see
    ``set_identity_suffixes``."""

    id: Id
    identity_suffixes: tuple[Suffix, ...] = ()


class SetIdentitySuffixes(Command, frozen=True, tag="set_identity_suffixes"):
    """Replace the suffixes (.example.org, @example.org) within which admins of a domain may give certificate names to
    its users. Without any, only cloud admins give them."""

    domain: Id
    suffixes: tuple[Suffix, ...]


class DeleteDomain(Command, frozen=True, tag="delete_domain"):
    """Delete a domain without projects and users."""

    id: Id


class CreateProject(Command, frozen=True, tag="create_project"):
    """Make a project in a domain, or below another project, whose domain it then shares. Guests that were placed under
    its name before belong to the cloud: while there are any, only a cloud admin can make it, with ``adopt``, and it
    then owns them and is charged for them."""

    id: Id
    domain: Id | None = None
    parent: Id | None = None
    adopt: bool = False


class DeleteProject(Command, frozen=True, tag="delete_project"):
    """Delete a project that has no instances and no projects below it."""

    id: Id


class CreateUser(Command, frozen=True, tag="create_user"):
    """Make a user of a domain. ``identities`` are the names (common name, or a DNS, URI or mail alternative name) in
    client certificates that stand for the user; domain admins give those within a suffix of their domain."""

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
    """Create a token for a user. ``digest`` is the SHA-256 of its secret, which is not stored; ``expires`` is in
    seconds since the epoch."""

    id: Id
    user: Id
    digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    expires: float


class RevokeToken(Command, frozen=True, tag="revoke_token"):
    """Make a token worthless."""

    id: Id


class SetLimits(Command, frozen=True, tag="set_limits"):
    """Set limits of a domain or project, by resource class, ``instances``, and what else is kept for it (``projects``,
    ``users``, ``volumes``, ...: docs/operation.md); -1 lifts one, others stay."""

    scope: Scope
    limits: dict[str, Limit]


class CreatePool(Command, frozen=True, tag="create_pool"):
    """Create a resource pool of hosts (node names). Only projects with a grant may place on hosts of an exclusive pool;
    a project with grants places only on hosts of its pools."""

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


class CreateFlavor(Command, frozen=True, tag="create_flavor"):
    """Store a flavor under its name. ``projects`` may use it, and their descendants; empty: all projects. Members
    name it in place of a flavor of their own, extra specs included."""

    flavor: Flavor
    projects: tuple[Id, ...] = ()


class DeleteFlavor(Command, frozen=True, tag="delete_flavor"):
    """Delete a flavor. Guests that were placed with it are not changed."""

    name: str


class CreateImage(Command, frozen=True, tag="create_image"):
    """Keep what the scheduler reads of an image (id, disk format, properties) under a name. ``projects`` as for
    flavors."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    image: Image
    projects: tuple[Id, ...] = ()


class DeleteImage(Command, frozen=True, tag="delete_image"):
    """Delete an image. Guests that were placed with it are not changed."""

    name: str


class CreateVolumeType(Command, frozen=True, tag="create_volume_type"):
    """Store a volume type under its name. ``qos_specs`` belong to it. ``projects`` as for flavors. Members name it in
    place of extra specs of their own."""

    volume_type: VolumeType
    qos_specs: dict[str, str] | None = None
    projects: tuple[Id, ...] = ()


class DeleteVolumeType(Command, frozen=True, tag="delete_volume_type"):
    """Delete a volume type that no volume has."""

    name: str


CatalogCommand = CreateFlavor | DeleteFlavor | CreateImage | DeleteImage | CreateVolumeType | DeleteVolumeType
PoolCommand = CreatePool | DeletePool | SetPoolHosts | GrantPool | UngrantPool
TenancyCommand = (
    CreateDomain
    | SetIdentitySuffixes
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
    | CatalogCommand
)
