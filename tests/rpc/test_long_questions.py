"""Long questions are answered from a child process with the same answer, and hold up no other call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from hostler.core.engine_commands import asked
from hostler.core.machine import queries
from hostler.core.machine.question import Query
from hostler.core.machine.request_limits import RequestLimits
from hostler.core.rpc.client import open_client
from hostler.core.service import Identity
from hostler.core.tenancy.commands import CreateDomain, CreateProject, CreateUser, Grant
from hostler.placement.types.errors import HostlerError, InvalidValue
from hostler.placement.types.request import Flavor, Request, RequestSpec

from ..patience import HANG_SECONDS
from .serving import serving, until

ASKED = {"request": asked(Request(spec=RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=512, root_gb=1))))}
PROJECT = Request(spec=RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=512)), project_id="p")
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("hosts", {"prefix": "node-"}),
    ("explain", ASKED),
    ("fits", ASKED),
    ("what_if", {"commands": [{"do": "place", **ASKED}, {"do": "release", "uuids": []}]}),
    ("capacity", {}),
    ("projects", {}),
]


@pytest.fixture
def all_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "LONG_HOSTS", -1)
    monkeypatch.setattr(queries, "LONG_LIST", -1)


@pytest.mark.parametrize(("method", "params"), QUESTIONS)
async def test_a_child_answers_as_the_service_does(
    method: str, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as served, open_client(served.address) as client:
        await client.call("place", ASKED)
        at_once = await client.call(method, params)
        monkeypatch.setattr(queries, "LONG_HOSTS", -1)
        monkeypatch.setattr(queries, "LONG_LIST", -1)
        assert await client.call(method, params) == at_once


async def test_a_child_sees_all_that_was_answered_before(all_long: None) -> None:
    async with serving() as served, open_client(served.address) as client:
        before = (await client.call("fits", ASKED)).count
        for placed in range(1, 4):
            await client.call("place", ASKED)
            assert (await client.call("fits", ASKED)).count == before - placed


async def test_an_error_comes_out_of_a_child_as_it_is(all_long: None) -> None:
    async with serving() as served, open_client(served.address) as client:
        with pytest.raises(HostlerError) as error:
            await client.call("hosts", {"after": "nobody"})
        assert (error.value.code, error.value.field) == ("unknown_name", "after")


async def test_long_questions_in_a_batch_are_answered_in_their_places(all_long: None) -> None:
    async with serving() as served, open_client(served.address) as client:
        answers = await client.batch([("fits", ASKED), ("hosts", {"after": "x"}), ("hosts", {})])
        assert answers[0]["count"] == 3 * 64
        assert answers[1].code == "unknown_name"
        assert len(answers[2]) == 3


async def test_others_do_not_wait(all_long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        time.sleep(4 * HANG_SECONDS)

    answer_by(monkeypatch, slow)
    async with (
        serving() as served,
        open_client(served.address) as curious,
        open_client(served.address) as other,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(curious.call, "capacity")
        await trio.sleep(0.05)
        with trio.fail_after(HANG_SECONDS):
            assert (await other.call("status")).ready
            assert (await other.call("place", ASKED)).placed
        nursery.cancel_scope.cancel()


async def test_a_child_that_nobody_waits_for_any_more_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        time.sleep(60)

    answer_by(monkeypatch, slow)
    async with serving() as served:
        service, before = served.service, children()
        with trio.move_on_after(0.2):
            await service.ask_aside(service.newcomer(local=True), queries.Capacity())
        await until(lambda: children() == before)


async def test_a_long_question_of_a_member_has_so_much_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> None:
        while True:
            pass

    async with serving() as served:
        service = served.service
        await served.do(CreateDomain(id="d"), CreateProject(id="p", domain="d"), CreateUser(id="ann", domain="d"))
        await served.do(Grant(user="ann", role="reader", scope="project:p"))
        service.limits = RequestLimits(question_seconds=0.5)
        ann = Identity("ann", serial=service.state.tenants.serial_of("ann"))
        assert (await service.ask_aside(ann, queries.Fits(request=asked(PROJECT)))) != b""
        answer_by(monkeypatch, endless, queries.Fits, queries.Capacity)
        with pytest.raises(InvalidValue, match=r"more than 0\.5 s of processor time") as refused:
            await service.ask_aside(ann, queries.Fits(request=asked(PROJECT)))
        assert refused.value.field == "limits.question_seconds"
        given = list[float | None]()

        async def ask(question: object, *, lane: str, seconds: float | None) -> bytes:
            given.append(seconds)
            return b""

        monkeypatch.setattr(service.children, "ask", ask)
        for asker in (ann, service.newcomer(local=True)):  # who has a role in the cloud may take longer
            await service.ask_aside(asker, queries.Fits(request=asked(PROJECT)))
        assert given == [0.5, None]


async def test_a_child_that_dies_is_an_error(all_long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_by(monkeypatch, lambda *_: os.abort())
    async with serving() as served, open_client(served.address) as client:
        with pytest.raises(HostlerError) as error:
            await client.call("capacity")
        assert error.value.code == "internal"
        assert (await client.call("status")).ready


def answer_by(monkeypatch: pytest.MonkeyPatch, work: Callable[..., Any], *kinds: type[Query]) -> None:
    """Have questions of capacity, or of other ``kinds``, answered by something else."""
    questions: dict[type[Query], Callable[..., Any]] = {**queries.QUESTIONS}
    questions |= dict.fromkeys(kinds or (queries.Capacity,), work)
    monkeypatch.setattr(queries, "QUESTIONS", questions)


def children() -> list[str]:
    """Process ids of this process's children that run this very program."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()
