"""Names, uuids and the forms they come in, few enough for collisions and long enough for every path."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

FEW_NAMES = [
    "",
    "a",
    "b",
    "host",
    "host-1",
    "héron",
    "\x7f\x80\u07ff",
    "\u0800\uffff",
    "\U00010000\U0010ffff",
    "nul\0inside",
    "nul-at-the-end\0",
    "x" * 16,
    "x" * 17,
]

texts = st.text(max_size=20) | st.text("ab", max_size=40)
long_texts = st.builds(
    lambda part, times: part * times, st.sampled_from(["a", "long ", "ö"]), st.integers(1000, 20_000)
)
names = st.sampled_from(FEW_NAMES) | texts | long_texts


def numbered(first: int, count: int) -> list[str]:
    return [f"compute-{number:05d}" for number in range(first, first + count)]


name_lists = st.lists(names, max_size=8) | st.builds(numbered, st.integers(0, 2000), st.integers(0, 300))


def as_bytes(items: Sequence[str]) -> Any:
    encoded = [item.encode() for item in items]
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=1) or 1}")


def as_text(items: Sequence[str]) -> Any:
    return np.array(items, dtype=f"U{max(map(len, items), default=1) or 1}")


def as_swapped(items: Sequence[str]) -> Any:
    text = as_text(items)
    return text.astype(text.dtype.newbyteorder("S"))


def as_every_other(items: Sequence[str]) -> Any:
    return np.repeat(as_text(items), 2)[::2]


FORMS: dict[str, Callable[[Sequence[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "object array": lambda items: np.array([*items, None], dtype=object)[:-1],
    "bytes array": as_bytes,
    "text array": as_text,
    "byte-swapped text array": as_swapped,
    "strided text array": as_every_other,
}


def same_arrays(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and np.array_equal(one[key], other[key]) for key in one
    )
