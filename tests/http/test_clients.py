"""The clients that people use: the `openstack` command with osc-placement, openstacksdk, keystoneauth."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import openstack
import pytest
from keystoneauth1 import noauth, session
from keystoneauth1.adapter import Adapter
from keystoneauth1.token_endpoint import Token
from openstackclient.shell import OpenStackShell

from ..patience import HANG_SECONDS
from .calling import Process, serving

OPENSTACK = Path(sys.executable).with_name("openstack")


@pytest.fixture(scope="module")
def service() -> Iterator[Process]:
    with serving() as process:
        yield process


class Shell:
    """The `openstack` command, as a function: starting it anew takes it a second or two."""

    def __init__(self, url: str) -> None:
        self.options = ["--os-auth-type", "admin_token", "--os-token", "admin", "--os-endpoint", url]
        self.options += ["--os-placement-api-version", "1.39"]

    def __call__(self, *words: str) -> Any:
        """Run one command; its JSON where that is asked for."""
        printed, problems = io.StringIO(), io.StringIO()
        with redirect_stdout(printed), redirect_stderr(problems):
            code = OpenStackShell().run([*self.options, *words])
        assert code == 0, (words, problems.getvalue())
        return json.loads(printed.getvalue()) if "json" in words else None


def test_the_openstack_command_lists_traits(service: Process) -> None:
    words = [*Shell(service.url).options, "trait", "list", "--name", "in:HW_CPU_X86_VMX", "-f", "value"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    ran = subprocess.run(
        [str(OPENSTACK), *words], capture_output=True, text=True, timeout=HANG_SECONDS, env=environment, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "HW_CPU_X86_VMX\n"), ran.stderr


def test_the_openstack_command_does_a_days_work(service: Process) -> None:
    run = Shell(service.url)
    created = run("resource", "provider", "create", "cn1", "-f", "json")
    rp = created["uuid"]
    assert (created["name"], created["generation"]) == ("cn1", 0)
    figures = ["--resource", "VCPU=16", "--resource", "VCPU:allocation_ratio=4.0", "--resource", "MEMORY_MB=4096"]
    inventories = run("resource", "provider", "inventory", "set", rp, *figures, "-f", "json")
    assert {one["resource_class"]: one["total"] for one in inventories} == {"VCPU": 16, "MEMORY_MB": 4096}
    run("trait", "create", "CUSTOM_GOLD")
    traits = run("resource", "provider", "trait", "set", rp, "--trait", "CUSTOM_GOLD", "-f", "json")
    assert traits == [{"name": "CUSTOM_GOLD"}]
    aggregate = str(uuid.uuid4())
    run("resource", "provider", "aggregate", "set", rp, "--aggregate", aggregate, "--generation", "2")
    found = run(
        *("allocation", "candidate", "list", "--resource", "VCPU=2", "--resource", "MEMORY_MB=512"),
        *("--required", "CUSTOM_GOLD", "--member-of", aggregate, "-f", "json"),
    )
    assert [one["resource provider"] for one in found] == [rp]
    consumer = str(uuid.uuid4())
    owner = ["--project-id", "p", "--user-id", "u", "--consumer-type", "INSTANCE"]
    run("resource", "provider", "allocation", "set", consumer, "--allocation", f"rp={rp},VCPU=2,MEMORY_MB=512", *owner)
    (held,) = run("resource", "provider", "allocation", "show", consumer, "-f", "json")
    assert (held["resource_provider"], held["resources"]) == (rp, {"VCPU": 2, "MEMORY_MB": 512})
    run("resource", "provider", "allocation", "unset", consumer, "--resource-class", "MEMORY_MB")
    usages = run("resource", "provider", "usage", "show", rp, "-f", "json")
    assert {one["resource_class"]: one["usage"] for one in usages} == {"VCPU": 2, "MEMORY_MB": 0}
    run("resource", "provider", "allocation", "delete", consumer)
    shown = run("resource", "provider", "show", rp, "--allocations", "-f", "json")
    assert (shown["name"], shown["allocations"]) == ("cn1", {})
    run("resource", "provider", "delete", rp)
    assert run("resource", "provider", "list", "-f", "json") == []


def test_openstacksdks_placement_proxy_works(service: Process) -> None:
    cloud = openstack.connect(
        auth_type="admin_token",
        endpoint=service.url,
        auth={"endpoint": service.url, "token": "admin"},
        placement_endpoint_override=service.url,
        placement_default_microversion="1.39",
    )
    with contextlib.closing(cloud):
        use_placement(cloud.placement)


def use_placement(placement: Any) -> None:
    """What its proxy offers."""
    parent = placement.create_resource_provider(name="sdk-parent")
    child = placement.create_resource_provider(name="sdk-child", parent_provider_id=parent.id)
    assert child.root_provider_id == parent.id
    inventory = placement.create_resource_provider_inventory(child, "VCPU", total=4)
    assert (inventory.total, inventory.allocation_ratio) == (4, 1.0)
    assert [one.resource_class for one in placement.resource_provider_inventories(child)] == ["VCPU"]
    inventory = placement.update_resource_provider_inventory(inventory, total=8, resource_provider_generation=1)
    assert inventory.total == 8
    assert placement.create_resource_class(name="CUSTOM_SDK").name == "CUSTOM_SDK"
    assert placement.create_trait("CUSTOM_SDK_TRAIT").name == "CUSTOM_SDK_TRAIT"
    assert "CUSTOM_SDK_TRAIT" in {trait.name for trait in placement.traits()}
    aggregate = str(uuid.uuid4())
    child = placement.set_resource_provider_aggregates(placement.get_resource_provider(child), aggregate)
    assert placement.fetch_resource_provider_aggregates(child).aggregates == [aggregate]
    placement.delete_resource_provider_inventory("VCPU", child)
    for one in (child, parent):
        placement.delete_resource_provider(one)
    assert not list(placement.resource_providers(name="sdk-parent"))


def test_keystoneauth_without_authentication_sends_a_token_that_is_accepted(service: Process) -> None:
    adapter = Adapter(session.Session(auth=noauth.NoAuth(endpoint=service.url)), service_type="placement")
    answer = adapter.get("/traits", headers={"x-auth-token": "notused"}, microversion="1.39")
    assert answer.status_code == 200
    assert answer.headers["openstack-api-version"] == "placement 1.39"


def test_keystoneauth_discovers_the_microversions(service: Process) -> None:
    adapter = Adapter(session.Session(auth=Token(service.url, "notused")), service_type="placement")
    data = adapter.get_endpoint_data()
    assert data is not None
    assert (data.min_microversion, data.max_microversion) == ((1, 0), (1, 39))
