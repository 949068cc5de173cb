"""The framer finds the messages of a stream however they are cut, and takes nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostler.core.rpc.framing import DEPTH, SHORT_BYTES, BadFrame, Framer

LIMIT = 10_000
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """The data in parts of these sizes, and the rest."""
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]]


def frames(parts: Iterable[bytes], limit: int = LIMIT) -> list[bytes]:
    framer, found = Framer(limit), []
    for part in parts:
        framer.feed(part)
        while (frame := framer.next()) is not None:
            found.append(frame)
    assert framer.unfinished == len(b"".join(parts)) - len(b"".join(found))
    return found


@pytest.mark.property
@given(st.lists(VALUES, max_size=8), st.lists(st.integers(0, 60)))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(values: list[Any], sizes: list[int]) -> None:
    packed = [msgpack.packb(value) for value in values]
    assert frames(cut(b"".join(packed), sizes)) == packed


@pytest.mark.property
@given(st.binary(max_size=300), st.lists(st.integers(0, 60)))
@example(b"\xc1", [])
@example(b"\xdd\xff\xff\xff\xff", [1, 1])
@example(b"\xc6\xff\xff\xff\xff", [1, 1])
@example(b"\x91" * 300, [])
def test_random_bytes_are_messages_or_refused_alike_however_they_are_cut(data: bytes, sizes: list[int]) -> None:
    outcomes = []
    for parts in (cut(data, sizes), [data]):
        framer, found, error = Framer(LIMIT), list[bytes](), ""
        try:
            for part in parts:
                framer.feed(part)
                while (frame := framer.next()) is not None:
                    found.append(frame)
        except BadFrame as problem:
            error = problem.code
        outcomes.append((found, error))
        assert data.startswith(b"".join(found))
    assert outcomes[0] == outcomes[1]


def test_a_message_of_the_longest_length_is_taken_and_one_byte_more_is_not() -> None:
    longest = msgpack.packb(b"x" * (LIMIT - 3))
    assert len(longest) == LIMIT
    assert frames([longest]) == [longest]
    longer = msgpack.packb(b"x" * (LIMIT - 2))
    for parts in ([longer], cut(longer, [7] * 5_000)):
        with pytest.raises(BadFrame, match=f"longer than {LIMIT} bytes"):
            frames(parts)


def test_a_message_that_only_claims_to_be_long_takes_no_memory() -> None:
    framer = Framer(LIMIT)
    framer.feed(b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100)
    assert framer.next() is None
    assert framer.unfinished == 105


def test_nesting_is_bounded() -> None:
    assert len(frames([b"\x91" * (DEPTH - 1) + b"\xc0"])) == 1
    for opening in (b"\x91", b"\x81\xa1a"):
        with pytest.raises(BadFrame, match="levels deep"):
            frames([opening * (DEPTH + 1) + b"\xc0"])


def test_a_framer_between_messages_holds_nothing() -> None:
    framer = Framer(LIMIT)
    framer.feed(msgpack.packb([1] * 100))
    assert framer.next() is not None
    assert framer.next() is None
    assert (framer._unpacker, len(framer._buffer)) == (None, 0)


def test_a_framer_within_a_short_message_holds_little_more_than_its_bytes() -> None:
    framers = [Framer(LIMIT) for _ in range(200)]
    tracemalloc.start()
    try:
        for framer in framers:
            framer.feed(b"\x94\x00")
        fed, _ = tracemalloc.get_traced_memory()  # all wait for their turn
        assert [framer.next() for framer in framers] == [None] * len(framers)
        scanned, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(fed, scanned) < 1_000 * len(framers)


@pytest.mark.parametrize("size", [1, 500, SHORT_BYTES - 5, SHORT_BYTES + 1, 2 * SHORT_BYTES])
def test_messages_that_are_longer_than_what_is_scanned_again_come_out_whole(size: int) -> None:
    packed = [msgpack.packb([number, b"x" * (SHORT_BYTES + number * 700)]) for number in range(-4, 5)]
    assert frames(cut(b"".join(packed), [size] * 60_000)) == packed
