"""Tokens validated by an OpenStack identity service, by the contract that keystonemiddleware documents.

The service obtains its own token with its password (POST /auth/tokens), validates a user's token at the identity
service (GET /auth/tokens), and caches the result. An expired user token is accepted if a service that acts for the user
presents a valid token of its own (X-Service-Token).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import httpx
import msgspec
import trio

from .config import Keystone
from .errors import HttpError, unauthorized
from .identity import NOBODY, Identity

MOST_CACHED: Final = 10_000


class _Named(msgspec.Struct):
    id: str = ""
    name: str = ""


class _User(msgspec.Struct):
    id: str


class _Token(msgspec.Struct):
    user: _User
    expires_at: str | None = None
    roles: list[_Named] = []
    project: _Named | None = None
    domain: _Named | None = None
    system: dict[str, Any] | None = None


class _Document(msgspec.Struct):
    token: _Token


class KeystoneTokens:
    """Validates tokens at the identity service, once per token and ``token_cache_seconds``."""

    def __init__(self, config: Keystone, client: httpx.AsyncClient | None = None) -> None:
        self._config = config
        self._client = client or httpx.AsyncClient(timeout=config.timeout_seconds)
        self._url = config.auth_url.rstrip("/") + "/auth/tokens"
        self._challenge = f'Keystone uri="{config.www_authenticate_uri or config.auth_url}"'
        self._cache: OrderedDict[tuple[str, bool], tuple[Identity | None, float, float]] = OrderedDict()
        """What a token, vouched for or not, is good for, and from when until when that may be believed."""
        self._own_token: str | None = None
        self._own_lock = trio.Lock()

    async def identify(self, headers: Mapping[str, str], now: float) -> Identity:
        """401 for a token that the service does not know, 503 where the service does not answer."""
        token = headers.get("x-auth-token", "")
        if not token:
            raise unauthorized(self._challenge)
        vouching = headers.get("x-service-token", "")
        service = await self._known(vouching, now) if vouching else NOBODY
        if service is None:
            raise unauthorized(self._challenge)
        vouched = not service.roles.isdisjoint(self._config.service_token_roles)
        identity = await self._known(token, now, vouched=vouched)
        if identity is None:
            raise unauthorized(self._challenge)
        return identity

    async def aclose(self) -> None:
        """Close the connections to the identity service."""
        await self._client.aclose()

    async def _known(self, token: str, now: float, *, vouched: bool = False) -> Identity | None:
        """The identity of the token, or None. ``vouched``: accept an expired token."""
        identity, since, until = self._cache.get((token, vouched), (None, 0.0, -1.0))
        if not since <= now < until:  # a clock that was put back does not lengthen it
            identity, until = await self._validate(token, vouched, now)
            self._cache[token, vouched] = identity, now, until
            self._cache.move_to_end((token, vouched))
            if len(self._cache) > MOST_CACHED:
                self._cache.popitem(last=False)
        return identity

    async def _validate(self, token: str, vouched: bool, now: float) -> tuple[Identity | None, float]:
        """The identity of the token (or None), and until when it is valid."""
        until = now + self._config.token_cache_seconds
        answer = await self._ask(token, vouched)
        if answer.status_code in (401, 404):
            return None, until
        try:
            found = msgspec.json.decode(answer.content, type=_Document).token
            expires = datetime.fromisoformat(found.expires_at).timestamp() if found.expires_at else until
        except (msgspec.DecodeError, ValueError) as error:
            raise _unavailable("sent an answer that is not understood") from error
        if vouched:
            expires = until
        elif expires <= now:
            return None, until
        roles = frozenset(role.name for role in found.roles)
        system = bool(found.system and found.system.get("all"))
        project = found.project.id if found.project else None
        domain = found.domain.id if found.domain else None
        return Identity(found.user.id, project, roles, system, domain), min(until, expires)

    async def _ask(self, token: str, vouched: bool) -> httpx.Response:
        query = {"allow_expired": "1"} if vouched else None
        for renewed in (False, True):
            own = await self._service_token(renew=renewed)
            shown = {"x-auth-token": own, "x-subject-token": token.encode("latin-1")}
            answer = await self._send("GET", headers=shown, params=query)
            if answer.status_code in (200, 203, 404):
                return answer
            if answer.status_code != 401:
                raise _unavailable(f"answered {answer.status_code}")
        return answer

    async def _service_token(self, *, renew: bool) -> str:
        async with self._own_lock:
            if self._own_token is None or renew:
                self._own_token = None
                answer = await self._send("POST", json=self._credentials())
                if answer.status_code != 201 or "x-subject-token" not in answer.headers:
                    raise _unavailable(f"answered {answer.status_code} to the service's own credentials")
                self._own_token = answer.headers["x-subject-token"]
            return self._own_token

    def _credentials(self) -> dict[str, Any]:
        config = self._config
        user = {
            "name": config.username,
            "password": config.password,
            "domain": {"name": config.user_domain_name},
        }
        project = {"name": config.project_name, "domain": {"name": config.project_domain_name}}
        identity = {"methods": ["password"], "password": {"user": user}}
        return {"auth": {"identity": identity, "scope": {"project": project}}}

    async def _send(self, method: str, **arguments: Any) -> httpx.Response:
        try:
            return await self._client.request(method, self._url, **arguments)
        except httpx.HTTPError as error:
            raise _unavailable("cannot be reached") from error


def _unavailable(what: str) -> HttpError:
    return HttpError(503, f"The identity service {what}.", headers=[("retry-after", "5")])
