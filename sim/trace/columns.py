"""What a trace's columns mean: texts of a CSV file, some rows at a time, as the columns of a workload."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.gpu.providers import gpu_extra_specs
from ...placement.types.errors import HostlerError, UnknownName
from ...placement.types.request import Flavor, RequestSpec
from .clock import Clock
from .csv_columns import MOST, Kept, Texts, Wrong
from .workload import ALONE, NEVER, STEP_S

COLUMNS: Final[Mapping[str, str]] = {
    "id": "name of the guest; none may be there twice",
    "arrival_s": "seconds from the beginning, or a point in time; before 0: it stands there at the beginning",
    "departure_s": "seconds from the beginning; empty: never",
    "lifetime_s": "seconds; empty: forever",
    "flavor": "name of a flavor of the catalogue, in place of sizes",
    "vcpus": "vCPUs",
    "cpu_milli": "thousandths of a CPU, rounded up to whole ones",
    "memory_mb": "MiB",
    "memory_gb": "GiB",
    "disk_gb": "GiB",
    "gpus": "number of GPUs",
    "gpu_milli": "thousandths of each GPU",
    "gpu_models": "A|B",
    "zone": "availability zone; empty: any",
    "batch": "guests asked for together have the same",
    "group": "guests that must not share a host have the same; empty: none",
}
"""What a trace may say of a guest, and in which unit."""
_FLAVORED: Final = ("flavor", "zone")
_SIZED: Final = ("vcpus", "cpu_milli", "memory_mb", "memory_gb", "disk_gb", "gpus", "gpu_milli", "gpu_models", "zone")
"""What makes the spec of a guest, with a catalogue and without."""
Whole = NDArray[np.int64]


class Columns:
    """Takes what a trace's rows say, chunk by chunk, and gives the columns of a workload, in the order of the file.
    ``flavors``: the catalogue of flavors, if sizes are given by name. ``clock``: how times are written."""

    def __init__(self, flavors: Mapping[str, Flavor] | None, clock: Clock = Clock()) -> None:  # noqa: B008  # a constant
        self._clock = clock
        self._ids: set[str] = set()
        self._again: set[str] = set()
        self._new_ids: set[str] = set()
        self._shaped = _FLAVORED if flavors is not None else _SIZED
        self._specs: list[RequestSpec] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        """Of specs, by what is different about them."""
        self._flavors = flavors
        self._shapes = _Known(self._number_of)
        self._shape_names: tuple[str, ...] = ()
        self._batches = Names()
        self._groups: dict[str, int] = {}
        self._kept = Kept()

    @property
    def specs(self) -> tuple[RequestSpec, ...]:
        """One per shape that has occurred."""
        return tuple(self._specs)

    def convert(self, texts: Texts) -> dict[str, Whole]:
        """The columns for some rows. Wrong for what cannot be."""
        arrival = self._clock.seconds(texts["arrival_s"], "arrival_s")
        if np.isnan(arrival).any():
            raise Wrong("arrival_s", "is missing")
        steps = np.floor(arrival / STEP_S).astype(np.int64) * STEP_S
        count, before = len(arrival), self._kept.rows
        batch, group = texts.get("batch"), texts.get("group")
        columns = {
            "arrival_s": steps,
            "departure_s": _departures(self._clock, texts, arrival, steps),
            "spec": self._spec(texts, count),
            "batch": np.arange(before, before + count) if batch is None else self._batches.numbers(batch, before),
            "group": np.full(count, ALONE) if group is None else _groups(self._groups, group),
        }
        self._check_ids(texts.get("id", ()))
        return columns

    def _check_ids(self, ids: Sequence[str]) -> None:
        """Wrong for a guest that was there before: in a chunk before this one, or a row of this one that was seen again
        by itself to find which is at fault."""
        found = [each for each in ids if each]
        new = set(found)
        if len(ids) != 1:
            self._again = set()
        if len(new) < len(found) or new & self._ids or new & self._again:
            raise Wrong("id", f"is {ids[0][:40]!r}, which was there before")
        self._again |= new if len(ids) == 1 else set()
        self._new_ids = new

    def add(self, chunk: Mapping[str, Whole]) -> None:
        """Keep the columns of the rows that come next."""
        self._ids |= self._new_ids
        self._again = set()
        self._kept.add(chunk)

    def columns(self) -> dict[str, Whole]:
        """The columns of all rows, which are not kept here any more."""
        columns = self._kept.columns()
        self._batches.settle(columns["batch"])
        return columns

    def _spec(self, texts: Texts, count: int) -> Whole:
        self._shape_names = tuple(name for name in self._shaped if name in texts)
        shapes = zip(*(texts[name] for name in self._shape_names), strict=True)
        return np.fromiter(map(self._shapes.__getitem__, shapes), np.int64, count)

    def _number_of(self, shape: tuple[str, ...]) -> int:
        """The number of the spec that a guest has of whom a row says so much."""
        told = dict(zip(self._shape_names, shape, strict=True))
        flavor = _sized(told) if self._flavors is None else self._named(told["flavor"])
        zone = told.get("zone") or None
        sizes = (flavor.vcpus, flavor.memory_mb, flavor.root_gb, *flavor.extra_specs.items())
        number = self._numbers.setdefault((flavor.name, zone, *sizes), len(self._specs))
        if number == len(self._specs):
            self._specs.append(RequestSpec(flavor=flavor, availability_zone=zone))
        return number

    def _named(self, name: str) -> Flavor:
        assert self._flavors is not None
        if name not in self._flavors:
            error = UnknownName.among("flavor", name, self._flavors)
            raise Wrong("flavor", f"is {name[:40]!r}, which the catalogue has not", hint=error.hint, kind=UnknownName)
        return self._flavors[name]


class _Known(dict[tuple[str, ...], int]):
    """The numbers of shapes that have occurred, asked of ``number_of`` the first time."""

    def __init__(self, number_of: Callable[[tuple[str, ...]], int]) -> None:
        super().__init__()
        self._number_of = number_of

    def __missing__(self, shape: tuple[str, ...]) -> int:
        number = self[shape] = self._number_of(shape)
        return number


class Names:
    """Numbers for names: those that are whole numbers stand for themselves, so that they need no memory."""

    def __init__(self) -> None:
        self._others: dict[str, int] = {}

    def numbers(self, texts: Sequence[str], rows_before: int) -> Whole:
        """A number for each name, the same for the same; for nothing a negative one of its own."""
        try:
            numbers = np.fromiter(map(int, texts), np.int64, len(texts))
        except (ValueError, OverflowError):
            numbers = _NONE
        if len(numbers) == len(texts) and list(map(str, numbers.tolist())) == texts and _stand(numbers):
            return numbers
        found = [self._number(text) if text else -1 - row for row, text in enumerate(texts, rows_before)]
        return np.array(found, np.int64)

    def _number(self, text: str) -> int:
        if text.isdecimal() and text.isascii() and len(text) <= _DIGITS and str(int(text)) == text:
            return int(text)
        return self._others.setdefault(text, _OTHERS + len(self._others))

    def settle(self, numbers: Whole) -> None:
        """Bring the numbers of names that are no numbers to after the others, in the numbers of all."""
        if self._others:
            others = numbers >= _OTHERS
            numbers[others] += numbers[~others].max(initial=-1) + 1 - _OTHERS


_NONE: Final[Whole] = np.empty(0, np.int64)
_DIGITS: Final = 18
_OTHERS: Final = 1 << 62
"""Ids from here on are names that are not whole numbers."""


def _stand(numbers: Whole) -> bool:
    return bool(np.all((numbers >= 0) & (numbers < 10**_DIGITS)))


def _groups(known: dict[str, int], texts: Sequence[str]) -> Whole:
    return np.array([known.setdefault(text, len(known)) if text else ALONE for text in texts], np.int64)


# times


def _departures(clock: Clock, texts: Texts, arrival: NDArray[np.float64], steps: Whole) -> Whole:
    """When guests leave, brought up to a step and at least one after they came; NEVER where nothing is said."""
    departure = np.full(len(arrival), np.nan)
    if "lifetime_s" in texts:
        departure = arrival + clock.seconds(texts["lifetime_s"], "lifetime_s")
    if "departure_s" in texts:
        told = clock.seconds(texts["departure_s"], "departure_s")
        if np.any(told < arrival):
            raise Wrong("departure_s", f"is {told[0]:.15g}, the arrival {arrival[0]:.15g}")
        departure = np.where(np.isnan(told), departure, told)
    stays = np.isnan(departure)
    ends = np.ceil(np.where(stays, 0.0, departure) / STEP_S).astype(np.int64) * STEP_S
    return np.where(stays, NEVER, np.maximum(ends, steps + STEP_S))


# sizes


def _sized(told: Mapping[str, str]) -> Flavor:
    """The flavor of a guest by its sizes. Wrong for one that cannot be."""
    vcpus = _first(told, ("vcpus", 1.0), ("cpu_milli", 0.001), least=1)
    memory_mb = _first(told, ("memory_mb", 1.0), ("memory_gb", 1024.0))
    disk_gb = math.ceil(_amount(told, "disk_gb", MOST) or 0)
    gpus, milli = _share(told, "gpus", 64) or 0, _share(told, "gpu_milli", 1000)
    extra = _gpus(1000 if milli is None else milli, gpus, told.get("gpu_models", ""))
    name = f"{vcpus}x{memory_mb}" + (f"+{gpus}x{1000 if milli is None else milli}" if extra else "")
    return Flavor(name=name, vcpus=vcpus, memory_mb=memory_mb, root_gb=disk_gb, extra_specs=extra)


def _first(told: Mapping[str, str], *ways: tuple[str, float], least: int = 0) -> int:
    """The first of the columns that says something, times its factor, rounded up."""
    for name, factor in ways:
        amount = _amount(told, name, MOST / factor)
        if amount is None:
            continue
        # A thousandth is not exact: 3000 thousandths are three.
        whole = math.ceil(round(amount * factor, 9))
        if whole < least:
            raise Wrong(name, f"is {told[name][:40]!r}")
        return whole
    raise Wrong(next(name for name, _ in ways if name in told), "is missing")


def _amount(told: Mapping[str, str], name: str, most: float) -> float | None:
    text = told.get(name, "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise Wrong(name, f"is {text[:40]!r}", hint=f"0 to {most:.15g}")
    return number


def _share(told: Mapping[str, str], name: str, most: int) -> int | None:
    number = _amount(told, name, most)
    if number is not None and number != int(number):
        raise Wrong(name, f"is {told[name][:40]!r}", hint=f"a whole number from 0 to {most}")
    return None if number is None else int(number)


def _gpus(milli: int, gpus: int, models: str) -> Mapping[str, str]:
    try:
        return gpu_extra_specs(milli, gpus, models)
    except HostlerError as error:
        raise Wrong("gpu_models", f"is {models[:40]!r}", hint=error.hint) from None
