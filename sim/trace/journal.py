"""Reads the journal of a Hostler service as a workload: the arrivals and departures of its guests.

What a journal means is known to the service's side, which this one does not import: the reader is found by its entry
point, ``journal`` of the group ``hostler.traces``, and gives placement's plain values.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue
from ...placement.types.guest_history import GuestHistory, PastGuest
from ...placement.types.request import RequestSpec
from .derived import derived
from .published import is_packing_trace
from .workload import ALONE, NEVER, STEP_S, Workload

READERS: Final = "hostler.traces"
DAY_S: Final = 86_400


def is_journal(path: Path) -> bool:
    """True for a service's data folder, or a segment of the journal in one."""
    return path.is_dir() or (path.suffix in (".sqlite", ".db") and not is_packing_trace(path))


def read_journal(path: Path) -> Workload:
    """The guests of a journal; second 0 is the midnight (UTC) before it begins.

    A guest that was refused then comes as well, and stays as long as the median of the guests with its flavor that
    left, or of all that left; until the end if none did. InvalidValue, or the errors of who reads journals, for what is
    none. O(commands + guests log guests).
    """
    history = _reader()(path)
    if not history.guests:
        raise InvalidValue(f"{path}: no guests", field="trace")
    zero = history.began // DAY_S * DAY_S
    came = np.array([guest.came for guest in history.guests]) - zero
    left = np.array([np.inf if guest.left is None else guest.left for guest in history.guests]) - zero
    specs, spec = _specs(history)
    refused = np.array([not guest.placed for guest in history.guests])
    left[refused] = (came + _stays(came, left, np.array([_flavors(specs)[each] for each in spec])))[refused]
    arrival = (came // STEP_S * STEP_S).astype(np.int64)
    ends = np.isinf(left)
    steps = (np.ceil(np.where(ends, 0.0, left) / STEP_S) * STEP_S).astype(np.int64)
    start_s = int(history.began - zero) // STEP_S * STEP_S
    order = np.argsort(arrival[history.standing :], kind="stable") + history.standing
    order = np.concatenate([np.arange(history.standing), order])
    arrival[: history.standing] = start_s - STEP_S
    return Workload(
        name=_named(path, history),
        specs=specs,
        arrival_s=arrival[order],
        departure_s=np.where(ends, NEVER, np.maximum(steps, arrival + STEP_S))[order],
        spec=spec[order],
        batch=np.array([guest.batch for guest in history.guests], np.int64)[order],
        group=_groups(history.guests)[order],
        standing=history.standing,
        start_s=start_s,
        end_s=int(history.ended - zero) // STEP_S * STEP_S + STEP_S,
    )


def _reader() -> Callable[[Path], GuestHistory]:
    for entry_point in entry_points(group=READERS, name="journal"):
        reader: Callable[[Path], GuestHistory] = entry_point.load()
        return reader
    raise InvalidValue(f"no reader of journals is installed ({READERS}: journal)", field="trace")


def _named(path: Path, history: GuestHistory) -> str:
    kept_out = f", {history.not_admitted:,} not admitted" if history.not_admitted else ""
    kept_out += f", {history.volumes:,} volumes left out" if history.volumes else ""
    return f"journal of {path.name}{kept_out}"


def _specs(history: GuestHistory) -> tuple[tuple[RequestSpec, ...], NDArray[np.int64]]:
    known: dict[int, int] = {}
    specs: list[RequestSpec] = []
    for guest in history.guests:
        if id(guest.spec) not in known:
            known[id(guest.spec)] = len(specs)
            specs.append(derived(guest.spec))
    return tuple(specs), np.array([known[id(guest.spec)] for guest in history.guests], np.int64)


def _flavors(specs: tuple[RequestSpec, ...]) -> list[int]:
    """By spec: which flavor it has."""
    names: dict[str, int] = {}
    return [names.setdefault(repr(spec.flavor), len(names)) for spec in specs]


def _stays(came: NDArray[Any], left: NDArray[Any], flavor: NDArray[Any]) -> NDArray[Any]:
    """For each guest the median stay, in seconds, of those with its flavor that left."""
    gone = ~np.isinf(left)
    stays = np.full(len(came), np.median((left - came)[gone]) if gone.any() else np.inf)
    for each in np.unique(flavor[gone]):
        stays[flavor == each] = np.median((left - came)[gone & (flavor == each)])
    return stays


def _groups(guests: tuple[PastGuest, ...]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(guest.group, len(numbers)) if guest.group else ALONE for guest in guests], np.int64
    )
