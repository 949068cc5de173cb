"""Domains, projects, users, roles and tokens: the state, the commands on it, and role assignments. Hosts and guests are
not part of it; usage of projects is in ``usage``, pools are in ``pools``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from ...placement.types.errors import DuplicateName, InUse, InvalidValue, UnknownName
from . import bounds
from .bounds import BOUNDED
from .commands import (
    ROLES,
    CreateDomain,
    CreateProject,
    CreateToken,
    CreateUser,
    DeleteDomain,
    DeleteProject,
    DeleteUser,
    Grant,
    Revoke,
    RevokeToken,
    SetIdentitySuffixes,
    SetLimits,
)
from .errors import NotAllowed, NotAuthenticated
from .index import TenantIndex
from .records import Domain, Project, Token, User

CLOUD: Final = "cloud"
LOCAL: Final = "@local"
RECONCILER: Final = "@reconciler"
"""The daemon itself, and local peers that run as the daemon's user: a built-in cloud admin."""
PLACEMENT: Final = "@placement:"
"""Prefix of the names of Placement API users, which the API has authorized: they are cloud admins."""
RANK: Final = {role: rank for rank, role in enumerate(ROLES)}
ROLES_OF_SCOPE: Final = {
    "cloud": ("cloud_admin", "reader"),
    "domain": ("domain_admin", "reader"),
    "project": ("project_admin", "member", "reader"),
}
TOKEN: Final = re.compile(r"hst_([A-Za-z0-9._-]{1,64})_([A-Za-z0-9-]{43})")
_NOBODY: Final = bytes(32)
_NO_LIMITS: Final[dict[str, int]] = {}


class Tenants(msgspec.Struct, dict=True):
    """All tenants. Every method that changes something raises HostlerError, with nothing changed, if it refuses; only
    tokens that have expired may be forgotten then (``create_token``)."""

    domains: dict[str, Domain | None] = {}
    """None: with defaults, as older snapshots have it."""
    projects: dict[str, Project] = {}
    users: dict[str, User] = {}
    tokens: dict[str, Token] = {}
    limits: dict[str, dict[str, int]] = {}
    """Scope -> resource class or ``instances`` -> limit."""
    users_made: int = 0
    """Serial of the user made last."""

    def __post_init__(self) -> None:
        self._index = TenantIndex(self)

    # scopes and roles

    def above(self, scope: str) -> Iterator[str]:
        """The scope and its enclosing scopes, innermost first; for an unknown project: the project and the cloud."""
        yield scope
        kind, _, name = scope.partition(":")
        if kind == "project":
            project = self.projects.get(name)
            while project is not None:
                if project.parent is None:
                    yield f"domain:{project.domain}"
                    break
                yield f"project:{project.parent}"
                project = self.projects[project.parent]
        if kind != CLOUD:
            yield CLOUD

    def role(self, user: str, scope: str) -> int:
        """Rank of the highest role of a user in a scope or an enclosing one; -1 if none. O(depth)."""
        if is_internal(user):
            return RANK["cloud_admin"]
        found, holders = -1, self._index.holders
        for where in self.above(scope):
            held = holders.get(where)
            if held is not None and (rank := held.get(user, -1)) > found:
                found = rank
        return found

    def require(self, user: str, role: str, scope: str) -> None:
        """NotAllowed unless the user has the role, or one above it, in the scope."""
        if self.role(user, scope) < RANK[role]:
            raise NotAllowed(
                f"user {user} does not have the role {role} in {scope[:200]}",
                field="user",
                hint="ask an admin of that scope",
            )

    def domain_of_scope(self, scope: str) -> str | None:
        """Domain of a domain or project; None for the cloud and what is unknown."""
        kind, _, name = scope.partition(":")
        if kind == "domain":
            return name if name in self.domains else None
        project = self.projects.get(name) if kind == "project" else None
        return project.domain if project is not None else None

    def check_scope(self, scope: str) -> None:
        """UnknownName unless the scope exists."""
        kind, _, name = scope.partition(":")
        if kind == "domain" and name not in self.domains:
            raise UnknownName.among("domain", name, self.domains)
        if kind == "project" and name not in self.projects:
            raise UnknownName.among("project", name, self.projects)

    def limits_above(self, scope: str) -> Iterator[tuple[str, dict[str, int]]]:
        """Scopes with limits that bind a scope, with them."""
        for each in self.above(scope):
            if each in self.limits:
                yield each, self.limits[each]

    # authentication

    def authenticate(self, token: str, now: float) -> tuple[str, str]:
        """(user, token id) of a token's text. NotAuthenticated, without details, if it is invalid. Takes the same time
        whether or not the token exists.
        """
        match = TOKEN.fullmatch(token)
        name, secret = (match[1], match[2]) if match else ("", "")
        known = self.tokens.get(name)
        given = hashlib.sha256(secret.encode()).digest()  # as when it was made
        equal = hmac.compare_digest(given, known.digest if known is not None else _NOBODY)
        if known is None or not equal or not known.good_at(now):
            raise _no_good()
        return known.user, name

    def check_session(self, token: str, now: float) -> None:
        """NotAuthenticated if a previously accepted token is no longer valid."""
        known = self.tokens.get(token)
        if known is None or not known.good_at(now):
            raise _no_good()

    def serial_of(self, user: str) -> int:
        """Serial of a user; -1 if there is none."""
        known = self.users.get(user)
        return known.serial if known is not None else -1

    def user_of_certificate(self, names: tuple[str, ...]) -> str:
        """The user identified by one of a certificate's names. NotAuthenticated if there is none, or several."""
        found = self._index.users_of(names)
        if len(found) != 1:
            raise NotAuthenticated("the client certificate stands for no user", hint="name it in the user's identities")
        return found.pop()

    # bounds

    def check_room(self, scope: str, kind: str, rules: int, *, told: bool = False) -> None:
        """QuotaExceeded if a domain, or project, has as much of a kind (``bounds.MOST``) as it may have; it says how
        much if ``told``. O(1)."""
        if rules >= BOUNDED:
            used, limits = self._index.counts[scope, kind], self.limits.get(scope, _NO_LIMITS)
            bounds.check_room(scope, kind, used, limits, told=told)

    def counted(self, scope: str) -> dict[str, int]:
        """How much a domain or project has of what its limits say and ``bounds.MOST`` names. O(1)."""
        named = self.limits.get(scope, _NO_LIMITS).keys() & bounds.MOST.keys()
        return {kind: count for kind in sorted(named) if (count := self._index.counts[scope, kind])}

    # commands

    def create_domain(self, command: CreateDomain) -> None:
        if command.id in self.domains:
            raise DuplicateName(f"domain {command.id} exists", field="id")
        self.domains[command.id] = Domain(command.identity_suffixes)

    def set_identity_suffixes(self, command: SetIdentitySuffixes) -> None:
        self.check_scope(f"domain:{command.domain}")
        self.domains[command.domain] = Domain(command.suffixes)

    def identity_suffixes(self, domain: str) -> tuple[str, ...]:
        """Suffixes within which admins of a domain may give certificate names; none for an unknown domain."""
        known = self.domains.get(domain)
        return known.identity_suffixes if known is not None else ()

    def delete_domain(self, command: DeleteDomain) -> None:
        self.check_scope(f"domain:{command.id}")
        counts, scope = self._index.counts, f"domain:{command.id}"
        if counts[scope, bounds.PROJECTS] or counts[scope, bounds.USERS]:
            raise InUse(f"domain {command.id} has projects or users", field="id", hint="delete these first")
        self._forget_scope(scope)
        del self.domains[command.id]

    def domain_of(self, command: CreateProject) -> str:
        """Domain of a project that is to be made."""
        if command.parent is None:
            if command.domain is None:
                raise InvalidValue("a project needs a domain or a parent", field="domain")
            self.check_scope(f"domain:{command.domain}")
            return command.domain
        self.check_scope(f"project:{command.parent}")
        domain = self.projects[command.parent].domain
        if command.domain not in (None, domain):
            raise InvalidValue(f"the parent is in domain {domain}, not {command.domain}", field="domain")
        return domain

    def create_project(self, command: CreateProject, rules: int = BOUNDED) -> None:
        domain = self.domain_of(command)
        if command.id in self.projects:
            raise name_taken(command.id)
        outside = f"domain:{domain}" if command.parent is None else f"project:{command.parent}"
        scopes = [scope for scope in self.above(outside) if scope != CLOUD]
        if rules >= BOUNDED:
            bounds.check_depth(len(scopes))
        for scope in scopes:
            self.check_room(scope, bounds.PROJECTS, rules, told=scope == outside)
        project = self.projects[command.id] = Project(domain, command.parent)
        self._index.project(self, command.id, project)

    def delete_project(self, command: DeleteProject) -> None:
        self.check_scope(f"project:{command.id}")
        for below in self._index.below(command.id):
            raise InUse(f"project {command.id} has project {below} below it", field="id")
        self._forget_scope(f"project:{command.id}")
        self._index.project(self, command.id, self.projects[command.id], -1)
        del self.projects[command.id]

    def create_user(self, command: CreateUser, rules: int) -> None:
        self.check_scope(f"domain:{command.domain}")
        if command.id in self.users:
            raise DuplicateName(f"user {command.id} exists", field="id")
        if self._index.users_of(command.identities):
            raise DuplicateName("another user has such an identity", field="identities")
        if rules >= BOUNDED:
            bounds.check_identities(len(command.identities))
        self.check_room(f"domain:{command.domain}", bounds.USERS, rules, told=True)
        if rules:
            self.users_made += 1
        user = User(command.domain, command.identities, serial=self.users_made if rules else 0)
        self.users[command.id] = user
        self._index.user(command.id, user)

    def delete_user(self, command: DeleteUser) -> None:
        user = self._user(command.id, "id")
        for name in self._index.tokens(command.id):
            self._forget_token(name)
        self._index.user(command.id, user, -1)
        del self.users[command.id]

    def grant(self, command: Grant, rules: int = BOUNDED) -> None:
        user = self._user(command.user)
        self.check_scope(command.scope)
        choices = ROLES_OF_SCOPE[command.scope.partition(":")[0]]
        if command.role not in choices:
            problem = f"the role {command.role} does not exist in {command.scope}"
            raise InvalidValue(problem, field="role", hint=f"one of {', '.join(choices)}")
        if (command.role, command.scope) in user.roles:
            return
        if rules >= BOUNDED:
            bounds.check_roles(command.user, len(user.roles))
        self.check_room(f"domain:{user.domain}", bounds.ROLES_GIVEN, rules)
        user.roles.append((command.role, command.scope))
        self._index.role(command.user, user, command.scope, 1)

    def revoke(self, command: Revoke) -> None:
        user = self._user(command.user)
        if (command.role, command.scope) not in user.roles:
            raise UnknownName(
                f"user {command.user} does not have the role {command.role} in {command.scope}", field="role"
            )
        user.roles.remove((command.role, command.scope))
        self._index.role(command.user, user, command.scope, -1)

    def create_token(self, command: CreateToken, now: float, rules: int = BOUNDED) -> None:
        user = self._user(command.user)
        if command.id in self.tokens:
            raise DuplicateName(f"token {command.id} exists", field="id")
        if not now < command.expires < float("inf"):
            raise InvalidValue("a token must expire, and not in the past", field="expires")
        for name in self._index.expired(now):
            self._forget_token(name)
        self.check_room(f"domain:{user.domain}", bounds.TOKENS, rules)
        token = self.tokens[command.id] = Token(command.user, command.digest, command.expires, now)
        self._index.token(command.id, token, self.users)

    def revoke_token(self, command: RevokeToken) -> None:
        if command.id not in self.tokens:
            raise UnknownName(f"no token has the id {command.id}", field="id")
        self._forget_token(command.id)

    def _forget_token(self, name: str) -> None:
        """O(log tokens)."""
        self._index.token(name, self.tokens.pop(name), self.users, -1)

    def tokens_of(self, user: str) -> list[str]:
        """Ids of a user's tokens, in the order in which they were made. O(those)."""
        return self._index.tokens(user)

    def tokens_at(self, user: str, now: float) -> int:
        """Tokens of a user that have not expired at ``now``. O(1), and the tokens that have expired since one was made
        last."""
        return self._index.tokens_at(user, now)

    def set_limits(self, command: SetLimits, rules: int = BOUNDED) -> None:
        self.check_scope(command.scope)
        if command.scope == CLOUD:
            raise InvalidValue("the cloud's limits are its hosts", field="scope", hint="name a domain or project")
        before, domain = self.limits.get(command.scope, _NO_LIMITS), self.domain_of_scope(command.scope)
        if rules >= BOUNDED:
            bounds.check_limits_named(len(before), len(command.limits))
        limits = {**before, **command.limits}
        limits = {name: limit for name, limit in limits.items() if limit >= 0}
        if rules >= BOUNDED:
            bounds.check_limits(before, limits)
        if len(limits) > len(before):
            self.check_room(f"domain:{domain}", bounds.LIMITS_SET, rules)
        self._index.limits(domain, len(limits) - len(before))
        self.limits.pop(command.scope, None)
        if limits:
            self.limits[command.scope] = limits

    def _user(self, name: str, field: str = "user") -> User:
        if name not in self.users:
            raise UnknownName.among("user", name, self.users, field=field)
        return self.users[name]

    def _forget_scope(self, scope: str) -> None:
        """Forget the limits and roles of a scope that is still there. O(roles of those who have some in it)."""
        limits = self.limits.pop(scope, _NO_LIMITS)
        self._index.limits(self.domain_of_scope(scope), -len(limits))
        for name in list(self._index.holders.get(scope, ())):
            user = self.users[name]
            left = [pair for pair in user.roles if pair[1] != scope]
            gone, user.roles = len(user.roles) - len(left), left
            self._index.role(name, user, scope, -gone)


def name_taken(project: str) -> DuplicateName:
    """The same whether there is such a project or guests were placed under its name before."""
    return DuplicateName(f"the name {project} is taken", field="id", hint="choose another; cloud admins see by whom")


def is_internal(user: str) -> bool:
    """True for built-in users, which have all rights; ids of tenants' users cannot have this form."""
    return user in (LOCAL, RECONCILER) or user.startswith(PLACEMENT)


def require_own_user(user: str) -> None:
    """NotAllowed unless it is the service's own user, or the service itself."""
    if user != LOCAL:
        raise NotAllowed(
            "only the service's own user may do that", field="user", hint="use its Unix socket as that user"
        )


def _no_good() -> NotAuthenticated:
    return NotAuthenticated("the token is wrong, expired or revoked", field="token", hint="get a new one")
