"""Beside the real Cinder 29: the same pools and the same requests, one after the other on both, in the same run.

    python -m hostler.bench.vs_cinder

Cinder runs in an environment of its own, made from PyPI the first time, with the pyparsing that its evaluator needs.
Both sides choose and charge one volume at a time; every answer is compared. Not on Cinder's clock: its database (the
list of services) and its messages.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter

from ..placement.storage.engine import VolumeEngine
from ..placement.storage.pools.request import VolumeRequest, VolumeSpec
from .driver_process import DriverProcess, driving
from .engine import Count, machine, main
from .environments import ServiceUnavailable, kept, ready
from .storage import policy, reports, specs

CINDER: Final = ("cinder==29.0.0", "pyparsing==3.3.2")
SIZES: Final = (100, 1_000, 10_000)
FUNCTION_SIZES: Final = (20, 100)
DRIVER: Final = Path(__file__).resolve().with_name("cinder_driver.py")

app = cyclopts.App(name="vs_cinder", help="The same work on Cinder 29 and on Hostler.", result_action="return_value")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One size. Times are CPU milliseconds a request: Hostler's ``first`` for the compared requests, which meet an
    engine that has compiled nothing; ``steady``: place_many of the same requests again. ``differences``: the compared
    requests, by number, that went to different pools."""

    pools: int
    functions: bool
    requests: int
    cinder_ms: float
    hostler_first_ms: float
    hostler_steady_ms: float
    first_ratio: float
    steady_ratio: float
    differences: list[int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All comparisons of a run, and where it ran."""

    machine: str
    python: str
    cinder: str
    load_average: float
    comparisons: list[Comparison]


def compare(cinder: DriverProcess, pools: int, requests: int, *, functions: bool) -> Comparison:
    """The same requests on both."""
    chosen_policy = policy(functions=functions)
    given = reports(pools, functions=functions)
    cinder.ask("pools", reports=[{"host": each.host, "capabilities": each.capabilities} for each in given])
    cinder.ask(
        "policy",
        filters=[rule.name for rule in chosen_policy.filters],
        weighers=[weigher.name for weigher in chosen_policy.weighers],
    )
    known = specs()
    drawn = [known[index] for index in np.random.default_rng(3).integers(0, len(known), requests)]
    theirs, cinder_s = _cinder_places(cinder, drawn)
    engine = VolumeEngine(policy=chosen_policy)
    engine.pools.load(given)
    wishes = [VolumeRequest(spec=spec, now=2_000.0 + index) for index, spec in enumerate(drawn)]
    start = time.process_time()
    ours = [engine.place(wish).selection for wish in wishes]
    first = time.process_time() - start
    again = [VolumeRequest(spec=spec) for spec in drawn] * max(1, 1_000 // requests)
    gc.collect()
    gc.freeze()  # as for bench/engine.py: the collector goes through what the run made, not through all there is
    start = time.process_time()
    engine.place_many(again)
    steady = (time.process_time() - start) / len(again)
    gc.unfreeze()
    names = [None if each is None else each.backend_id for each in ours]
    return Comparison(
        pools=pools,
        functions=functions,
        requests=requests,
        cinder_ms=cinder_s / requests * 1e3,
        hostler_first_ms=first / requests * 1e3,
        hostler_steady_ms=steady * 1e3,
        first_ratio=cinder_s / first,
        steady_ratio=cinder_s / requests / steady,
        differences=[index for index, (a, b) in enumerate(zip(theirs, names, strict=True)) if a != b],
    )


def _cinder_places(cinder: DriverProcess, drawn: Sequence[VolumeSpec]) -> tuple[list[str | None], float]:
    """(pools chosen, CPU seconds)."""
    answers = [
        cinder.ask("place", request={"size": each.size_gb, "extra_specs": dict(each.extra_specs)}) for each in drawn
    ]
    return [answer["backend"] for answer in answers], sum(answer["cpu"] for answer in answers)


@app.default
def vs_cinder(
    *,
    sizes: tuple[Count, ...] = SIZES,
    function_sizes: tuple[Count, ...] = FUNCTION_SIZES,
    requests: Count = 20,
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Compare on several sizes. Exit code 1 if an answer differs, 3 if Cinder cannot be had.

    Parameters
    ----------
    sizes
        Numbers of pools under Cinder's defaults.
    function_sizes
        Numbers of pools that all have a filter_function and a goodness_function.
    requests
        Volumes placed by both; a quarter of that with functions, which take Cinder seconds each.
    venv
        Folder of Cinder's environment; made if it is not there.
    json
        Print one JSON object.
    """
    try:
        python = ready(venv or kept(CINDER[0].replace("==", "-")), CINDER)
        with driving("Cinder", python, DRIVER) as cinder:
            found = [compare(cinder, size, requests, functions=False) for size in sizes]
            found += [compare(cinder, size, max(2, requests // 4), functions=True) for size in function_sizes]
    except ServiceUnavailable as error:
        print(error, file=sys.stderr)
        return 3
    report = Report(
        machine=machine(),
        python=platform.python_version(),
        cinder=CINDER[0],
        load_average=os.getloadavg()[0],
        comparisons=found,
    )
    print(msgspec.json.encode(report).decode() if json else _table(report))
    return 1 if any(each.differences for each in found) else 0


def _table(report: Report) -> str:
    lines = [f"{report.cinder} and Hostler on {report.machine}, Python {report.python}; CPU ms a request"]
    lines.append(f"{'pools':>7} {'functions':>9} {'Cinder':>9} {'first':>8} {'steady':>8} {'ratios':>16}  answers")
    for each in report.comparisons:
        ratios = f"{each.first_ratio:,.0f} / {each.steady_ratio:,.0f}"
        answers = (
            f"{len(each.differences)} of {each.requests} differ" if each.differences else f"all {each.requests} equal"
        )
        lines.append(
            f"{each.pools:>7} {'yes' if each.functions else 'no':>9} {each.cinder_ms:>9.1f} "
            f"{each.hostler_first_ms:>8.3f} {each.hostler_steady_ms:>8.4f} {ratios:>16}  {answers}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(program=app))
