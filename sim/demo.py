"""The command ``hostler demo``: plays a made-up day, or a real trace, on a fleet in memory and shows the outcome."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..placement.types.counting import counted
from ..placement.types.host import Host
from .progress import INTERRUPTED, Stop, progress
from .report.screen import show
from .run.cloud import Cloud, made_up, one_kind
from .run.day import made_up_day
from .run.replay import Replay
from .run.sizing import Search, lower_bound
from .run.summary import Sizing, Summary, Try
from .run.tally import Tally
from .trace.azure import read_trace
from .trace.workload import Workload

app = cyclopts.App(name="demo", help="Play a day of a cloud, or a real trace, and show what the scheduler did.")

HOSTS: Final = 10_000
HOST: Final = Host(host="template", vcpus_total=64, cpu_allocation_ratio=1.0, total_usable_ram_mb=262_144)
"""The kind of host that a trace is played on."""
HOST_IN_WORDS: Final = "64 vCPU and 256 GiB, nothing shared"


@app.default
def demo(
    *,
    trace: Path | None = None,
    hosts: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    hours: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 2017,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Play a day of a cloud, or a real trace, and show what the scheduler did.

    Parameters
    ----------
    trace
        A trace of Azure's 2017 guests, with duration_bins.csv.gz beside it. Without one a day is made up.
    hosts
        Size of the fleet: 10,000 for the made-up day; for a trace the smallest that refuses nothing is looked for.
    hours
        How much of it: 24 for the made-up day, all of a trace.
    seed
        The same seed makes the same day and the same decisions.
    json
        Print the summary for programs.
    """
    with Stop() as stop:
        summary = (
            _day(stop, hosts or HOSTS, hours or 24, seed) if trace is None else _trace(stop, trace, hosts, hours, seed)
        )
    if json:
        print(msgspec.json.format(msgspec.json.encode(summary), indent=2).decode())
    else:
        show(summary)
    return INTERRUPTED if summary.interrupted else 0


def _day(stop: Stop, hosts: int, hours: int, seed: int) -> Summary:
    cloud = made_up(hosts, seed=seed)
    tally = _play(
        stop, cloud, made_up_day(cloud, seed=seed, hours=hours), seed, f"{hours} h on {counted(hosts, 'host')}"
    )
    return tally.summary(seed=seed, interrupted=stop.requested)


def _trace(stop: Stop, path: Path, hosts: int | None, hours: int | None, seed: int) -> Summary:
    workload = read_trace(path)
    if hours is not None:
        workload = workload.first(hours)
    if hosts is None:
        return _smallest(stop, workload, seed)
    tally = _play(stop, one_kind(hosts, HOST), workload, seed, f"{workload.name} on {counted(hosts, 'host')}")
    return tally.summary(seed=seed, interrupted=stop.requested)


def _smallest(stop: Stop, workload: Workload, seed: int) -> Summary:
    """The replay on the smallest fleet that refuses nothing; its refusal is that of the fleet with one host less."""
    bound = lower_bound(workload, HOST)
    search, tries = Search(bound), list[Try]()
    held = refusal = None
    while (hosts := search.candidate) is not None:
        label = f"{workload.name} on {counted(hosts, 'host')}"
        tally = _play(stop, one_kind(hosts, HOST), workload, seed, label, until_refused=True)
        if stop.requested:
            sizing = Sizing(host=HOST_IN_WORDS, lower_bound=bound, chosen=None, tries=tuple(tries))
            return replace(tally.summary(seed=seed, interrupted=True), sizing=sizing)
        tries.append(Try(hosts=hosts, refused_at_s=tally.samples[-1].at_s if tally.refused else None))
        search.note(hosts, holds=not tally.refused)
        held, refusal = (held, tally.refusal()) if tally.refused else (tally, refusal)
    assert held is not None
    sizing = Sizing(host=HOST_IN_WORDS, lower_bound=bound, chosen=search.enough, tries=tuple(tries))
    return replace(held.summary(seed=seed, interrupted=False), sizing=sizing, refusal=refusal)


def _play(stop: Stop, cloud: Cloud, workload: Workload, seed: int, label: str, *, until_refused: bool = False) -> Tally:
    """Play the workload until its end, the first refusal if so wanted, or Ctrl-C."""
    replay = Replay(cloud.engine(seed), workload)
    tally = Tally(cloud, replay)
    with progress(label, len(workload.steps)) as advance:
        for step in replay.steps():
            tally.add(step)
            advance()
            if stop.requested or (until_refused and tally.refused):
                break
    return tally
