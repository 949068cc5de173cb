"""Saves an interrupted run to a file, to resume it later with the same result."""

from __future__ import annotations

import os
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ...placement.persist.file import load as load_fleet
from ...placement.persist.file import save as save_fleet
from ...placement.types.errors import InvalidValue
from ..trace.workload import STEP_S
from .coming import Coming
from .evacuation import Off
from .headroom import Busiest, Headroom
from .run import Run, Sample

FORMAT: Final = 5


class RunState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of a Run that changes but its fleet. The names are those of its attributes."""

    played: int
    placed: int
    alive: int
    offered: int
    waited: int
    burst: int
    waited_s: int
    longest_wait_s: int
    peak_guests: int
    first_refusal: float | None
    requests_by_day: list[int]
    refused_by_day: list[int]
    samples: list[Sample]
    _busiest: Sample | None
    _busy: float
    refusals: dict[str, int]
    _building: list[str]
    _guest_s: int
    _burst_vcpu_s: int
    _burst_vcpus: int
    _host_hours_cost: float
    reached_s: int
    _ends_s: int
    _measured: int
    _sums: list[float]
    _peaks: list[float]
    _leaving: dict[int, list[str]]
    _queue: list[list[int]]


class EvacuationState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of an Evacuation."""

    off: dict[str, Off]
    draining: dict[str, None]
    lost_for: dict[str, int]
    migrated: int
    stopped: int
    evacuated: int
    preempted: int
    _down_s: int
    _host_s: int
    _longest_s: int


class ContentionState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of a run's contention."""

    at: dict[str, tuple[int, float, float]]
    host_s: float
    above_s: list[float]


class GroupsState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of a run's groups."""

    _kept: set[int]
    _members: dict[int, int]
    _group_of: dict[str, int]


class BusiestState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of a run's busiest moment, tried."""

    percent: float
    headroom: Headroom | None


class Checkpoint(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the file holds. ``task``: digest of the task that was being played."""

    format: int
    task: str
    sequence: int
    run: RunState
    evacuation: EvacuationState
    preemptible: dict[str, int]
    contention: ContentionState | None
    groups: GroupsState
    busiest: BusiestState
    fleet: bytes
    outages: list[int] = []


def save(run: Run, busiest: Busiest, task: str, path: Path) -> None:
    """Write a run that stands between two steps, and its busiest moment. InvalidValue for a file that cannot be
    written. O(guests + hosts)."""
    busiest.tried()
    fleet = run.engine.fleet
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            save_fleet(fleet, Path(folder) / "fleet")
            kept = Checkpoint(
                format=FORMAT,
                task=task,
                sequence=run.engine.sequence,
                run=_read(run, RunState),
                evacuation=_read(run.evacuation, EvacuationState),
                preemptible=run.preemption.priority if run.preemption is not None else {},
                contention=None if run.contention is None else ContentionState(**run.contention.state()),
                groups=_read(run.groups, GroupsState),
                busiest=_read(busiest, BusiestState),
                fleet=(Path(folder) / "fleet").read_bytes(),
                outages=run.outages.counts,
            )
            new = Path(folder) / "new"
            new.write_bytes(msgspec.msgpack.encode(kept))
            os.replace(new, path)
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be written: {error}", field="resume") from None


def check(path: Path) -> None:
    """InvalidValue for a path that no run could be kept at."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-"):
            pass
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
    except OSError as error:
        raise InvalidValue(f"{path}: cannot be written: {error}", field="resume") from None


def resume(run: Run, busiest: Busiest, task: str, path: Path) -> None:
    """Bring a new run to where the one in the file was. InvalidValue for a file that is not a checkpoint, or of another
    task; SnapshotError for a damaged fleet in it. O(guests + hosts)."""
    try:
        kept = msgspec.msgpack.decode(path.read_bytes(), type=Checkpoint)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidValue(f"{path}: no interrupted run: {error}", field="resume") from None
    if kept.format != FORMAT or kept.task != task:
        hint = "the same inputs, options and seed, or another file"
        raise InvalidValue(f"{path}: of another run than this one", field="resume", hint=hint)
    with tempfile.TemporaryDirectory(prefix="hostler-") as folder:
        (Path(folder) / "fleet").write_bytes(kept.fleet)
        fleet = load_fleet(Path(folder) / "fleet")
    if kept.run.played:
        last_s = run.workload.steps.start + (kept.run.played - 1) * STEP_S
        run.site.happen((last_s - run.workload.start_s) / 3600)
    run.site.replace_fleet(fleet, kept.sequence)
    run.engine = run.groups.engine = run.site.engine
    run.outages.counts = kept.outages or run.outages.counts
    if run.preemption is not None:
        run.preemption.priority = kept.preemptible
    if run.contention is not None and kept.contention is not None:
        run.contention.engine = run.engine
        run.contention.restore(kept.contention.at, kept.contention.host_s, kept.contention.above_s)
    parts = ((run, kept.run), (run.evacuation, kept.evacuation), (run.groups, kept.groups), (busiest, kept.busiest))
    for part, state in parts:
        for name in state.__struct_fields__:
            before = getattr(part, name)
            setattr(part, name, _like(before, getattr(state, name)))
    if run.domains is not None:
        run.domains.count([uuid for uuid in run.groups.members() if uuid not in run.evacuation.off])


def _read(part: Any, kind: type[Any]) -> Any:
    """A part's attributes as the struct ``kind`` of the same names."""
    plain = {name: getattr(part, name) for name in kind.__struct_fields__}
    for name, value in plain.items():
        if isinstance(value, Coming):
            plain[name] = [column.tolist() for column in value]
        elif isinstance(value, np.ndarray):
            plain[name] = value.tolist()
    return kind(**plain)


def _like(before: Any, value: Any) -> Any:
    """A plain value in the form that the attribute had."""
    if isinstance(before, Coming):
        return Coming(*(np.array(column, np.int64) for column in value))
    if isinstance(before, np.ndarray):
        return np.array(value, before.dtype)
    if isinstance(before, Counter):
        return Counter(value)
    if isinstance(before, defaultdict):
        return defaultdict(before.default_factory, value)
    return value
