"""The matrix once more over the wire: methods about the session and the service, and strangers at every method."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hostler.core.backends.values import Can, ConsoleAddress, Facts
from hostler.core.cluster_status import MemberLine
from hostler.core.machine.lives import GuestLife
from hostler.core.machine.region_queries import RegionLine
from hostler.core.machine.region_summary import RegionSummary
from hostler.core.reconcile.backend import BackendConfig
from hostler.core.reconcile.reconciler import Reconciler
from hostler.core.rpc.client import Client, open_client
from hostler.core.rpc.methods import METHODS
from hostler.core.shadow.shadowing import Shadowing
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed, NotAuthenticated
from tests.core.orders import uuid_of
from tests.rpc.serving import Served, serving

from ..patience import HANG_SECONDS
from .test_access import CLOUD, CLOUD_READERS, FOREIGN, MEMBERS, OF_THE_CLOUD, OWN, READERS, SCOPED, USERS

EVERYBODY = set(USERS)
KINDS = ["decisions"]
SESSION: dict[tuple[str, str], tuple[dict[str, Any], set[str]]] = {
    ("hello", ""): ({"errors": "map"}, EVERYBODY),
    ("status", ""): ({}, EVERYBODY),
    ("batch", "of nothing"): ({"calls": []}, EVERYBODY),
    ("create_token", "of one's own"): ({}, EVERYBODY),
    ("create_token", "of another"): ({"user": "colleague"}, {"domain_admin", "cloud_admin"}),
    ("create_token", "of a foreigner"): ({"user": "stranger"}, CLOUD),
    ("create_token", "of who is more"): ({"user": "cloud_admin"}, CLOUD),
    ("watch", "what one may see"): ({"kinds": KINDS}, EVERYBODY),
    ("watch", "one's own project"): ({"kinds": KINDS, "project": "own"}, READERS),
    ("watch", "a foreign project"): ({"kinds": KINDS, "project": "other"}, CLOUD_READERS),
    ("watch", "what was, elsewhere"): ({"kinds": KINDS, "project": "other", "after": 0}, CLOUD_READERS),
    ("watch", "a project nobody knows"): ({"kinds": KINDS, "project": "unheard"}, CLOUD_READERS),
    ("watch", "capacity"): ({"kinds": ["capacity"]}, CLOUD_READERS),
    ("watch", "what parents read"): ({"kinds": ["summary"]}, CLOUD_READERS),
    ("unwatch", ""): ({}, EVERYBODY),
    ("snapshot", ""): ({}, CLOUD),
    ("backup", ""): ({"folder": "/nowhere/backup"}, set()),
    ("reconcile_status", ""): ({}, CLOUD_READERS),
    ("shadow_status", ""): ({}, CLOUD_READERS),
    ("check_backend", ""): ({"name": "a"}, CLOUD),
    ("strangers", ""): ({"backend": "a"}, CLOUD_READERS),
    ("console", "of one's own guest"): ({"uuid": uuid_of(1)}, MEMBERS),
    ("console", "of another's guest"): ({"uuid": uuid_of(2)}, CLOUD),
    ("members", ""): ({}, CLOUD_READERS),
    ("lead", ""): ({}, CLOUD),
    ("snapshot_files", ""): ({}, set()),
    ("snapshot_part", ""): ({"sequence": 1, "file": "fleet"}, set()),
    ("regions", ""): ({}, CLOUD_READERS),
    ("region_summary", ""): ({}, CLOUD_READERS),
}
FOR_STRANGERS = {"hello", "status", "batch", "unwatch"}
"""Methods that need no name; what is in a batch needs one all the same."""


class OneOfSeveral:
    """As much of a cluster as the methods about it need."""

    role, term, behind, age = "leader", 1, 0, 0.0
    leader_addresses: tuple[str, ...] = ()

    def is_member(self, token: str) -> bool:
        return False

    async def members(self) -> list[MemberLine]:
        return []

    async def hand_over(self, to: str | None) -> str:
        return "another"


class OfRegions:
    """As much of a parent of regions as the methods about it need."""

    def takes(self, call: object) -> bool:
        return False

    def require_running(self) -> None:
        """It runs."""

    def check_key(self, key: str, fingerprint: bytes) -> None:
        """No call is under way."""

    def lines(self) -> list[RegionLine]:
        return []

    def summary(self) -> RegionSummary:
        return RegionSummary(0)


class Answering:
    """As much of a driver as the calls need."""

    facts = Facts("model", "1", Can.COMPUTE | Can.CONSOLE)

    async def console(self, uuid: str) -> ConsoleAddress:
        return ConsoleAddress(kind="url", address="https://console", node="node-0")

    async def check(self) -> None:
        """It answers."""


def life_of(number: int, project: str) -> GuestLife:
    """A guest that a back end has, as far as the calls need one."""
    return GuestLife(
        uuid=uuid_of(number),
        project_id=project,
        user_id="",
        name="",
        vcpus=1,
        memory_mb=1_024,
        disk_gb=0,
        image="",
        networks=(),
        user_data=None,
        spec=b"",
        server_group=None,
        attempts=1,
        build_seconds=1.0,
        backend="a",
        node="node-0",
    )


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[Served]:
    async with serving(open_to_all=False, journal=folder) as served:
        served.service.reconciler = Reconciler(served.service, {"a": BackendConfig(driver="model")})
        served.service.cluster = OneOfSeveral()  # type: ignore[assignment]  # only what the calls ask for
        served.service.regions = OfRegions()  # type: ignore[assignment]  # only what the calls ask for
        served.service.shadow = Shadowing(served.service, {})
        served.service.reconciler.backends["a"].driver = Answering()  # type: ignore[assignment]  # only these are called
        for number, where in ((1, OWN), (2, FOREIGN)):
            served.service.state.lives.guests[uuid_of(number)] = life_of(number, where["project"])
        setup: list[Any] = []
        for where in (OWN, FOREIGN):
            setup += [
                c.CreateDomain(id=where["domain"]),
                c.CreateProject(id=where["project"], domain=where["domain"]),
                c.CreateUser(id=where["user"], domain=where["domain"]),
            ]
        setup += [c.CreateUser(id=name, domain="home") for name in USERS]
        setup += [
            c.Grant(user="reader", role="reader", scope="project:own"),
            c.Grant(user="member", role="member", scope="project:own"),
            c.Grant(user="project_admin", role="project_admin", scope="project:own"),
            c.Grant(user="domain_admin", role="domain_admin", scope="domain:home"),
            c.Grant(user="cloud_reader", role="reader", scope="cloud"),
            c.Grant(user="cloud_admin", role="cloud_admin", scope="cloud"),
        ]
        await served.do(*setup)
        yield served


def test_the_matrix_has_every_method_about_the_session() -> None:
    assert {name for name, _ in SESSION} == {name for name, method in METHODS.items() if method.kind == "session"}


async def test_each_role_may_what_the_matrix_says(tmp_path: Path) -> None:
    async with world(tmp_path) as served:
        found: dict[tuple[str, str], set[str]] = {each: set() for each in SESSION}
        for user in USERS:
            async with open_client(served.address, token=await served.token(user)) as client:
                for (method, what), (params, _) in SESSION.items():
                    if await allowed(client, method, params):
                        found[method, what].add(user)
    assert found == {each: users for each, (_, users) in SESSION.items()}


async def allowed(client: Client, method: str, params: dict[str, Any]) -> bool:
    try:
        await client.call(method, params)
    except NotAllowed:
        return False
    return True


async def test_a_batch_gives_no_right_that_its_calls_do_not_have(tmp_path: Path) -> None:
    calls: list[tuple[str, Any]] = [("set_policy", {"policy": {}}), ("hosts", {}), ("usage", {"scope": "project:own"})]
    async with world(tmp_path) as served, open_client(served.address, token=await served.token("reader")) as client:
        first, second, third = await client.batch(calls)
    assert isinstance(first, NotAllowed)
    assert isinstance(second, NotAllowed)
    assert third == {"used": {}, "limits": {}}


def example(method: str) -> Any:
    """Parameters of a method that mean something."""
    about_itself = [params for (name, _), (params, _) in SESSION.items() if name == method]
    if about_itself:
        return about_itself[0]
    return SCOPED[method][0](OWN) if method in SCOPED else OF_THE_CLOUD[method][0]


@pytest.mark.parametrize("method", METHODS)
async def test_a_stranger_is_told_to_say_who_he_is(tmp_path: Path, method: str) -> None:
    params = example(method)
    async with serving(open_to_all=False) as served, open_client(served.address, within=HANG_SECONDS) as stranger:
        before = served.service.writer.sequence
        if method in FOR_STRANGERS:
            await stranger.call(method, params)
        else:
            with pytest.raises(NotAuthenticated):
                await stranger.call(method, params)
        assert served.service.writer.sequence == before
