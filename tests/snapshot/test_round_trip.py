"""What is written is read: meta and arrays of every kind that a snapshot holds, and what it cannot hold is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.persist import container as snapshot
from hostler.placement.types.errors import InvalidValue

ARRAYS: dict[str, Any] = {
    "numbers": np.arange(1000, dtype=np.int64),
    "bytes": np.arange(7, dtype=np.uint8),
    "matrix": np.arange(12, dtype=np.float64).reshape(3, 4),
    "cube of bools": np.ones((2, 3, 5), dtype=bool),
    "scalar": np.array(5, dtype=np.int32),
    "nothing": np.array([], dtype=np.int32),
    "nothing by three": np.zeros((0, 3), dtype=np.float32),
    "names": np.array(["a", "héron", ""]),
    "raw names": np.array([b"a", b"bcd"]),
    "dates": np.array(["2026-01-01", "NaT"], dtype="M8[s]"),
    "complex": np.array([1 + 2j]),
    "big-endian": np.arange(5, dtype=">u4"),
    "": np.array([1], dtype=np.int8),
    "a/path: ö\n\0": np.array([2], dtype=np.int8),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleet.snapshot"


def same(one: Any, other: Any) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def round_trip(path: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    snapshot.write(path, {}, arrays)
    return snapshot.read(path)[1]


def test_arrays_come_back_bit_for_bit_and_in_order(path: Path) -> None:
    back = round_trip(path, ARRAYS)
    assert list(back) == list(ARRAYS)
    assert all(same(back[name], ARRAYS[name]) for name in ARRAYS)


def test_arrays_come_back_writable_contiguous_and_their_own(path: Path) -> None:
    for array in round_trip(path, ARRAYS | {"zeros": np.zeros(100)}).values():
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert array.base is None


def test_meta_comes_back_as_json_has_it(path: Path) -> None:
    meta = {"rows": 2**60, "ratio": 1.5, "names": ["a", "ö\0"], "nested": {"none": None, "yes": True}, "": {}}
    snapshot.write(path, meta, {})
    assert snapshot.read(path) == (meta, {})


@st.composite
def any_array(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(["?", "i1", "<i4", ">i8", "f2", "f8", "c16", "S3", "U2", "M8[ns]", "m8"])))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    raw = bytearray(draw(st.sampled_from([b"\0", b"\1", b"\0\0\0\1\2"])) * 10_000)
    return np.frombuffer(raw, dtype, math.prod(shape)).reshape(shape)


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(any_array(), max_size=4))
def test_any_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, arrays: list[Any]) -> None:
    given_arrays = {str(number): array for number, array in enumerate(arrays)}
    back = round_trip(tmp_path_factory.getbasetemp() / "any.snapshot", given_arrays)
    assert all(same(back[name], given_arrays[name]) for name in given_arrays)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_arrays_of_any_length_come_back(path: Path, size: int) -> None:
    array = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert same(round_trip(path, {"before": array[:1], "a": array, "after": array[-1:]})["a"], array)


@pytest.mark.parametrize(
    "view",
    [np.arange(100)[::3], np.arange(100)[::-1], np.arange(12).reshape(3, 4).T, np.asfortranarray(np.eye(3)),
     np.broadcast_to(np.arange(3), (4, 3))],
)  # fmt: skip
def test_arrays_in_another_order_come_back_in_c_order(path: Path, view: Any) -> None:
    back = round_trip(path, {"view": view})["view"]
    assert np.array_equal(back, view)
    assert back.flags.c_contiguous


def test_zeros_take_no_room(path: Path) -> None:
    arrays = {f"column {number}": np.zeros(1_000_000 + number, np.float32) for number in range(10)}
    back = round_trip(path, arrays)
    assert path.stat().st_size < 2000
    assert all(same(back[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("array", [np.array([0.0, -0.0]), np.eye(1, 1001, 1000, dtype=np.int8)])
def test_what_only_looks_like_zero_is_kept(path: Path, array: Any) -> None:
    assert same(round_trip(path, {"a": array})["a"], array)


def test_the_same_content_makes_the_same_file(path: Path) -> None:
    snapshot.write(path, {"a": 1}, ARRAYS)
    first = path.read_bytes()
    snapshot.write(path, {"a": 1}, ARRAYS)
    assert path.read_bytes() == first


def test_arrays_begin_at_multiples_of_64(path: Path) -> None:
    marked = {str(size): np.full(size, 0xA5, np.uint8) for size in (1, 64, 100)}
    snapshot.write(path, {}, marked)
    raw = path.read_bytes()
    assert [raw[at : at + 2] for at in (64, 128, 192)] == [b"\xa5\0", b"\xa5\xa5", b"\xa5\xa5"]


def test_progress_is_told_in_bytes_up_to_the_total(path: Path) -> None:
    told: list[tuple[int, int]] = []
    arrays = {"a": np.ones(400_000), "zeros": np.zeros(1000), "b": np.ones(10)}
    snapshot.write(path, {}, arrays, progress=lambda done, total: told.append((done, total)))
    total = sum(array.nbytes for array in arrays.values())
    assert {each for _, each in told} == {total}
    assert told == sorted(told)
    assert told[-1] == (total, total)
    assert len(told) == 6


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, 1], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(2, dtype="V8"),
        np.array(["a"], dtype=np.dtypes.StringDType()),
        [1, 2, 3],
        7,
    ],
)
def test_what_is_no_plain_array_is_refused_with_its_name(path: Path, array: Any) -> None:
    with pytest.raises(InvalidValue, match="bad one") as caught:
        snapshot.write(path, {}, {"good": np.arange(3), "bad one": array})
    assert caught.value.field == "bad one"
    assert not path.exists()


def test_a_name_that_is_no_str_is_refused(path: Path) -> None:
    with pytest.raises(InvalidValue, match="must be a str"):
        snapshot.write(path, {}, {1: np.arange(3)})  # type: ignore[dict-item]


@pytest.mark.parametrize("meta", [{"a": {1, 2}}, {"a": b"x"}, {"a": float("nan")}, {"a": np.int64(1)}, {(1, 2): 3}])
def test_meta_that_json_cannot_hold_is_refused(path: Path, meta: Any) -> None:
    with pytest.raises(InvalidValue, match="JSON") as caught:
        snapshot.write(path, meta, {})
    assert caught.value.field == "meta"
    assert not path.exists()


def test_meta_within_itself_is_refused(path: Path) -> None:
    meta: dict[str, Any] = {}
    meta["again"] = meta
    with pytest.raises(InvalidValue, match="JSON"):
        snapshot.write(path, meta, {})
