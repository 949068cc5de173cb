"""Who sends a request: what the policy rules judge."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Identity:
    """A user acting in a project, or on the system as a whole."""

    user: str | None = None
    project: str | None = None
    roles: frozenset[str] = frozenset()
    system: bool = False
    domain: str | None = None


NOBODY: Final = Identity()
"""Who sends what needs no identity."""

SENDER: Final[ContextVar[Identity]] = ContextVar("SENDER", default=NOBODY)
"""Who sent the request that the running task answers."""
