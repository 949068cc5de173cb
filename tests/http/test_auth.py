"""Who may call: tokens, roles, policy rules and files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx
import oslo_policy.opts
import pytest
import trio

from hostler.core.http.auth import StaticTokens
from hostler.core.http.config import Limits, PlacementConfig, PolicyOptions, StaticToken, load_config
from hostler.core.http.hooks.config import HooksConfig
from hostler.core.http.identity import Identity
from hostler.core.http.policy import RULES, Policy
from hostler.core.http.routes import ROUTES
from hostler.core.http.routing import Route
from hostler.core.http.service import HooksOnService, OnService
from hostler.core.service import Service
from hostler.core.writer.writer import open_writer
from hostler.placement.types.errors import InvalidValue

from ..core.orders import machine
from .calling import NOW, Caller

ADMIN = Identity("a", "p", frozenset({"admin"}))
SERVICE = Identity("nova", "service", frozenset({"service"}))
READER = Identity("r", "p", frozenset({"reader"}))
MEMBER = Identity("m", "p", frozenset({"member"}))
SYSTEM_ADMIN = Identity("s", None, frozenset({"admin"}), system=True)

PLAIN = Policy(PolicyOptions())
NEW = Policy(PolicyOptions(enforce_new_defaults=True))


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# rules


@pytest.mark.parametrize("rule", RULES)
def test_who_may_do_what_by_the_new_defaults(rule: str) -> None:
    allowed = [who.user for who in (ADMIN, SERVICE, READER, MEMBER, SYSTEM_ADMIN) if NEW.allows(rule, who, "p")]
    if rule == "placement:reshaper:reshape":
        assert allowed == ["nova"]
    elif rule == "placement:usages":
        assert allowed == ["a", "nova", "r"]
    else:
        assert allowed == ["a", "nova"]


@pytest.mark.parametrize("rule", RULES)
def test_an_admin_may_do_everything_by_the_older_defaults(rule: str) -> None:
    assert PLAIN.allows(rule, ADMIN, "p")
    assert PLAIN.allows(rule, SERVICE, "p")
    assert not PLAIN.allows(rule, MEMBER, "p")


def test_a_reader_sees_the_usages_of_its_own_project_only() -> None:
    assert NEW.allows("placement:usages", READER, "p")
    assert not NEW.allows("placement:usages", READER, "another")
    assert not NEW.allows("placement:usages", READER, None)


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_the_library_s_defaults_decide_nothing(default: bool, new: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in oslo_policy.opts._options:
        if option.name in ("enforce_scope", "enforce_new_defaults"):
            monkeypatch.setattr(option, "default", default)
    policy = Policy(PolicyOptions(enforce_new_defaults=new))
    known = NEW if new else PLAIN
    assert not [rule for rule in RULES if policy.allows(rule, SYSTEM_ADMIN, "p")]
    for who in (ADMIN, SERVICE, READER, MEMBER):
        assert [policy.allows(rule, who, "p") for rule in RULES] == [known.allows(rule, who, "p") for rule in RULES]


def test_policy_files_that_the_configuration_does_not_name_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.d").mkdir()
    for name in ("policy.yaml", "policy.d/own.yaml"):
        (tmp_path / name).write_text('"placement:traits:list": "@"\n')
    assert not Policy(PolicyOptions()).allows("placement:traits:list", MEMBER, "p")


def test_a_policy_file_replaces_rules(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"placement:traits:list": "role:member"\n"admin_or_service_api": "role:boss"\n')
    policy = Policy(PolicyOptions(file=str(file), enforce_new_defaults=True))
    assert policy.allows("placement:traits:list", MEMBER, None)
    assert not policy.allows("placement:traits:list", ADMIN, None)
    assert policy.allows("placement:traits:show", Identity("b", "p", frozenset({"boss"})), None)


@pytest.mark.parametrize(
    "text", ["- a list", '"placement:traits:list": "http://elsewhere/check"', "{", '"a": "rule:b"\n"b": "rule:a"']
)
def test_a_policy_file_that_cannot_work_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(InvalidValue, match=re.escape(str(file))):
        Policy(PolicyOptions(file=str(file)))


def test_a_policy_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue):
        Policy(PolicyOptions(file=str(tmp_path / "none.yaml")))


# the HTTP side


@pytest.mark.parametrize("route", [route for route in ROUTES if route.rule], ids=lambda r: f"{r.method} {r.path}")
def test_every_route_but_the_root_asks_for_a_token_and_a_role(route: Route) -> None:
    call = Caller(PlacementConfig(auth="noauth2"))
    path = re.sub("{[a-z_]+}", "x", route.path)
    body: dict[str, str] | None = {} if route.body else None
    version = f"1.{route.until}"
    assert call(route.method, path, body, version=version).status == 401
    refused = call(route.method, path, body, version=version, headers={"x-auth-token": "somebody"})
    assert refused.status == 403
    assert f"Policy does not allow {route.rule} to be performed." in refused.error["detail"]
    for headers in ({"x-auth-token": "admin"}, {"x-auth-token": "nova:service", "x-roles": "reader,service"}):
        assert call(route.method, path, body, version=version, headers=headers).status not in (401, 403)


def test_the_root_needs_no_token() -> None:
    call = Caller(PlacementConfig(auth="noauth2"))
    assert call("GET", "/").status == call("GET", "").status == 200


def test_with_auth_none_any_token_or_none_will_do() -> None:
    call = Caller()
    assert call("GET", "/traits").status == 200
    assert call("GET", "/traits", headers={"x-auth-token": "notused"}).status == 200


async def test_a_static_token_is_known_by_its_hash() -> None:
    tokens = StaticTokens((StaticToken(sha256=digest("s3cret"), user="nova", project="service", roles=("service",)),))
    identity = await tokens.identify({"x-auth-token": "s3cret"}, NOW)
    assert identity == Identity("nova", "service", frozenset({"service"}))


@pytest.mark.parametrize("token", ["", "s3cre", "S3CRET", digest("s3cret"), "s3cret ", "\u20ac"])
def test_other_tokens_are_refused(token: str) -> None:
    tokens = (StaticToken(sha256=digest("s3cret"), user="nova", project="service"),)
    call = Caller(PlacementConfig(auth="static", tokens=tokens))
    assert call("GET", "/traits", headers={"x-auth-token": token}).status == 401
    assert call("GET", "/traits", headers={"x-auth-token": "s3cret"}).status == 200


def test_a_static_token_expires() -> None:
    for expires, status in ((NOW - 1, 401), (NOW, 401), (NOW + 1, 200)):
        tokens = (StaticToken(sha256=digest("t"), user="u", project="p", expires=expires),)
        call = Caller(PlacementConfig(auth="static", tokens=tokens))
        assert call("GET", "/traits", headers={"x-auth-token": "t"}).status == status


@pytest.mark.parametrize(("reading", "status"), [(NOW, 200), (NOW + 100, 401)])
async def test_tokens_expire_at_every_door_by_the_clock_that_the_service_judges_them_by(
    reading: float, status: int
) -> None:
    tokens = (StaticToken(sha256=digest("t"), user="u", project="p", expires=NOW + 10),)
    made = machine()
    async with open_writer(made) as writer, trio.open_nursery() as nursery:
        service = Service(made, writer, clock=lambda: NOW, expiry_clock=lambda: reading)
        placement = OnService(PlacementConfig(listen="127.0.0.1:0", auth="static", tokens=tokens), service)
        hooks = HooksOnService(HooksConfig(listen="127.0.0.1:0", auth="static", tokens=tokens), service)
        async with httpx.AsyncClient(headers={"x-auth-token": "t"}) as client:
            found = await client.get(f"{await nursery.start(placement.serve)}/resource_providers")
            assert found.status_code == status
            found = await client.get(f"{await nursery.start(hooks.serve)}/ironic/allocations/none")
            assert (found.status_code == 401) is (status == 401)
        await placement.drain()
        await hooks.drain()


def test_a_token_for_the_system_is_out_of_scope() -> None:
    tokens = (StaticToken(sha256=digest("t"), user="u", project=None),)
    config = PlacementConfig(auth="static", tokens=tokens, policy=PolicyOptions(enforce_new_defaults=True))
    assert Caller(config)("GET", "/traits", headers={"x-auth-token": "t"}).status == 403


# configuration


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[placement", "hostler.toml: .*document"),
        ("[placement]\nauht = 'none'", "auht"),
        ("[placement]\nauth = 'never'", "Invalid enum value"),
        ("[placement]\nauth = 'static'", "no \\[\\[placement.tokens\\]\\]"),
        ("[placement]\nauth = 'keystone'", "auth_url"),
        ("[placement.keystone]\ntoken_cache_seconds = -1", "token_cache_seconds"),
        ("[placement.keystone]\ntimeout_seconds = 0", "timeout_seconds"),
        ("[placement.limits]\nbody_bytes = 0", "body_bytes"),
        ("[placement.limits]\nbody_bytes = 'much'", "placement.limits.body_bytes"),
        ("[placement]\nprefix = 'x/'", "prefix"),
        ("[[placement.tokens]]\nsha256 = 'short'\nuser = 'u'", "sha256"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "hostler.toml"
    file.write_text(text)
    with pytest.raises(InvalidValue, match=problem):
        load_config(file)


def test_a_configuration_is_read(tmp_path: Path) -> None:
    file = tmp_path / "hostler.toml"
    file.write_text(
        f"[other]\nx = 1\n[placement]\nauth = 'static'\n[[placement.tokens]]\nsha256 = '{digest('t')}'\nuser='u'"
    )
    assert load_config(file).tokens == (StaticToken(sha256=digest("t"), user="u"),)


def test_the_configuration_that_the_documentation_shows_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
    file = tmp_path / "hostler.toml"
    file.write_text(page.partition("```conf\n")[2].partition("```")[0])
    config = load_config(file)
    assert config.limits == Limits()
    assert config.tokens[0].sha256 == digest("TOKEN")
