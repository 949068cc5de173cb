"""The driver openstack logs in at a real Keystone from PyPI, and finds the services in its catalog. These are a
stand-in, which takes every token that Keystone knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import trio
from keystoneauth1 import session
from keystoneauth1.identity import v3
from openstack.connection import Connection

from hostler.drivers.compute import openstack
from hostler.drivers.protocol import Denied, DriverContext

from ..http.identity_service import PASSWORD, TOKENS_LAST, keystone
from ..patience import HANG_SECONDS
from .json_service import Call, Reply, served
from .openstack_cloud import Cloud

pytestmark = pytest.mark.soak


class Site(NamedTuple):
    """The address of Keystone, and an application credential."""

    identity: str
    key: str
    secret: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    cloud = Cloud()
    with keystone(tmp_path_factory.mktemp("keystone")) as identity:

        def answer(call: Call) -> Reply:
            token = call.headers.get("x-auth-token", "")
            shown = {"X-Auth-Token": token, "X-Subject-Token": token}
            known = httpx.get(f"{identity}/auth/tokens", headers=shown, timeout=HANG_SECONDS).status_code == 200
            cloud.tokens = {token: 1} if known else {}
            return cloud.answer(call)

        with served(answer) as (host, port):
            password = v3.Password(
                auth_url=identity, username="admin", password=PASSWORD, project_name="admin",
                user_domain_id="default", project_domain_id="default",
            )  # fmt: skip
            sdk: Any = Connection(session=session.Session(auth=password)).identity
            for kind, name in cloud.services.items():
                service = sdk.create_service(type=kind, name=name)
                url = f"http://{host}:{port}/{name}"
                sdk.create_endpoint(service_id=service.id, interface="public", url=url, region_id="here")
            made = sdk.create_application_credential(sdk.find_user("admin"), name="hostler")
            yield Site(identity, made.id, made.secret)


def options(site: Site, **more: Any) -> dict[str, Any]:
    return {"auth_url": site.identity, "region": "here", **more}


async def test_a_password_logs_in_and_the_token_is_replaced_when_it_expires(site: Site) -> None:
    account = {"username": "admin", "password": PASSWORD, "project": "admin"}
    async with openstack.open_driver(options(site, **account), DriverContext("bench", "a")) as driver:
        assert [node.name async for page in driver.nodes() for node in page.items] == ["az-1", "az-2"]
        await trio.sleep(TOKENS_LAST + 2)
        assert len([pool async for page in driver.pools() for pool in page.items]) == 4


async def test_an_application_credential_logs_in(site: Site) -> None:
    account = {"application_credential_id": site.key, "application_credential_secret": site.secret}
    async with openstack.open_driver(options(site, **account), DriverContext("bench", "a")) as driver:
        await driver.check()


@pytest.mark.parametrize("account", [{"password": "wrong"}, {"project": "none"}, {"username": "nobody"}])
async def test_what_keystone_does_not_know_is_denied(site: Site, account: dict[str, str]) -> None:
    known = {"username": "admin", "password": PASSWORD, "project": "admin"}
    with pytest.raises(Denied):
        async with openstack.open_driver(options(site, **{**known, **account}), DriverContext("bench", "a")):
            pass
