"""Tokens of a real Keystone from PyPI: what clients do with its catalog, its roles, its revocations and its clock."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openstack
import pytest
from keystoneauth1 import session
from keystoneauth1.identity import v3
from openstack.connection import Connection

from ..patience import HANG_SECONDS
from .calling import Process, serving
from .identity_service import PASSWORD, TOKENS_LAST, keystone

pytestmark = pytest.mark.soak

CACHED = 1.0
"""Seconds for which the API believes an answer of Keystone's."""
ACCOUNTS = (
    ("placement", "service", ("service",)),
    ("nova", "service", ("service",)),
    ("boss", "demo", ("admin",)),
    ("viewer", "demo", ("reader",)),
    ("member", "demo", ("member",)),
)


@dataclass
class Cloud:
    """A Keystone and a Placement API that trusts it."""

    identity: str
    placement: Process
    projects: dict[str, str]

    def sdk(self, user: str, project: str) -> Connection:
        return _sdk(self.identity, user, project)

    def session(self, user: str, project: str | None = None, **scope: Any) -> session.Session:
        if project is not None:
            scope |= {"project_name": project, "project_domain_id": "default"}
        password = v3.Password(
            auth_url=self.identity, username=user, password=PASSWORD, user_domain_id="default", **scope
        )
        return session.Session(auth=password)

    def token(self, user: str, project: str | None = None, **scope: Any) -> str:
        token = self.session(user, project, **scope).get_token()
        assert token is not None
        return token

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Call the API with headers as they are, underscores for dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["openstack-api-version"] = "placement 1.39"
        return httpx.get(self.placement.url + path, headers=sent, timeout=HANG_SECONDS)


def _sdk(identity: str, user: str, project: str) -> Connection:
    return openstack.connect(
        auth_url=identity,
        username=user,
        password=PASSWORD,
        project_name=project,
        user_domain_id="default",
        project_domain_id="default",
        region_name="here",
        placement_default_microversion="1.39",
    )


def _accounts(admin: Connection) -> dict[str, str]:
    """Make the projects and users; projects by name."""
    identity: Any = admin.identity  # of version 3, which the types leave open
    projects: dict[str, str] = {}
    for name, project, roles in ACCOUNTS:
        if project not in projects:
            projects[project] = identity.create_project(name=project, domain_id="default").id
        user = identity.create_user(name=name, password=PASSWORD, domain_id="default")
        for role in roles:
            found = identity.find_role(role) or identity.create_role(name=role)
            identity.assign_project_role_to_user(projects[project], user, found)
    return projects


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("keystone")
    with keystone(folder) as identity:
        admin = _sdk(identity, "admin", "admin")
        projects = _accounts(admin)
        catalog: Any = admin.identity
        with _placement(folder / "hostler.toml", identity) as process:
            service = catalog.create_service(type="placement", name="placement")
            catalog.create_endpoint(service_id=service.id, interface="public", url=process.url, region_id="here")
            yield Cloud(identity, process, projects)


def _placement(file: Path, identity: str) -> Any:
    file.write_text(
        f"[placement]\nauth = 'keystone'\n[placement.policy]\nenforce_new_defaults = true\n[placement.keystone]\n"
        f"auth_url = '{identity}'\npassword = '{PASSWORD}'\ntoken_cache_seconds = {CACHED}\n"
    )
    return serving("--config", str(file))


def test_openstacksdk_finds_the_api_in_the_catalog_and_works_with_it(cloud: Cloud) -> None:
    placement = cloud.sdk("nova", "service").placement
    provider = placement.create_resource_provider(name="node-1")
    assert placement.create_resource_provider_inventory(provider, "VCPU", total=8).total == 8
    assert [one.name for one in placement.resource_providers(name="node-1")] == ["node-1"]
    placement.delete_resource_provider(provider)


def test_keystoneauth_takes_the_microversions_from_the_root(cloud: Cloud) -> None:
    nova = cloud.session("nova", "service")
    data = nova.get_endpoint_data(service_type="placement", region_name="here")
    assert data is not None
    assert (data.min_microversion, data.max_microversion) == ((1, 0), (1, 39))
    answer = nova.get("/traits", endpoint_filter={"service_type": "placement"}, microversion="1.39")
    assert (answer.status_code, answer.headers["openstack-api-version"]) == (200, "placement 1.39")


@pytest.mark.parametrize("token", ["", "stolen", "gAAAAABrA3K4", "caf\u00e9"])
def test_what_is_no_token_gets_401_and_where_to_get_one(cloud: Cloud, token: str) -> None:
    answer = httpx.get(cloud.placement.url + "/traits", headers={b"x-auth-token": token.encode("latin-1")})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, f'Keystone uri="{cloud.identity}"')
    assert cloud.get("/").status_code == 200


def test_roles_decide(cloud: Cloud) -> None:
    for user, project, status in (
        ("nova", "service", 200),
        ("boss", "demo", 200),
        ("viewer", "demo", 403),
        ("member", "demo", 403),
    ):
        assert cloud.get("/resource_providers", x_auth_token=cloud.token(user, project)).status_code == status
    body = {
        "inventories": {str(uuid.uuid4()): {"inventories": {}, "resource_provider_generation": 0}},
        "allocations": {},
    }
    for user, project, status in (("nova", "service", 400), ("boss", "demo", 403)):
        headers = {"x-auth-token": cloud.token(user, project), "openstack-api-version": "placement 1.39"}
        assert httpx.post(cloud.placement.url + "/reshaper", json=body, headers=headers).status_code == status


def test_a_reader_sees_the_usages_of_its_own_project(cloud: Cloud) -> None:
    token = cloud.token("viewer", "demo")
    for project, status in (("demo", 200), ("service", 403)):
        path = f"/usages?project_id={cloud.projects[project]}"
        assert cloud.get(path, x_auth_token=token).status_code == status


def test_a_token_without_a_project_is_refused(cloud: Cloud) -> None:
    assert cloud.get("/resource_providers", x_auth_token=cloud.token("boss", unscoped=True)).status_code == 403
    assert cloud.get("/resource_providers", x_auth_token=cloud.token("admin", system_scope="all")).status_code == 403


def test_a_revoked_token_is_refused_when_the_kept_answer_is_old(cloud: Cloud) -> None:
    token = cloud.token("nova", "service")
    assert cloud.get("/traits", x_auth_token=token).status_code == 200
    gone = httpx.delete(f"{cloud.identity}/auth/tokens", headers={"x-auth-token": token, "x-subject-token": token})
    assert gone.status_code == 204
    time.sleep(CACHED + 0.1)
    assert cloud.get("/traits", x_auth_token=token).status_code == 401


def test_an_expired_token_is_refused_but_for_a_service_that_vouches_for_it(cloud: Cloud) -> None:
    token = cloud.token("boss", "demo")
    assert cloud.get("/traits", x_auth_token=token).status_code == 200
    time.sleep(TOKENS_LAST + 1)  # the token that the API itself got is no longer good, either
    assert cloud.get("/traits", x_auth_token=token).status_code == 401
    service, another = cloud.token("nova", "service"), cloud.token("member", "demo")
    assert cloud.get("/traits", x_auth_token=token, x_service_token=service).status_code == 200
    for vouching in (another, "stolen", token):
        assert cloud.get("/traits", x_auth_token=token, x_service_token=vouching).status_code == 401


def test_without_keystone_the_api_answers_503_but_for_its_root(tmp_path: Path) -> None:
    with _placement(tmp_path / "hostler.toml", "http://127.0.0.1:9/v3") as process:
        answer = httpx.get(f"{process.url}/traits", headers={"x-auth-token": "t"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"{process.url}/").status_code == 200
