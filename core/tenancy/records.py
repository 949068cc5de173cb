"""What is kept of projects, domains, users and tokens."""

from __future__ import annotations

from typing import Final

import msgspec

EARLY_SECONDS: Final = 300.0
"""Seconds before its creation from which on a token is good, for clocks that differ."""


class Project(msgspec.Struct):
    """A project: its domain, and the project above it, if any."""

    domain: str
    parent: str | None = None


class Domain(msgspec.Struct):
    """A domain: the suffixes within which its admins may give certificate names."""

    identity_suffixes: tuple[str, ...] = ()


class User(msgspec.Struct):
    """A user: home domain, certificate names, and (role, scope) pairs. ``serial`` tells users apart who had the same id
    one after the other; 0 for those made under the first rules."""

    domain: str
    identities: tuple[str, ...] = ()
    roles: list[tuple[str, str]] = []
    serial: int = 0


class Token(msgspec.Struct):
    """A stored token, without its secret."""

    user: str
    digest: bytes
    expires: float
    created: float = 0.0
    """When it was made; 0.0 if not known."""

    def good_at(self, now: float) -> bool:
        """True from its creation (less EARLY_SECONDS, for clocks that differ) to its end: one that was made while the
        clock was far ahead is not good before that time comes."""
        return self.created - EARLY_SECONDS <= now < self.expires
