"""What a reload of the configuration does beside the policy of a single service: members of a cluster that lead later,
passwords, tokens and certificates that have been exchanged."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from hostler.core.machine.machine import ServiceMachine
from hostler.core.process.clustering import Clustered
from hostler.core.process.config import load
from hostler.core.process.daemon import Daemon
from hostler.core.regions.cascade import Cascade
from hostler.core.regions.options import CascadeOptions, RegionOptions
from hostler.core.rpc.client import open_client
from hostler.core.rpc.tls import client_context, renewal
from hostler.core.service import Service
from hostler.core.tasks import at_once
from hostler.core.tenancy.commands import CreateDomain, CreateUser, Grant, RevokeToken
from hostler.core.tenancy.errors import NotAuthenticated
from hostler.core.writer.writer import open_writer
from hostler.placement.types.errors import InvalidValue
from tests.rpc.serving import Authority, serving

PACKED = "[filter_scheduler]\nram_weight_multiplier = -1.0\n"
SPREAD = "[filter_scheduler]\nram_weight_multiplier = 2.0\n"


class Member:
    """As much of a cluster as a reload asks for."""

    role = "follower"


async def lead_for_a_moment(daemon: Daemon, service: Service) -> None:
    """Do what only a leader does, as long as it takes."""
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon._while_leading, service)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()


async def test_a_member_that_leads_later_puts_the_policy_that_was_read_last(tmp_path: Path) -> None:
    policy, file = tmp_path / "policy.toml", tmp_path / "hostler.toml"
    policy.write_text(PACKED)
    file.write_text('policy = "policy.toml"\n')
    async with open_writer(ServiceMachine()) as writer:
        daemon = Daemon(lambda: load(file, {}), lambda addresses: None)
        service = daemon.health.service = Service(writer.machine, writer)  # type: ignore[arg-type]  # it is a ServiceMachine
        daemon.health.state = "serving"
        daemon.health.cluster = Member()  # type: ignore[assignment]  # only what the reload asks for
        policy.write_text(SPREAD)
        await daemon._reload()
        assert service.state.policy == {}, "a follower gives no commands"
        await lead_for_a_moment(daemon, service)
        assert service.state.policy["filter_scheduler"]["ram_weight_multiplier"] == 2.0
        policy.write_text("[filter_scheduler]\nram_weight_multiplier = 'x'\n")
        await daemon._reload()
        await lead_for_a_moment(daemon, service)
        assert service.state.policy["filter_scheduler"]["ram_weight_multiplier"] == 2.0


# what connections are made with


def test_a_client_s_context_takes_a_pair_that_matches_and_stays_as_it_was_otherwise(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("ann.example")
    context = client_context(authority.ca, certificate, key)
    authority.sign("ann.example")  # into the same files
    renewal(context, authority.ca, certificate, key)()
    with pytest.raises(InvalidValue, match=f"certificate {certificate} with key"):
        renewal(context, authority.ca, certificate, authority.sign("bob.example")[1])
    with pytest.raises(InvalidValue, match="none"):
        renewal(context, tmp_path / "none", certificate, key)
    with pytest.raises(InvalidValue, match=f"the authority {key}"):
        renewal(context, key)


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_was_read_of_certificates_is_used_whatever_became_of_the_files_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:  # as on systems that have no such files
        monkeypatch.delattr(os, "memfd_create")
    authority = Authority(tmp_path)
    certificate, key = authority.sign("ann.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    renew = renewal(context, authority.ca, certificate, key)
    for file in (authority.ca, certificate, key):
        file.unlink()
    renew()
    assert len(context.get_ca_certs()) == 1


async def test_a_client_calls_with_the_token_that_it_was_given_last() -> None:
    async with serving(open_to_all=False) as served:
        await served.do(
            CreateDomain(id="d"),
            CreateUser(id="ann", domain="d"),
            Grant(user="ann", role="cloud_admin", scope="cloud"),
        )
        first, second = await served.token("ann"), await served.token("ann")
        async with open_client(served.address, token=first) as client:
            assert len(await client.call("hosts")) == 3
            await served.do(RevokeToken(id=first.split("_")[1]))
            with pytest.raises(NotAuthenticated):
                await client.call("hosts")
            client.renew(second)
            assert len(await client.call("hosts")) == 3


async def test_a_parent_reads_tokens_again_and_keeps_them_all_where_one_is_missing(tmp_path: Path) -> None:
    options = {}
    for name in ("eu", "us"):
        (tmp_path / name).write_text(f"first of {name}\n")
        options[name] = RegionOptions(addresses=("unix:/none",), token=f"file:{tmp_path / name}")
    async with open_writer(ServiceMachine()) as writer:
        service = Service(writer.machine, writer)  # type: ignore[arg-type]  # it is a ServiceMachine
        cascade = Cascade(service, options, CascadeOptions())
        (tmp_path / "eu").write_text("second of eu\n")
        (tmp_path / "us").unlink()
        with pytest.raises(InvalidValue, match="us"):
            await cascade.read_again()
        assert [link._token for link in cascade.links.values()] == ["first of eu", "first of us"]
        (tmp_path / "us").write_text("second of us\n")
        (await cascade.read_again())()
        assert [link._token for link in cascade.links.values()] == ["second of eu", "second of us"]


@asynccontextmanager
async def member_with(password: Path, ca: Path, certificate: Path, key: Path) -> AsyncIterator[Clustered]:
    """One that reaches etcd by these files."""
    file = password.parent / "hostler.toml"
    file.write_text(
        f"""[data]
store = "etcd"
folder = "{password.parent / "data"}"
[data.etcd]
endpoints = ["https://localhost:1"]
user = "hostler"
password_file = "{password}"
ca = "{ca}"
certificate = "{certificate}"
key = "{key}"
"""
    )
    clustered = Clustered(load(file, {}).config, aside=at_once, committed=lambda seconds: None)
    try:
        yield clustered
    finally:
        await clustered.journal.close()


async def test_a_member_reads_the_password_of_etcd_and_its_certificates_again(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("localhost")
    password = tmp_path / "password"
    password.write_text("first\n")
    async with member_with(password, authority.ca, certificate, key) as clustered:
        password.write_text("second\n")
        (await clustered.read_again())()
        assert clustered.journal.etcd._password == "second"
        password.write_text("third\n")
        key.write_text("no key")
        with pytest.raises(InvalidValue):
            await clustered.read_again()
        assert clustered.journal.etcd._password == "second"


async def test_a_member_goes_on_while_a_certificate_is_newer_than_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("localhost")
    newer, newer_key = authority.sign("newer")
    password = tmp_path / "password"
    password.write_text("first\n")
    async with member_with(password, authority.ca, certificate, key) as clustered:
        read_again = clustered.read_again

        async def read_before_the_certificate_is_replaced() -> Callable[[], None]:
            take = await read_again()
            newer.replace(certificate)
            return take

        password.write_text("second\n")
        with monkeypatch.context() as patched:
            patched.setattr(clustered, "read_again", read_before_the_certificate_is_replaced)
            await clustered._take_up_changes()
        assert clustered.journal.etcd._password == "second"
        password.write_text("third\n")
        await clustered._take_up_changes()
        assert clustered.journal.etcd._password == "second", "the certificate is not the key's"
        newer_key.replace(key)
        await clustered._take_up_changes()
        assert clustered.journal.etcd._password == "third"


async def test_a_member_tries_again_what_could_not_be_taken_into_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    password = tmp_path / "password"
    password.write_text("first\n")

    def full(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with member_with(password, authority.ca, *authority.sign("localhost")) as clustered:
        read_again = clustered.read_again

        async def read_before_no_file_can_be_opened() -> Callable[[], None]:
            take = await read_again()
            patched.setattr(os, "memfd_create", full)
            return take

        password.write_text("second\n")
        with monkeypatch.context() as patched:
            patched.setattr(clustered, "read_again", read_before_no_file_can_be_opened)
            await clustered._take_up_changes()
        assert clustered.journal.etcd._password == "first"
        await clustered._take_up_changes()
        assert clustered.journal.etcd._password == "second"
