"""What projects use, summed up through the projects above them and their domain, against limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .errors import QuotaExceeded
from .tenants import CLOUD, Tenants

INSTANCES: Final = "instances"
SERVER_GROUPS: Final = "server_groups"
MOST_GROUPS: Final = 1_000
"""Server groups kept for one project, where no limit says otherwise."""
MOST: Final = {"volumes": 10_000, "snapshots": 10_000, "backups": 10_000, "groups": 1_000}
"""What of storage is kept for one project, where no limit says otherwise."""

Amounts = Mapping[str, int]


class Usage(msgspec.Struct):
    """Amounts in use by scope, including its descendants, except for the cloud. ``instances`` and ``server_groups`` are
    counted like resource classes."""

    by_scope: dict[str, dict[str, int]] = {}

    def of(self, scope: str) -> dict[str, int]:
        """What a scope uses."""
        return dict(self.by_scope.get(scope, {}))

    def add(self, tenants: Tenants, project: str, amounts: Amounts, sign: int = 1) -> None:
        """Count amounts of a project, or (-1) no longer. O(amounts * depth)."""
        for scope in tenants.above(f"project:{project}"):
            if scope == CLOUD:
                continue
            used = self.by_scope.setdefault(scope, {})
            for name, amount in amounts.items():
                left = used.get(name, 0) + sign * amount
                if left:
                    used[name] = left
                else:
                    used.pop(name, None)
            if not used:
                del self.by_scope[scope]

    def adopt(self, tenants: Tenants, project: str) -> None:
        """Count what was used under the name of a project before there was one in what is above it, too.
        O(amounts * depth)."""
        held = self.by_scope.pop(f"project:{project}", {})
        if held:
            self.add(tenants, project, held)

    def check_groups(self, tenants: Tenants, project: str) -> None:
        """QuotaExceeded if one more server group of a project would be above a limit."""
        self.check(tenants, project, {SERVER_GROUPS: 1})
        if any(SERVER_GROUPS in limits for _, limits in tenants.limits_above(f"project:{project}")):
            return
        if self.by_scope.get(f"project:{project}", {}).get(SERVER_GROUPS, 0) >= MOST_GROUPS:
            problem = f"project:{project} has {MOST_GROUPS} server groups, which is the most without a limit of its own"
            raise QuotaExceeded(problem, field=SERVER_GROUPS, hint="remove some, or have a limit set")

    def check_most(self, tenants: Tenants, project: str, more: Amounts) -> None:
        """QuotaExceeded if a project would have more of something than is kept without a limit. O(amounts)."""
        for name in [each for each in MOST if each in more] if project else ():
            used = self.by_scope.get(f"project:{project}", {}).get(name, 0)
            if used + more[name] > MOST[name]:
                if any(name in limits for _, limits in tenants.limits_above(f"project:{project}")):
                    continue
                problem = f"project:{project} has {used} {name}; {MOST[name]} is the most without a limit of its own"
                raise QuotaExceeded(problem, field=name, hint="remove some, or have a limit set")

    def check(self, tenants: Tenants, project: str, amounts: Amounts) -> None:
        """QuotaExceeded if adding ``amounts`` exceeds a limit of the project or of one of its ancestors."""
        for scope, limits in tenants.limits_above(f"project:{project}"):
            used = self.by_scope.get(scope, {})
            for name, limit in limits.items():
                more = amounts.get(name, 0)
                if more and used.get(name, 0) + more > limit:
                    raise _too_much(project, scope, name, limit, used.get(name, 0), more)


def _too_much(project: str, scope: str, name: str, limit: int, used: int, more: int) -> QuotaExceeded:
    """The error for what a limit forbids. What all projects of a domain, or below another project, use together is not
    for every member to know."""
    problem, hint = f"{scope} may have {limit} {name}, has {used}", "release something, or have the limit raised"
    if scope != f"project:{project}":
        problem = f"a limit above project:{project} leaves too few {name}"
        hint = "an admin above it sees which, and can raise it"
    return QuotaExceeded(f"{problem}, and {more} more are asked for", field=name, hint=hint)


class NoLimits(Usage):
    """Usage that nothing is checked against, nor counted in."""

    def add(self, tenants: Tenants, project: str, amounts: Amounts, sign: int = 1) -> None:
        """No-op."""

    def check_most(self, tenants: Tenants, project: str, more: Amounts) -> None:
        """No-op."""

    def check(self, tenants: Tenants, project: str, amounts: Amounts) -> None:
        """No-op."""
