"""What follows from the records of tenants, so that no command searches through all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Final, Protocol

from sortedcontainers import SortedList

from .bounds import LIMITS_SET, PROJECTS, ROLES_GIVEN, TOKENS, USERS
from .commands import ROLES
from .records import Project, Token, User

_NONE: Final[Mapping[str, None]] = {}
_NO_RANKS: Final[Mapping[str, int]] = {}


class Records(Protocol):
    """The records of ``Tenants``, and where their scopes are."""

    projects: dict[str, Project]
    users: dict[str, User]
    tokens: dict[str, Token]
    limits: dict[str, dict[str, int]]

    def above(self, scope: str) -> Iterable[str]:
        """The scope and its enclosing scopes."""

    def domain_of_scope(self, scope: str) -> str | None:
        """Domain of a domain or project."""


class TenantIndex:
    """Derived from ``Tenants``, which keeps it up to date; no snapshot holds it."""

    def __init__(self, tenants: Records) -> None:
        """O(tenants)."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """How many of a kind (``bounds.MOST``) a domain has, and how many projects are below a project."""
        self._users: dict[str, str] = {}
        self._below: dict[str, dict[str, None]] = {}
        self.holders: dict[str, dict[str, int]] = {}
        """By scope, users with roles in exactly this scope, with the rank of the highest."""
        self._tokens: dict[str, dict[str, None]] = {}
        self._expiries = SortedList[tuple[float, str]]()
        for name, project in tenants.projects.items():
            self.project(tenants, name, project)
        for name, user in tenants.users.items():
            self.user(name, user)
        for name, token in tenants.tokens.items():
            self.token(name, token, tenants.users)
        for scope, limits in tenants.limits.items():
            self.limits(tenants.domain_of_scope(scope), len(limits))

    def _count(self, scope: str, kind: str, by: int) -> None:
        self.counts[scope, kind] += by
        if not self.counts[scope, kind]:
            del self.counts[scope, kind]

    # projects

    def project(self, tenants: Records, name: str, project: Project, sign: int = 1) -> None:
        """A project is there, or (-1) is to go. O(depth)."""
        if project.parent is None:
            self._count(f"domain:{project.domain}", PROJECTS, sign)
            return
        for scope in tenants.above(f"project:{project.parent}"):
            if scope != "cloud":
                self._count(scope, PROJECTS, sign)
        _put(self._below, project.parent, name, sign)

    def below(self, project: str) -> Iterable[str]:
        """Projects whose parent this one is."""
        return self._below.get(project, _NONE)

    def limits(self, domain: str | None, more: int) -> None:
        """A scope of a domain has so many more limits."""
        if domain is not None:
            self._count(f"domain:{domain}", LIMITS_SET, more)

    # users

    def user(self, name: str, user: User, sign: int = 1) -> None:
        """A user is there, or (-1) is to go, with all roles. O(roles)."""
        self._count(f"domain:{user.domain}", USERS, sign)
        for identity in user.identities:
            if sign > 0:
                self._users[identity] = name
            else:
                self._users.pop(identity, None)
        for role, scope in user.roles:
            self._count(f"domain:{user.domain}", ROLES_GIVEN, sign)
            if sign < 0:
                self._hold(name, scope, -1)
            else:
                self._hold(name, scope, max(ROLES.index(role), self.holders.get(scope, _NO_RANKS).get(name, -1)))

    def role(self, name: str, user: User, scope: str, more: int) -> None:
        """A user has ``more`` roles in a scope than before. O(roles)."""
        self._count(f"domain:{user.domain}", ROLES_GIVEN, more)
        self._hold(name, scope, max((ROLES.index(role) for role, where in user.roles if where == scope), default=-1))

    def _hold(self, name: str, scope: str, rank: int) -> None:
        if rank >= 0:
            self.holders.setdefault(scope, {})[name] = rank
            return
        holders = self.holders.get(scope, {})
        holders.pop(name, None)
        if not holders:
            self.holders.pop(scope, None)

    def users_of(self, identities: Iterable[str]) -> set[str]:
        """Users with one of these certificate names."""
        return {self._users[each] for each in identities if each in self._users}

    # tokens

    def token(self, name: str, token: Token, users: Mapping[str, User], sign: int = 1) -> None:
        """A token is there, or (-1) is to go. O(log tokens)."""
        _put(self._tokens, token.user, name, sign)
        if sign > 0:
            self._expiries.add((token.expires, name))
        else:
            self._expiries.remove((token.expires, name))
        if (user := users.get(token.user)) is not None:
            self._count(f"domain:{user.domain}", TOKENS, sign)

    def tokens(self, user: str) -> list[str]:
        """Ids of a user's tokens, also of those that have expired since a token was made last."""
        return list(self._tokens.get(user, _NONE))

    def tokens_at(self, user: str, now: float) -> int:
        """Tokens of a user that have not expired at ``now``. O(1), and the tokens of all users that have expired since
        one was made last."""
        mine = self._tokens.get(user, _NONE)
        return len(mine) - sum(name in mine for name in self._until(now))

    def expired(self, now: float) -> list[str]:
        """Ids of all tokens that have expired at ``now``."""
        return list(self._until(now))

    def _until(self, now: float) -> Iterable[str]:
        return (name for _, name in takewhile(lambda each: each[0] <= now, self._expiries))


def _put(lists: dict[str, dict[str, None]], key: str, name: str, sign: int) -> None:
    """Add a name to one of several lists, or (-1) take it out."""
    if sign > 0:
        lists.setdefault(key, {})[name] = None
        return
    names = lists.get(key, {})
    names.pop(name, None)
    if not names:
        lists.pop(key, None)
