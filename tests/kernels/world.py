"""Fleets of columns to drive the kernels and their twins with, of few distinct values so that ties abound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from hostler.ext.constants import (
    CPU_ALLOCATION_RATIO,
    DELTA_PERP,
    DOT_PRODUCT,
    FREE_VCPUS,
    NOT_A_HOST,
    SOURCE_CLASS,
    SOURCE_COLUMN,
    SOURCE_GROUP,
    SOURCE_PACKING,
    SOURCE_ROW,
    VCPUS_TOTAL,
    VCPUS_USED,
)

Arrays = dict[str, NDArray[Any]]

RESOURCES, COLUMNS = 3, 18
BLOCKS = ("avail", "used", "limit", "min_unit", "max_unit", "step_size")
STEADY = range(14, COLUMNS)
"""Columns that are never edited, so that terms may rely on it."""
FIGURES = (0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 0.1, 512.0, 4096.5, -2048.0, 1e-3, 1e9)
SPIKES = (*FIGURES, 1e12, -1e12)
MULTIPLIERS = (1.0, -1.0, 0.0, 0.1, 3.7, 1e-3, 1e6, -1e6)
MINVALS = (None, 0.0, 1.0, -100.0)


def round_up(rows: int) -> int:
    return -(-max(rows, 1) // 64) * 64


def empty_arrays(capacity: int, resources: int = RESOURCES) -> Arrays:
    """Columns without rows in them."""
    arrays: Arrays = {name: np.zeros((resources, capacity), np.int64) for name in BLOCKS}
    arrays |= {"host": np.zeros((COLUMNS, capacity)), "class_of": np.zeros(capacity, np.int32)}
    return arrays | {"generation": np.zeros(capacity, np.int64), "first": np.full(capacity, -1, np.int32)}


def wider(arrays: Arrays, capacity: int) -> Arrays:
    """Copies with room for more rows."""
    room = empty_arrays(capacity, len(arrays["avail"]))
    for name, array in arrays.items():
        room[name][..., : array.shape[-1]] = array
    return room


def settle(arrays: Arrays, rows: Any) -> None:
    """Recompute what follows from other columns, as placement/ does."""
    room = arrays["limit"][:, rows] - arrays["used"][:, rows]
    arrays["avail"][:, rows] = np.minimum(room, arrays["max_unit"][:, rows])
    host = arrays["host"]
    capacity = host[VCPUS_TOTAL, rows] * host[CPU_ALLOCATION_RATIO, rows]
    host[FREE_VCPUS, rows] = capacity - host[VCPUS_USED, rows]


class Maker:
    """Makes rows from a seed. A column takes one value in all rows, or few, or another one in each."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.palettes = [self._palette() for _ in range(COLUMNS)]
        self.steady = self.random.choice(FIGURES, (COLUMNS, 64))
        self.palettes[CPU_ALLOCATION_RATIO] = np.array([1.0, 1.5, 16.0, 0.1])[: self.random.integers(1, 5)]
        self.spacious = bool(self.random.integers(0, 3))

    def _palette(self) -> NDArray[np.float64]:
        if self.random.integers(0, 3) == 0:
            return self.random.uniform(-1e4, 1e4, 5000)
        return self.random.choice(FIGURES, self.random.integers(1, 5))

    def fill(self, arrays: Arrays, rows: NDArray[np.int32], classes: int) -> None:
        """Write new rows. The consumers' columns, ``first`` and ``generation``, are left alone."""
        pick, count = self.random.choice, len(rows)
        for column, palette in enumerate(self.palettes):
            arrays["host"][column, rows] = pick(palette, count)
        for column in STEADY:
            arrays["host"][column, rows] = self.steady[column, rows % 64]
        limits = [8, 100, 1000] if self.spacious else [0, 4, 8, 100]
        shape = (len(arrays["avail"]), count)
        for name, values in {
            "limit": limits,
            "used": [0, 0, 1, 6],
            "min_unit": [0, 1, 1, 2],
            "max_unit": [4, 1000, 1000],
            "step_size": [0, 1, 1, 2, 3],
        }.items():
            arrays[name][:, rows] = pick(values, shape)
        arrays["class_of"][rows] = self.random.integers(0, classes, count)
        settle(arrays, rows)


@dataclass
class Signature:
    """A ranking's arguments, with arrays that may be edited and grown; both implementations read the same ones."""

    class_stage: NDArray[np.uint8]
    needs: list[tuple[int, int, int, bool]] = field(default_factory=list)
    bounds: list[tuple[int, float, float, int]] = field(default_factory=list)
    masks: list[tuple[NDArray[np.uint8], int]] = field(default_factory=list)
    terms: list[dict[str, Any]] = field(default_factory=list)
    affinity_stage: int = 0
    anti_affinity_stage: int = 0
    shuffle: bool = False
    subset: int = 1

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(vars(self))

    def widen(self, capacity: int) -> None:
        """Make all arrays by row span ``capacity``."""
        self.masks = [(np.resize(mask, capacity), stage) for mask, stage in self.masks]
        for term in self.terms:
            if term["source"] == SOURCE_ROW:
                term["values"] = np.resize(term["values"], capacity)

    def add_class(self, stage: int, value: float) -> None:
        """Make room for one more host class. A term with one multiplier for all may get one by class."""
        self.class_stage = np.append(self.class_stage, np.uint8(stage))
        for position, term in enumerate(self.terms):
            if term["source"] == SOURCE_CLASS:
                term["values"] = np.append(term["values"], value)
                cap(term)
            if term.get("multipliers") is None and position % 2:
                term["multipliers"] = np.full(len(self.class_stage) - 1, term["multiplier"])
            if term.get("multipliers") is not None:
                set_multipliers(term, np.append(term["multipliers"], value))


def cap(term: dict[str, Any]) -> None:
    """Keep the promise that no value is above maxval."""
    if "values" in term:
        np.minimum(term["values"], term.get("maxval", np.inf), out=term["values"])


def set_multipliers(term: dict[str, Any], multipliers: NDArray[np.float64]) -> None:
    term["multipliers"] = multipliers
    term["least_multiplier"], term["greatest_multiplier"] = float(multipliers.min()), float(multipliers.max())


SOURCES = (
    *(SOURCE_COLUMN, SOURCE_COLUMN, SOURCE_COLUMN, SOURCE_CLASS),
    *(SOURCE_ROW, SOURCE_GROUP, SOURCE_GROUP, SOURCE_PACKING, SOURCE_PACKING),
)
SEARCHED = (SOURCE_COLUMN, SOURCE_COLUMN, SOURCE_CLASS, SOURCE_GROUP)
columns = st.integers(0, COLUMNS - 1)
stages = st.integers(1, 12)
lows, highs = st.sampled_from([-np.inf, -2048.0, 0.0]), st.sampled_from([np.inf, 512.0, 4e9])


@st.composite
def terms(draw: st.DrawFn, classes: int, capacity: int, sources: Sequence[int] = SOURCES) -> dict[str, Any]:
    """One weigher of any of the kinds."""
    source = draw(st.sampled_from(sources))
    term: dict[str, Any] = {"source": source, "multiplier": draw(st.sampled_from(MULTIPLIERS))}
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    if draw(st.booleans()):
        term["minval"] = draw(st.sampled_from(MINVALS))
    if source == SOURCE_COLUMN:
        term["column"] = draw(columns)
        term["steady"] = term["column"] in STEADY and draw(st.booleans())
    elif source == SOURCE_GROUP:
        term["group_factor"] = draw(st.sampled_from([1.0, -1.0, 0.1]))
    elif source == SOURCE_PACKING:
        term["formula"] = draw(st.integers(DOT_PRODUCT, DELTA_PERP))
        term["asked"] = draw(st.sampled_from([(1.0, 1.0), (2.0, 0.5), (0.0, 3.3), (1e3, 0.1)]))
        term["by_load"] = draw(st.integers(0, 3)) == 0
    else:
        term["values"] = random.choice(FIGURES, classes if source == SOURCE_CLASS else capacity)
    if source != SOURCE_COLUMN and draw(st.integers(0, 3)) == 0:
        term["maxval"] = (term.get("minval") or 0.0) + draw(st.sampled_from([0.0, 1.0, 2.5]))
        cap(term)
    if draw(st.booleans()):
        set_multipliers(term, random.choice(MULTIPLIERS, classes))
    return term


@st.composite
def signatures(draw: st.DrawFn, classes: int, capacity: int) -> Signature:
    """Any mix of filters and weighers; every other time one that a search of the host index can decide."""
    searched = draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    judged = draw(st.lists(st.sampled_from([0, 0, 0, 3, 7, NOT_A_HOST]), min_size=classes, max_size=classes))
    need = st.tuples(st.integers(0, RESOURCES - 1), st.integers(0, 6), stages, st.booleans())
    bound = st.tuples(columns, lows, highs, stages)
    masks = [
        (random.random(capacity) < 0.8).astype(np.uint8) for _ in range(0 if searched else draw(st.integers(0, 2)))
    ]
    weighers = terms(classes, capacity, SEARCHED if searched else SOURCES)
    return Signature(
        class_stage=np.array(judged, np.uint8),
        needs=draw(st.lists(need, max_size=3)),
        bounds=draw(st.lists(bound, max_size=2)),
        masks=[(mask, draw(stages)) for mask in masks],
        terms=draw(st.lists(weighers, min_size=draw(st.sampled_from([0, 1, 2, 3])), max_size=6)),
        affinity_stage=draw(st.sampled_from([0, 1, 5, 13])),
        anti_affinity_stage=draw(st.sampled_from([0, 2, 5, 14])),
        shuffle=not searched and draw(st.booleans()),
        subset=draw(st.sampled_from([1, 1, 2, 5, 10**6])),
    )


def plain(value: Any) -> Any:
    """A value that is equal to another's only if every bit is, the sign of zero aside."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, (value + value.dtype.type(0)).tobytes()
    if isinstance(value, float):
        return (value + 0.0).hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def outcome(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[Any, ...]:
    """What a call answers, to the bit, or the kind of error that it raises."""
    try:
        return "answer", plain(call(*arguments, **named))
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        return "error", type(error)


def words(first: int, count: int) -> NDArray[np.uint64]:
    """uuids number ``first`` and so on, as (hi, lo)."""
    return np.stack([np.full(count, 7), np.arange(first, first + count)], axis=1).astype(np.uint64)


def int32(values: Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
    return np.array(values, np.int32)
