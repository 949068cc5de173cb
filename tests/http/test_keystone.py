"""Tokens validated by an identity service: its documented answers, and what happens when it fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from hostler.core.http.config import Keystone
from hostler.core.http.errors import HttpError
from hostler.core.http.identity import Identity
from hostler.core.http.keystone import KeystoneTokens

from .calling import NOW

URL = "http://keystone.example/v3/auth/tokens"
CONFIG = Keystone(auth_url="http://keystone.example/v3/", password="s3cret")


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def document(**changes: Any) -> dict[str, Any]:
    """A token as the identity API describes it."""
    token = {
        "methods": ["password"],
        "user": {"id": "u1", "name": "nova", "domain": {"id": "default", "name": "Default"}},
        "audit_ids": ["3T2dc1CGQxyJsHdDu1xkcw"],
        "expires_at": stamp(NOW + 3_600),
        "issued_at": stamp(NOW),
        "roles": [{"id": "r1", "name": "service"}, {"id": "r2", "name": "reader"}],
        "project": {"id": "p1", "name": "service", "domain": {"id": "default", "name": "Default"}},
        "is_domain": False,
    }
    return {"token": token | changes}


class Identities:
    """An identity service: tokens it knows, and what it was asked."""

    def __init__(self, tokens: dict[str, Any]) -> None:
        self.tokens, self.asked, self.logins = tokens, list[str](), 0
        self.late: list[bool] = []
        self.own = "own-0"
        self.down = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("no route")
        assert str(request.url).partition("?")[0] == URL
        if request.method == "POST":
            return self._login(json.loads(request.content))
        if request.headers["x-auth-token"] != self.own:
            return httpx.Response(401)
        subject = request.headers["x-subject-token"]
        self.asked.append(subject)
        self.late.append(request.url.query == b"allow_expired=1")
        if subject not in self.tokens:
            return httpx.Response(
                404, json={"error": {"code": 404, "message": "Could not find token", "title": "Not Found"}}
            )
        found = self.tokens[subject]
        return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

    def _login(self, body: dict[str, Any]) -> httpx.Response:
        user = body["auth"]["identity"]["password"]["user"]
        assert body["auth"]["scope"]["project"] == {"name": "service", "domain": {"name": "Default"}}
        if (user["name"], user["password"], user["domain"]) != ("placement", "s3cret", {"name": "Default"}):
            return httpx.Response(401)
        self.logins += 1
        self.own = f"own-{self.logins}"
        return httpx.Response(201, headers={"x-subject-token": self.own}, json=document())


def asking(service: Identities, config: Keystone = CONFIG) -> KeystoneTokens:
    return KeystoneTokens(config, httpx.AsyncClient(transport=httpx.MockTransport(service)))


async def refused(tokens: KeystoneTokens, headers: dict[str, str], now: float = NOW) -> HttpError:
    with pytest.raises(HttpError) as caught:
        await tokens.identify(headers, now)
    return caught.value


async def test_user_project_and_roles_come_from_the_identity_service() -> None:
    tokens = asking(Identities({"t": document()}))
    identity = await tokens.identify({"x-auth-token": "t"}, NOW)
    assert identity == Identity("u1", "p1", frozenset({"service", "reader"}))


async def test_a_token_for_the_system_has_no_project() -> None:
    found = document(system={"all": True})
    del found["token"]["project"]
    identity = await asking(Identities({"t": found})).identify({"x-auth-token": "t"}, NOW)
    assert (identity.project, identity.system) == (None, True)


async def test_no_token_and_an_unknown_one_get_401_and_are_told_where_to_get_one() -> None:
    tokens = asking(Identities({}))
    for headers in ({}, {"x-auth-token": ""}, {"x-auth-token": "stolen"}, {"x-auth-token": "caf\u00e9"}):
        error = await refused(tokens, headers)
        assert error.status == 401
        assert error.headers == (("www-authenticate", 'Keystone uri="http://keystone.example/v3/"'),)


async def test_a_token_is_asked_about_once_for_as_long_as_its_answer_is_kept() -> None:
    service = Identities({"t": document()})
    tokens = asking(service)
    for now in (NOW, NOW + 299, NOW + 301):
        await tokens.identify({"x-auth-token": "t"}, now)
    assert service.asked == ["t", "t"]
    assert service.logins == 1


async def test_a_reading_of_the_clock_far_ahead_does_not_have_answers_kept_longer() -> None:
    service = Identities({"t": document(expires_at=None)})
    tokens = asking(service)
    await tokens.identify({"x-auth-token": "t"}, NOW + 365 * 86_400)
    del service.tokens["t"]
    assert (await refused(tokens, {"x-auth-token": "t"}, NOW)).status == 401


async def test_that_a_token_is_unknown_is_kept_too() -> None:
    service = Identities({})
    tokens = asking(service)
    for _ in range(3):
        await refused(tokens, {"x-auth-token": "stolen"})
    assert service.asked == ["stolen"]


async def test_a_kept_answer_does_not_outlive_its_token() -> None:
    tokens = asking(Identities({"t": document(expires_at=stamp(NOW + 10))}))
    await tokens.identify({"x-auth-token": "t"}, NOW + 9)
    assert (await refused(tokens, {"x-auth-token": "t"}, NOW + 11)).status == 401


async def test_the_services_own_token_is_renewed_when_it_is_no_longer_accepted() -> None:
    service = Identities({"a": document(), "b": document()})
    tokens = asking(service)
    await tokens.identify({"x-auth-token": "a"}, NOW)
    service.own = "revoked"
    await tokens.identify({"x-auth-token": "b"}, NOW)
    assert service.logins == 2


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(500), httpx.Response(200, text="<html>"), httpx.Response(200, json={"token": {"user": "x"}})],
    ids=["500", "no JSON", "another form"],
)
async def test_an_identity_service_that_is_at_fault_gives_503(answer: httpx.Response) -> None:
    error = await refused(asking(Identities({"t": answer})), {"x-auth-token": "t"})
    assert error.status == 503
    assert ("retry-after", "5") in error.headers


async def test_an_identity_service_that_does_not_answer_gives_503_and_is_asked_again() -> None:
    service = Identities({"t": document()})
    tokens = asking(service)
    service.down = True
    assert (await refused(tokens, {"x-auth-token": "t"})).status == 503
    service.down = False
    assert (await tokens.identify({"x-auth-token": "t"}, NOW)).user == "u1"


async def test_wrong_credentials_of_the_service_give_503() -> None:
    wrong = Keystone(auth_url=CONFIG.auth_url, password="wrong")
    assert (await refused(asking(Identities({"t": document()}), wrong), {"x-auth-token": "t"})).status == 503


async def test_a_revoked_token_is_good_for_as_long_as_its_answer_is_kept() -> None:
    service = Identities({"t": document()})
    tokens = asking(service)
    await tokens.identify({"x-auth-token": "t"}, NOW)
    del service.tokens["t"]
    assert (await tokens.identify({"x-auth-token": "t"}, NOW + 299)).user == "u1"
    assert (await refused(tokens, {"x-auth-token": "t"}, NOW + 300)).status == 401


async def test_without_a_cache_every_token_is_asked_about() -> None:
    service = Identities({"t": document()})
    tokens = asking(service, Keystone(auth_url=CONFIG.auth_url, password="s3cret", token_cache_seconds=0))
    for _ in range(3):
        await tokens.identify({"x-auth-token": "t"}, NOW)
    assert service.asked == ["t"] * 3


async def test_an_expired_token_is_good_while_a_service_vouches_for_it() -> None:
    expired, member = document(expires_at=stamp(NOW - 10)), document(roles=[{"id": "r3", "name": "member"}])
    service = Identities({"old": expired, "service": document(), "member": member})
    tokens = asking(service)
    assert (await refused(tokens, {"x-auth-token": "old"})).status == 401
    assert (await tokens.identify({"x-auth-token": "old", "x-service-token": "service"}, NOW)).user == "u1"
    assert service.late == [False, False, True]
    for vouching in ("member", "stolen", "old"):
        assert (await refused(tokens, {"x-auth-token": "old", "x-service-token": vouching})).status == 401


async def test_an_invalid_service_token_is_refused_beside_a_valid_one() -> None:
    tokens = asking(Identities({"t": document()}))
    assert (await refused(tokens, {"x-auth-token": "t", "x-service-token": "stolen"})).status == 401
