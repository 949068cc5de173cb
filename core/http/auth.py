"""Authentication of requests by token. Every method except ``none`` answers 401 to a request without one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from .config import PlacementConfig, StaticToken
from .errors import unauthorized
from .identity import Identity


class Authenticator(Protocol):
    """A method of authenticating a request."""

    async def identify(self, headers: Mapping[str, str], now: float) -> Identity:
        """The sender, if its token has not expired by ``now``. Raises HttpError: 401, or 503 where that cannot be found
        out."""

    async def aclose(self) -> None:
        """Give back what the way holds."""


class TrustedHeaders:
    """Trusts the headers of the client (``noauth2``): for tests, and behind a proxy that authenticates.

    The token is ``user`` or ``user:project``, with X-Project-Id another project; roles come in X-Roles, or are
    ``admin`` for the user of that name.
    """

    async def identify(self, headers: Mapping[str, str], now: float) -> Identity:
        token = headers.get("x-auth-token")
        if token is None:
            raise unauthorized()
        user, _, project = token.partition(":")
        if "x-roles" in headers:
            roles = frozenset(role.strip() for role in headers["x-roles"].split(",")) - {""}
        else:
            roles = frozenset({"admin"} if user == "admin" else ())
        system = bool(headers.get("openstack-system-scope"))
        scope = headers.get("x-project-id") or project or user
        return Identity(user, None if system else scope, roles, system)

    async def aclose(self) -> None:
        """Holds nothing."""


class StaticTokens:
    """Tokens that the configuration names, by their hashes."""

    def __init__(self, tokens: tuple[StaticToken, ...]) -> None:
        self._known = {
            token.sha256: (
                Identity(token.user, token.project, frozenset(token.roles), token.project is None),
                token.expires,
            )
            for token in tokens
        }

    async def identify(self, headers: Mapping[str, str], now: float) -> Identity:
        token = headers.get("x-auth-token")
        if token is None:
            raise unauthorized()
        digest = hashlib.sha256(token.encode("latin-1", "replace")).hexdigest()
        identity, expires = self._known.get(digest, (None, None))
        if identity is None or (expires is not None and expires <= now):
            raise unauthorized()
        return identity

    async def aclose(self) -> None:
        """Holds nothing."""


def authenticator(config: PlacementConfig) -> Authenticator | None:
    """The configured method; None if every request is allowed everything."""
    if config.auth == "noauth2":
        return TrustedHeaders()
    if config.auth == "static":
        return StaticTokens(config.tokens)
    if config.auth == "keystone":
        from .keystone import KeystoneTokens  # brings an HTTP client along

        return KeystoneTokens(config.keystone)
    return None
