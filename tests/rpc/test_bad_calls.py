"""Bad calls get an error that says what is wrong, and the connection goes on; other bytes are refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.rpc.client import open_client
from hostler.core.rpc.framing import BadFrame
from hostler.core.rpc.messages import read_answer, read_call
from hostler.core.rpc.methods import METHODS
from tests.core.orders import uuid_of

from ..patience import HANG_SECONDS
from .serving import raw_stream, serving

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("plaice", [], "unknown_name"),
        ("place", 7, "invalid_value"),
        ("place", [], "invalid_value"),
        ("place", [{"request": {"spec": 7}}], "invalid_value"),
        ("place", [{"request": {"spec": {"flavor": {"name": "f", "vcpus": -1, "memory_mb": 1}}}}], "invalid_value"),
        ("place", [{"request": {"spec": {"flavor": {"name": "f", "vcpus": 1e999, "memory_mb": 1}}}}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC, "instance_uuids": ["x"]}}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC, "now": 7}}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC}}, {"timeout": "soon"}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC}}, {"key": ""}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC}}, {"timeout": -1.0}], "invalid_value"),
        ("place", [{"request": {"spec": SPEC}}, {"timeout": 0.0}], "deadline_exceeded"),
        ("place", [{"request": {"spec": {"flavor": {**SPEC["flavor"], "_hash": 1}}}}], "unknown_name"),
        ("hosts", [{"limit": 0}], "invalid_value"),
        ("release", [{"uuids": [None]}], "invalid_value"),
        ("heartbeats", [{"names": ["nobody"]}], "unknown_name"),
        ("report", [{"name": "node-0", "figures": {"nonsense": 1.0}}], "unknown_name"),
        ("set_policy", [{"policy": {"filter_scheduler": {"nonsense": 1}}}], "unknown_name"),
        ("batch", [{"calls": [["status"]]}], "invalid_value"),
        ("watch", [{"kinds": ["everything"]}], "invalid_value"),
        ("hello", [{"errors": "loud"}], "invalid_value"),
        ("create_domain", [{"id": "no blanks"}], "invalid_value"),
        ("add_hosts", [{"hosts": [{"host": "h", "vcpus_total": 1}]}], "invalid_value"),
    ],
)
async def test_a_bad_call_gets_an_error_and_the_connection_goes_on(method: str, params: Any, code: str) -> None:
    async with serving() as served:
        stream = await raw_stream(served.address)
        unpacker = msgpack.Unpacker()
        await stream.send_all(msgpack.packb([0, 1, method, params]) + msgpack.packb([0, 2, "status", []]))
        answers: dict[int, Any] = {}
        with trio.fail_after(HANG_SECONDS):
            while len(answers) < 2:
                unpacker.feed(await stream.receive_some())
                answers |= {answer[1]: answer for answer in unpacker}
        assert answers[1][2][0] == code, answers[1]
        assert answers[2][2] is None


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.property
@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), values.map(msgpack.packb)))
def test_reading_a_message_raises_nothing_but_its_own_error(frame: bytes) -> None:
    for read in (read_call, read_answer):
        with suppress(BadFrame):
            read(frame)


@pytest.mark.property
@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.text(), values)
def test_a_call_is_read_as_it_was_written(number: int, method: str, params: Any) -> None:
    call = read_call(msgpack.packb([0, number, method, params]))
    assert (call.id, call.method, bytes(call.params)) == (number, method, msgpack.packb(params))
    note = read_call(msgpack.packb([2, method, params]))
    assert (note.id, note.method) == (None, method)


def strange_params(method: str) -> st.SearchStrategy[dict[str, Any]]:
    """Parameters of the right names, and of types and values that are right now and then."""
    words = st.sampled_from(["node-0", "p1", uuid_of(1), "cloud", "project:p1", "reader", "VCPU", "decisions"])
    request = st.fixed_dictionaries(
        {"spec": st.just(SPEC) | values}, optional={"project_id": words, "alternates": values}
    )
    likely = words | request | st.lists(words | request, max_size=3) | st.dictionaries(words, values, max_size=3)
    names = METHODS[method].params.__struct_fields__
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, likely | values))


calls = st.sampled_from(sorted(METHODS)).flatmap(lambda method: st.tuples(st.just(method), strange_params(method)))


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(st.lists(calls, min_size=5, max_size=30))
def test_no_call_fails_in_an_unexpected_way(asked: list[tuple[str, dict[str, Any]]]) -> None:
    async def main() -> None:
        async with serving() as served, open_client(served.address, within=HANG_SECONDS) as client:
            for (method, params), answer in zip(asked, await client.pipeline(asked), strict=True):
                assert getattr(answer, "code", None) != "internal", (method, params)
            served.service.state.fleet.check()

    trio.run(main)
