"""Runs as values that can be sent anywhere: described, executed on one core, a pool of processes or a Dask cluster, and
collected in the order they were given. The outcomes are the same however they are spread."""

from __future__ import annotations

import functools
import hashlib
import math
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ...placement.policy.policy import Policy
from ...placement.types.errors import InvalidValue
from ...placement.types.extras import import_extra
from ...placement.types.request import RequestSpec
from ..run.fleet_plan import FleetPlan
from ..run.policies import ON_GPUS, asked_rules, policy_of, typical_guests
from ..run.run import Outcome, Run
from ..run.standing_state import standing_uuids
from ..trace.catalogue import read_flavors
from ..trace.files import read_trace
from ..trace.generator import Made, devops
from ..trace.workload import NEVER, Guests, Workload
from .kept_outcomes import Kept
from .least import check_possible

DEVOPS: Final = "devops"
"""Name of the made-up workload that needs no trace."""
DEVOPS_HOURS: Final = 120.0
"""How long it is if nothing is said."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where guests come from: a trace as it is (``made_hours`` 0), or so many hours made after it from the task's seed;
    or the preset ``devops``, whose hours are ``made_hours``. ``growth_error``: standard deviation of the growth per
    year, which each seed draws. ``time_unit``, ``tz``: how times are written. ``flavors``: the catalogue that the trace
    refers to. ``usage``: range results of Prometheus that tell what guests use. ``machine``: vCPUs x GiB of the machine
    that sizes of published traces are fractions of. Without ``standing`` no guest stands at the beginning: others do,
    those of a state."""

    trace: str
    columns: dict[str, str] = {}
    flavors: str = ""
    first_hours: float = 0.0
    made_hours: float = 0.0
    growth_per_year: float = 0.0
    growth_error: float = 0.0
    scale: float = 1.0
    time_unit: str = ""
    tz: str = ""
    usage: str = ""
    standing: bool = True
    machine: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``counts``: hosts by hardware; ``cpu_ratio`` 0: as in the plan. ``until_hours``: when the run ends; None
    when the last guest with a known end has left and none waits. ``stop_percent``: the run may end once more than this
    part of a day's requests was refused; ``most_unserved``: once more guests were not served; below 0: never. Guests
    that no host could ever hold are an error, unless ``refuse_impossible``: then they are refused. The guests of the
    plan's state leave as guests of the trace do where guests are made after it, unless ``standing_stay``."""

    plan: FleetPlan
    source: Source
    policy: str = "nova"
    counts: dict[str, int] = {}
    cpu_ratio: float = 0.0
    seed: int = 0
    wait_hours: float = 0.0
    stop_percent: float = -1.0
    most_unserved: int = -1
    until_hours: float | None = None
    refuse_impossible: bool = False
    standing_stay: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of all that the outcome depends on, the contents of files included."""
        digest = hashlib.sha256(msgspec.json.encode(self))
        for name in (self.source.trace, self.source.flavors, self.source.usage, self.policy, self.plan.state):
            for path in _files(Path(name)) if name else ():
                digest.update(_content(path, _stamp(path)))
        return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """The file, or those in the folder, if there are any."""
    return sorted(each for each in (path.iterdir() if path.is_dir() else [path]) if each.is_file())


Stamp = tuple[str, int, int, int, int]
Stamps = tuple[Stamp, ...]


def _stamp(path: Path) -> Stamp:
    """What tells a file from a changed one: its name, size, times and inode. A copy that keeps the time of modification
    changes that of the inode."""
    state = path.stat()
    return (str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@functools.lru_cache(maxsize=64)
def _content(path: Path, stamp: Stamp) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def workload_of(source: Source, seed: int) -> Guests:
    """The guests of a source, read again if a file has changed. InvalidValue or UnknownName for what cannot be read or
    made."""
    made = source.trace == DEVOPS or source.made_hours > 0
    return _workload(msgspec.json.encode(source), seed if made else 0, _stamps(source))


def _stamps(source: Source) -> Stamps:
    """The stamps of the files of a source."""
    names = (source.trace, source.flavors, source.usage)
    return tuple(_stamp(path) for name in names if name for path in _files(Path(name)))


@functools.lru_cache(maxsize=4)
def _workload(encoded: bytes, seed: int, stamps: Stamps) -> Guests:
    source = msgspec.json.decode(encoded, type=Source)
    if source.trace == DEVOPS:
        for name in ("columns", "flavors", "time_unit", "tz", "usage", "machine", "growth_error"):
            if getattr(source, name):
                raise InvalidValue(f"the guests of {DEVOPS} are made: {name} says nothing of them", field=name)
        if source.first_hours and source.made_hours:
            problem = f"the guests of {DEVOPS} are made for so many hours as are asked: hours says nothing of them"
            raise InvalidValue(problem, field="hours")
        hours = source.first_hours or source.made_hours or DEVOPS_HOURS
        growth, scale = source.growth_per_year, source.scale
        return devops(days=math.ceil(hours / 24), seed=seed, growth_per_year=growth, scale=scale).first(hours)
    if not source.made_hours and (source.growth_per_year or source.growth_error or source.scale != 1):
        hint = "make guests after the trace: --make-hours"
        raise InvalidValue("growth and scale are for guests that are made", field="growth", hint=hint)
    told = (source.time_unit, source.tz, source.usage, source.machine)
    trace = _trace(source.trace, msgspec.json.encode(source.columns), source.flavors, told, stamps)
    if source.first_hours:
        trace = trace.first(source.first_hours)
    if not source.made_hours:
        return trace if source.standing else trace.arriving()
    growth, scale = source.growth_per_year, source.scale
    error = source.growth_error
    return Made(
        trace,
        hours=source.made_hours,
        seed=seed,
        growth_per_year=growth,
        growth_error=error,
        scale=scale,
        warm_up=True,
        standing=source.standing,
    )


@functools.lru_cache(maxsize=2)
def _trace(path: str, columns: bytes, flavors: str, told: tuple[str, str, str, str], stamps: Stamps) -> Workload:
    catalogue = read_flavors(Path(flavors)) if flavors else None
    unit, tz, usage, machine = told
    return read_trace(
        Path(path),
        msgspec.json.decode(columns, type=dict[str, str]),
        catalogue,
        time_unit=unit,
        tz=tz,
        usage=Path(usage) if usage else None,
        machine=machine,
    )


def planned(task: Task) -> FleetPlan:
    """The plan with the task's numbers of hosts and over-commit."""
    plan = task.plan.with_counts(task.counts)
    return plan.with_ratio(task.cpu_ratio) if task.cpu_ratio else plan


def start(task: Task) -> Run:
    """The run, not yet played. InvalidValue for guests that no host could ever hold."""
    workload = workload_of(source_of(task), task.seed)
    run = Run(
        planned(task),
        workload,
        _policy(task, workload),
        seed=task.seed,
        wait_hours=task.wait_hours,
        until_hours=task.until_hours,
        standing_leave=_standing_leave(task, workload),
    )
    if not task.refuse_impossible:
        check_possible(task.plan, workload)
    return run


def source_of(task: Task) -> Source:
    """Where the guests of a task come from: where the plan has a state, its guests are those that stand there."""
    return msgspec.structs.replace(task.source, standing=False) if task.plan.state else task.source


def _standing_leave(task: Task, workload: Guests) -> dict[str, int] | None:
    """When the guests of the state leave that do, by uuid."""
    if not task.plan.state or task.standing_stay or not isinstance(workload, Made):
        return None
    uuids = standing_uuids(Path(task.plan.state))
    left = workload.left_of_others(len(uuids), task.seed).tolist()
    return {uuid: workload.start_s + each for uuid, each in zip(uuids, left, strict=True) if each != NEVER}


def _policy(task: Task, guests: Guests) -> Policy:
    """The task's policy. InvalidValue for one of GPUs where there are none."""
    filters, weighers = asked_rules(guests.specs, [each.policy for each in guests.terms])
    if task.policy not in ON_GPUS:
        return policy_of(task.policy, filters=filters, weighers=weighers)
    if not any(kind.gpus for kind in task.plan.hardware):
        hint = "gpus in a fleet file's hardware, or another policy"
        raise InvalidValue(f"policy {task.policy} is for fleets with GPUs: there are none", field="policy", hint=hint)
    trace = guests.trace if isinstance(guests, Made) else guests
    counts = np.zeros(len(trace.specs), np.int64)
    for part in trace.parts():
        counts += np.bincount(part.spec, minlength=len(counts))
    asked: Counter[RequestSpec] = Counter()
    for spec, count in zip(trace.specs, counts.tolist(), strict=True):
        asked[spec] += count
    return policy_of(task.policy, typical_guests(asked), filters=filters, weighers=weighers)


def execute(task: Task, watch: Callable[[Run], None] = lambda run: None) -> Outcome:
    """Play a task to its end. ``watch`` is called after each step."""
    run = start(task)

    def advance() -> bool:
        watch(run)
        return task.stop_percent < 0 or not _refuses(run, task.stop_percent)

    return run.play(advance, until_unserved=task.most_unserved if task.most_unserved >= 0 else None)


def _refuses(run: Run, percent: float) -> bool:
    """True once more than ``percent`` of the requests of a whole day were refused."""
    pairs = zip(run.requests_by_day[:-1], run.refused_by_day[:-1], strict=True)
    return any(100 * refused > percent * max(n, 1) for n, refused in pairs)


def outcomes(
    tasks: Sequence[Task], *, workers: int = 0, cluster: str = "", resume: Path | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Each task's number and outcome, in order. ``workers`` 0: one per core; ``cluster``: address of a Dask scheduler.

    ``resume``: a file that outcomes are kept in, so that what it already has is not played again. InvalidValue for a
    file of another kind, or a cluster that cannot be reached."""
    for name in dict.fromkeys(task.policy for task in tasks):
        policy_of(name)  # an unknown one should not be found out after hours
    kept = Kept(resume)
    digests = [task.digest if resume is not None else "" for task in tasks]
    missing = [task for task, digest in zip(tasks, digests, strict=True) if kept.get(digest) is None]
    with _mapped(missing, workers, cluster) as played:
        for number, digest in enumerate(digests):
            yield number, kept.get(digest) or kept.put(digest, next(played))


@contextmanager
def _mapped(tasks: Sequence[Task], workers: int, cluster: str) -> Iterator[Iterator[Outcome]]:
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if cluster:
        with _client(cluster) as client:
            futures = client.map(execute, tasks, pure=False)
            yield (future.result() for future in futures)
    elif workers <= 1:
        yield map(execute, tasks)
    else:
        others = set(multiprocessing.active_children())
        # Ctrl-C in a terminal reaches all of its processes, and is this one's to judge.
        pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
        try:
            futures = [pool.submit(execute, task) for task in tasks]
            yield (future.result() for future in futures)
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()  # nothing is cancelled: the pool breaks, which ends it at once
            raise
        finally:
            pool.shutdown(wait=False)


def _client(address: str) -> Any:
    distributed = import_extra("distributed", "cluster", field="cluster")
    try:
        return distributed.Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise InvalidValue(f"cluster {address}: {error}", field="cluster") from None
