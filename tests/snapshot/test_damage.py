"""No damaged, cut, foreign or forged file is ever read: each is refused with a SnapshotError that says where."""

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.persist import container as snapshot
from hostler.placement.types.errors import SnapshotError

ARRAYS: dict[str, Any] = {
    "used": np.arange(9, dtype=np.int64),
    "zeros": np.zeros(5),
    "state": np.array([1, 2, 3], dtype=np.uint8),
    "full lines": np.arange(16, dtype=np.float64),
}
META = {"sequence": 12}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "good.snapshot"
    snapshot.write(path, META, ARRAYS)
    return path.read_bytes()


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Any]:
    path = tmp_path_factory.mktemp("bad") / "bad.snapshot"

    def load(raw: bytes) -> Any:
        path.write_bytes(raw)
        return snapshot.read(path)

    return load


def refusal(load: Callable[[bytes], Any], raw: bytes) -> str:
    with pytest.raises(SnapshotError) as caught:
        load(raw)
    assert "bad.snapshot" in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def with_bytes(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new + raw[at + len(new) :]


def signed(fields: dict[str, int], rest: bytes) -> bytes:
    """A file whose first bytes say ``fields``, with a right checksum."""
    head = struct.pack("<8sII3Q20x", snapshot.MAGIC, *fields.values())
    return head + struct.pack("<I", zlib.crc32(head)) + rest


def forged(header: Any, data: bytes = b"", version: int = snapshot.VERSION) -> bytes:
    """A file with any header and right checksums."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    at = 64 + len(data)
    fields = {"version": version, "crc": zlib.crc32(text), "at": at, "length": len(text), "total": at + len(text)}
    return signed(fields, data + text)


def entry(**changes: Any) -> dict[str, Any]:
    data = bytes(range(64))
    whole = {"name": "a", "dtype": "<i8", "shape": [8], "offset": 64, "crc32": zlib.crc32(data)}
    return {key: value for key, value in (whole | changes).items() if value != "missing"}


def test_the_forged_file_is_read_as_long_as_it_is_right(load: Callable[[bytes], Any]) -> None:
    meta, arrays = load(forged({"meta": {}, "arrays": [entry()]}, bytes(range(64))))
    assert meta == {}
    assert arrays["a"].tobytes() == bytes(range(64))


def test_a_flipped_bit_in_any_byte_is_noticed(good: bytes, load: Callable[[bytes], Any]) -> None:
    for at in range(len(good)):
        refusal(load, with_bytes(good, at, bytes([good[at] ^ 1 << at % 8])))


def test_every_truncation_is_noticed(good: bytes, load: Callable[[bytes], Any]) -> None:
    for length in range(len(good)):
        message = refusal(load, good[:length])
        assert "truncated" in message if length else "is empty" in message


@pytest.mark.property
@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, 10**6), new=st.binary(min_size=1, max_size=80))
def test_overwritten_bytes_are_noticed(good: bytes, load: Callable[[bytes], Any], at: int, new: bytes) -> None:
    at %= len(good)
    bad = with_bytes(good, at, new[: len(good) - at])
    if bad != good:
        refusal(load, bad)


@pytest.mark.property
@settings(deadline=None, max_examples=300)
@given(begin=st.integers(0, 10**6), length=st.integers(1, 200), new=st.binary(max_size=200))
def test_bytes_taken_out_or_put_in_are_noticed(
    good: bytes, load: Callable[[bytes], Any], begin: int, length: int, new: bytes
) -> None:
    begin %= len(good)
    bad = good[:begin] + new + good[begin + length :]
    if bad != good:
        refusal(load, bad)


@pytest.mark.property
@settings(deadline=None)
@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(load: Callable[[bytes], Any], raw: bytes) -> None:
    refusal(load, raw)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda raw: b"", "is empty"),
        (lambda raw: b"PK\x03\x04" + bytes(100), "is not a Hostler snapshot"),
        (lambda raw: raw.replace(b"\r\n", b"\n"), "is not a Hostler snapshot"),
        (lambda raw: raw[:5], "is truncated: it ends at byte 5"),
        (lambda raw: with_bytes(raw, 9, b"\xff"), "is damaged in its first 64 bytes"),
        (lambda raw: raw[:100], "is truncated: it has 100 of"),
        (lambda raw: raw + b"x", "has 1 bytes after its end at byte"),
        (lambda raw: with_bytes(raw, 70, b"\xff"), "is damaged in array 'used', bytes 64 to 136"),
        (lambda raw: with_bytes(raw, 150, b"\xff"), "is damaged after array 'used', bytes 136 to 192"),
        (lambda raw: with_bytes(raw, 193, b"\xff"), "is damaged in array 'state', bytes 192 to 195"),
        (lambda raw: with_bytes(raw, len(raw) - 1, b"\xff"), f"is damaged in its header, bytes {64 * 6} to"),
        (lambda raw: forged({"meta": {}, "arrays": []}, version=2), "has format version 2, this Hostler reads up to 1"),
        (lambda raw: forged({"meta": {}, "arrays": []}, version=0), "has an invalid header"),
        (lambda raw: forged({"meta": {}, "arrays": []}, bytes(64)), "has bytes that belong to no array"),
    ],
)
def test_the_refusal_says_what_is_wrong_and_where(
    good: bytes, load: Callable[[bytes], Any], change: Callable[[bytes], bytes], says: str
) -> None:
    assert says in refusal(load, change(good))


@pytest.mark.parametrize(
    "bad",
    [
        entry(name="missing"),
        entry(name=1),
        entry(name=None),
        entry(dtype="missing"),
        entry(dtype=1),
        entry(dtype="|O"),
        entry(dtype="|O8"),
        entry(dtype="<i8,<i8"),
        entry(dtype="<i3"),
        entry(dtype="<i99999999999999999999"),
        entry(dtype="|V8"),
        entry(dtype="<M8[lightyear]"),
        entry(dtype="<U0"),
        entry(dtype="int64"),
        entry(dtype="<S2147483648"),
        entry(shape="missing"),
        entry(shape=8),
        entry(shape="8"),
        entry(shape=[-8]),
        entry(shape=[-2, -4]),
        entry(shape=[8.0]),
        entry(shape=["8"]),
        entry(shape=[True, 8]),
        entry(shape=[9]),
        entry(shape=[7]),
        entry(shape=[2**62]),
        entry(shape=[2**62, 2**62]),
        entry(shape=[2**63, 0]),
        entry(shape=[1] * 100),
        entry(shape=[0]),
        entry(offset="missing"),
        entry(offset=0),
        entry(offset=128),
        entry(offset=2**70),
        entry(offset=-64),
        entry(offset=None),
        entry(crc32="missing"),
        entry(crc32=None),
        entry(crc32=1),
        entry(crc32=2**40),
        entry(zero=True),
        entry(zero=True, shape=[2**50]),
        entry(zero=True, shape=[2**62, 2**62]),
        entry(zero=True, shape=[-1]),
        [],
        "a",
        None,
        {},
    ],
)
def test_a_forged_array_entry_is_refused(load: Callable[[bytes], Any], bad: Any) -> None:
    refusal(load, forged({"meta": {}, "arrays": [bad]}, bytes(range(64))))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff",
        b"{",
        b"null",
        b"[]",
        b"1" * 5000,
        b"[" * 100_000,
        b"NaN",
        {},
        {"meta": {}},
        {"arrays": []},
        {"meta": [], "arrays": []},
        {"meta": {}, "arrays": {}},
        {"meta": {}, "arrays": [entry(), entry()]},
        {"meta": {}, "arrays": [entry(), entry(zero=True)]},
    ],
)
def test_a_forged_header_is_refused(load: Callable[[bytes], Any], header: Any) -> None:
    refusal(load, forged(header, bytes(range(64))))


@pytest.mark.property
@settings(deadline=None, max_examples=300)
@given(
    at=st.integers(0, 2**64 - 1) | st.integers(0, 300),
    length=st.integers(0, 2**64 - 1) | st.integers(0, 300),
    total=st.integers(0, 2**64 - 1) | st.just(200),
)
def test_forged_places_of_the_header_are_refused(
    load: Callable[[bytes], Any], at: int, length: int, total: int
) -> None:
    refusal(load, signed({"version": 1, "crc": 0, "at": at, "length": length, "total": total}, b"x" * 136))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.property
@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(["name", "dtype", "shape", "offset", "crc32", "zero"]), json_values))
def test_no_forged_entry_does_more_than_be_read_or_refused(
    load: Callable[[bytes], Any], changes: dict[str, Any]
) -> None:
    try:
        _, arrays = load(forged({"meta": {}, "arrays": [entry(**changes)]}, bytes(range(64))))
    except SnapshotError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
