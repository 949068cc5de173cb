"""Sessions of the driver hmc on a stand-in for a console, and the errors of its calls and jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("httpx", reason="httpx is not installed")

from hostler.drivers import log_ons
from hostler.drivers.compute import hmc, hmc_api
from hostler.drivers.conformance import ComputeBench
from hostler.drivers.conformance.bench import OURS, all_of
from hostler.drivers.protocol import (
    Capacity,
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Quota,
    Transient,
    Unknown,
)
from hostler.placement.types.errors import InvalidValue

from .fault_proxy import Answer, FaultProxy
from .hmc_bench import before, bench_of, opener
from .hmc_console import Console, RefusedError


@pytest.fixture
def console() -> Console:
    return Console(ready=0.03)


@pytest.fixture
def proxy(console: Console) -> Iterator[FaultProxy]:
    with before(console) as proxy:
        yield proxy


@pytest.fixture
def bench(proxy: FaultProxy, console: Console) -> ComputeBench:
    return bench_of(proxy, console)


def logons(console: Console) -> list[str]:
    return [method for method, path in console.log if path == hmc_api.LOGON]


# sessions


@pytest.mark.parametrize("status", [401, 403])
async def test_a_session_that_has_ended_is_renewed_once(bench: ComputeBench, console: Console, status: int) -> None:
    console.ended = status
    async with bench.driver() as driver:
        console.sessions.clear()
        console.log.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(driver.check)
        assert logons(console).count("PUT") == 1
        assert len(console.sessions) == 1
        console.sessions.clear()
        await driver.create_guest(bench.spec())
    assert not console.sessions


@pytest.mark.parametrize(
    ("text", "renewals"), [("HSCL350B The user does not have the authority.", 0), ("Forbidden", 1)]
)
async def test_what_the_user_may_not_do_is_denied(
    bench: ComputeBench, console: Console, text: str, renewals: int
) -> None:
    def refuse(method: str, path: str) -> None:
        if method == "PUT" and "ManagedSystem" in path:
            raise RefusedError(403, text)

    async with bench.driver() as driver:
        console.fail = refuse
        console.log.clear()
        with pytest.raises(Denied):
            await driver.create_guest(bench.spec())
        assert logons(console).count("PUT") == renewals
        assert len(console.sessions) == 1


async def test_a_wrong_password_is_denied(proxy: FaultProxy, console: Console) -> None:
    with pytest.raises(Denied, match="wrong"):
        async with opener(proxy, password="x")(DriverContext("bench", OURS)):
            pass
    assert logons(console) == ["PUT"]


@pytest.mark.parametrize("status", [401, 403])
async def test_an_account_that_is_locked_is_tried_once(bench: ComputeBench, console: Console, status: int) -> None:
    def refuse(method: str, path: str) -> None:
        if (method, path) == ("PUT", hmc_api.LOGON):
            raise RefusedError(status, "The user account is locked. Try again later.")

    async with bench.driver() as driver:
        console.sessions.clear()
        console.log.clear()
        console.fail = refuse
        for _ in range(3):
            with pytest.raises(Denied, match="locked"):
                await driver.check()
        assert logons(console) == ["PUT"]


async def test_calls_at_the_same_time_do_not_lock_an_account(
    bench: ComputeBench, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.driver() as driver:
        console.sessions.clear()
        console.log.clear()
        console.password = "changed"

        async def ask() -> None:
            with pytest.raises(Denied, match="wrong"):
                await driver.check()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert logons(console) == ["PUT"]
        console.password = "se<cr>et"
        await ask()
        monkeypatch.setattr(log_ons, "DENIED_SECONDS", 0.0)
        await driver.check()


async def test_a_console_that_cannot_be_reached_is_transient() -> None:
    with pytest.raises(Transient):
        async with hmc.open_driver(
            {"endpoint": "https://127.0.0.1:1", "username": "u", "password": "p"}, DriverContext("bench", OURS)
        ):
            pass


async def test_a_console_that_does_not_answer_is_given_up_after_a_time(
    bench: ComputeBench, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.driver():
        pass
    monkeypatch.setattr(hmc, "READ_SECONDS", 0.05)
    with proxy.hang(), pytest.raises(Transient, match="ReadTimeout"):
        async with bench.driver():
            pass


async def test_certificates_are_checked(console: Console, tmp_path: Path) -> None:
    Authority = pytest.importorskip("tests.rpc.serving", reason="cryptography is not installed").Authority
    authority = Authority(tmp_path)
    with console.served(authority.sign("localhost")) as (_, port):
        options = {"endpoint": f"https://localhost:{port}", "username": "user", "password": "se<cr>et"}
        async with hmc.open_driver({**options, "ca_file": str(authority.ca)}, DriverContext("bench", OURS)) as driver:
            await driver.check()
            assert driver.facts.version == "V1_3_0"
        with pytest.raises(Transient):
            async with hmc.open_driver(options, DriverContext("bench", OURS)):
                pass


@pytest.mark.parametrize(
    "wrong", [{"endpoint": "hmc"}, {"units_per_vcpu": 0.123}, {"units_per_vcpu": 1.5}, {"boot": "x"}, {"ca_file": "/x"}]
)
async def test_wrong_options_are_said(proxy: FaultProxy, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        async with opener(proxy, **wrong)(DriverContext("bench", OURS)):
            pass


# errors


@pytest.mark.parametrize("code", sorted(set(hmc_api.CODES) - hmc_api.SO_ALREADY))
async def test_each_code_of_a_job_has_its_class(bench: ComputeBench, console: Console, code: str) -> None:
    console.job_fails["PowerOn"] = f"{code} Some text.\n"
    async with bench.driver() as driver:
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(bench.spec())
    assert (type(caught.value), caught.value.backend_code) == (hmc_api.CODES[code], code)
    assert bool(console.partitions) == (hmc_api.CODES[code] not in hmc.REFUSED)
    assert not console.jobs


@pytest.mark.parametrize("code", sorted(hmc_api.SO_ALREADY))
async def test_a_job_that_finds_it_done_already_is_no_failure(bench: ComputeBench, console: Console, code: str) -> None:
    console.job_fails["PowerOn"] = f"{code} Already so."
    async with bench.driver() as driver:
        await driver.create_guest(bench.spec())


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Failed to unmarshal input payload", Permanent),
        (404, "gone", NotFound),
        (406, "Not Acceptable", Permanent),
        (428, "Precondition Required", Conflict),
        (500, "HSCL9999 Something unexpected.", Unknown),
        (500, "There are not enough processing units.", Capacity),
        (500, "A partition of this name already exists.", Conflict),
        (500, "The maximum number of partitions is reached.", Quota),
        (500, "VIOS 1 is busy processing some other request. Please retry the operation.", Transient),
        (503, "Service Unavailable", Transient),
    ],
)
async def test_each_error_has_its_class(
    bench: ComputeBench, console: Console, status: int, text: str, kind: type[DriverError]
) -> None:
    def refuse(method: str, path: str) -> None:
        if method == "PUT":
            raise RefusedError(status, text)

    async with bench.driver() as driver:
        console.fail = refuse
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(bench.spec())
        assert type(caught.value) is kind
        assert text in str(caught.value)
        console.fail = lambda method, path: None
        assert not await all_of(driver.guests())


MANY = b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><entry xmlns="http://www.w3.org/2005/Atom">&c;</entry>'


@pytest.mark.parametrize(
    "body",
    [b"<html>oops", b"<html></html>", MANY, b"\xff\xfe<\x00a", b'<entry xmlns="http://www.w3.org/2005/Atom"/>', b""],
)
async def test_an_answer_that_is_not_of_the_api_leaves_it_open_what_was_done(
    bench: ComputeBench, proxy: FaultProxy, body: bytes
) -> None:
    answer = Answer(200, {}, body)
    async with bench.driver() as driver:
        spec = bench.spec()
        proxy.instead = lambda request: answer if "/do/" in request.path else None
        with pytest.raises(Unknown):
            await driver.create_guest(spec)
        proxy.instead = lambda request: answer if request.method == "GET" else None
        with pytest.raises(Transient):
            await all_of(driver.guests())


async def test_a_job_that_cannot_be_asked_for_is_of_unknown_outcome(
    bench: ComputeBench, console: Console, proxy: FaultProxy
) -> None:
    async with bench.driver() as driver:
        for answer in (Answer(404, {}, b""), Answer(503, {}, b""), Answer(500, {}, b"")):
            spec = bench.spec()
            proxy.instead = lambda request, answer=answer: answer if "/jobs/" in request.path else None  # type: ignore[misc]
            with pytest.raises(Unknown, match="goes on"):
                await driver.create_guest(spec)
            proxy.instead = lambda request: None
            assert (await driver.create_guest(spec)).state == "on"
