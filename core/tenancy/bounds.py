"""How much of what admins of domains and projects make is kept.

Limits of a domain or project (``set_limits``) replace the numbers below for ``projects`` and, of domains, for the
others. They belong to commands, not to the configuration, so that a replay refuses the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...placement.types.errors import InvalidValue
from .errors import QuotaExceeded

BOUNDED: Final = 8
"""The revision of the rules (``orders.RULES``) since which these bounds hold."""
PROJECTS: Final = "projects"
USERS: Final = "users"
TOKENS: Final = "tokens"
ROLES_GIVEN: Final = "roles"
LIMITS_SET: Final = "limits"
MOST: Final = {PROJECTS: 10_000, USERS: 10_000, TOKENS: 100_000, ROLES_GIVEN: 100_000, LIMITS_SET: 100_000}
"""Of a domain, where no limit says otherwise: projects, users, these users' tokens and roles, and the limits that it
and its projects have."""
MOST_DEPTH: Final = 16
"""Projects from a domain down to the innermost: rights and usage are looked up through all of them."""
MOST_ROLES: Final = 1_000
"""Roles of one user."""
MOST_IDENTITIES: Final = 100
"""Certificate names of one user."""
MOST_LIMITS: Final = 200
"""Limits of one domain or project."""
LONGEST_LIMIT: Final = 255
"""Characters of the name of what is limited."""


def check_room(scope: str, name: str, used: int, limits: Mapping[str, int], *, told: bool) -> None:
    """QuotaExceeded if a domain, or a project with such a limit, has as much of something as it may have. Not all who
    may make more may know how much there is in the scope: ``told`` says so. O(1)."""
    limit = limits.get(name, MOST[name] if scope.startswith("domain:") else None)
    if limit is None or used < limit:
        return
    if told:
        problem, hint = f"{scope} has {used} {name}, and may have {limit}", "delete some, or have the limit raised"
    else:
        problem, hint = f"there may be no more {name} in the domain, or below a project above", "ask an admin of these"
    raise QuotaExceeded(problem, field=name, hint=hint)


def check_depth(depth: int) -> None:
    """InvalidValue for a project that would be too far below its domain."""
    if depth > MOST_DEPTH:
        raise InvalidValue(
            f"the project would be number {depth} below its domain, at most {MOST_DEPTH}", field="parent"
        )


def check_roles(user: str, count: int) -> None:
    """QuotaExceeded for a user who has MOST_ROLES."""
    if count >= MOST_ROLES:
        raise QuotaExceeded(f"user {user} has {count} roles, which is the most", field="user", hint="revoke some")


def check_identities(count: int) -> None:
    """InvalidValue for a user of too many certificate names."""
    if count > MOST_IDENTITIES:
        raise InvalidValue(f"{count} identities, at most {MOST_IDENTITIES} are taken", field="identities")


def check_limits_named(before: int, named: int) -> None:
    """InvalidValue for a change that names more limits than a scope may have and has. O(1)."""
    if named > MOST_LIMITS + before:
        raise InvalidValue(f"{named} limits, a scope may have {MOST_LIMITS}", field="limits", hint="lift others")


def check_limits(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """InvalidValue for new limits with too long names, or more of them than a scope may have. O(limits)."""
    for name in after.keys() - before.keys():
        if not 1 <= len(name) <= LONGEST_LIMIT:
            raise InvalidValue(f"the name of a limit has 1 to {LONGEST_LIMIT} characters", field="limits")
    if len(after) > max(MOST_LIMITS, len(before)):
        raise InvalidValue(f"{len(after)} limits, a scope may have {MOST_LIMITS}", field="limits", hint="lift others")
