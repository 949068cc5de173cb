"""The command ``hostler simulate pack``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...placement.types.errors import InvalidValue
from ...placement.types.ordered_sum import ordered_sum
from ..progress import INTERRUPTED, Stop
from .heuristics import Order
from .instance import Instance, parse_capacity, read, read_archive, read_order
from .search import BEST, Packed
from .search import pack as packed

TOTAL: Final = "together"
ARCHIVES: Final = (".tar", ".tar.gz", ".tgz")
SUFFIXES: Final = (".vbp", ".vbp.gz", ".csv", ".csv.gz")


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``--json`` says of one instance. ``assignment`` is the bin of each item, in the file's order;
    ``interrupted``: the search might have found fewer bins."""

    instance: str
    algorithm: str
    items: int
    bins: int
    lower_bound: int
    optimal: bool
    seconds: float
    interrupted: bool = False
    assignment: list[int] | None = None


def pack(
    *files: Annotated[Path, Parameter(negative="")],
    algorithm: str = BEST,
    bin: str | None = None,
    order: Path | None = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))] = 1,
    effort: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    assignment: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Pack sets of items into as few equal bins as can be found, and say below which number there is no packing. Ctrl-C
    ends it with what is packed until then, the set at hand included; a second one at once.

    Parameters
    ----------
    files
        Instances: .vbp files, or .csv tables with a row for each item (a column "count" repeats it); .gz or not. A
        folder stands for all that is in it, a .tar or .tar.gz archive for all .vbp files in it.
    algorithm
        best (a search that starts from all others), FF, FFD-L1-Unit, FFD-L2-Unit, FFD-Linf-Unit, BFD-L1, BFD-L2,
        BFD-Linf, BC-Dot or BC-L2.
    bin
        What a bin holds, for .csv files: column=amount,column=amount.
    order
        A file of the orders in which items are taken; without it that of the instance.
    seed
        Of the search's random choices; the same seed gives the same packing.
    effort
        How much longer than usual the search tries before it gives up a bin.
    assignment
        Also say which bin each item is in.
    json
        Print one JSON object for each instance.
    """
    instances = list(_instances(files, None if bin is None else parse_capacity(bin)))
    orders = {} if order is None else read_order(order)
    lines: list[Line] = []
    with Stop() as stop, _progress() as progress:
        task = progress.add_task("packing", total=len(instances))
        for instance in instances:
            if stop.requested:
                break
            taken, started, cut = _order(instance, orders, order), time.perf_counter(), False

            def go_on(bins: int, name: str = instance.name) -> bool:
                nonlocal cut
                progress.update(task, description=f"{name}: {bins:,} bins")
                cut = stop.requested
                return not cut

            progress.update(task, description=instance.name)
            result = packed(instance, algorithm, order=taken, seed=seed, effort=effort, go_on=go_on)
            lines.append(_line(result, time.perf_counter() - started, assignment, interrupted=cut))
            if json:
                print(msgspec.json.encode(lines[-1]).decode(), flush=True)
            progress.advance(task)
    if not json and lines:
        Console().print(_table(lines))
    return INTERRUPTED if len(lines) < len(instances) or any(line.interrupted for line in lines) else 0


def _instances(files: Sequence[Path], capacity: Mapping[str, str] | None) -> Iterator[Instance]:
    for path in _paths(files):
        if path.name.endswith(ARCHIVES):
            yield from read_archive(path)
        else:
            yield read(path, capacity=capacity if path.name.removesuffix(".gz").endswith(".csv") else None)


def _paths(files: Sequence[Path]) -> Iterator[Path]:
    if not files:
        raise InvalidValue("name a file, or a folder of files", field="files")
    for path in files:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(each for each in path.rglob("*") if each.name.endswith(SUFFIXES))
        if not inside:
            raise InvalidValue(f"{path} holds no {' or '.join(SUFFIXES)} file", field="files")
        yield from inside


def _order(instance: Instance, orders: dict[int, Order], path: Path | None) -> Order | None:
    if path is None:
        return None
    if len(instance) not in orders:
        raise InvalidValue(f"{path} has no order of {len(instance)} items, for {instance.name}", field="order")
    return orders[len(instance)]


def _line(result: Packed, seconds: float, assignment: bool, *, interrupted: bool) -> Line:
    return Line(
        instance=result.instance.name,
        algorithm=result.algorithm,
        items=len(result.instance),
        bins=result.count,
        lower_bound=result.lower_bound,
        optimal=result.optimal,
        seconds=round(seconds, 6),
        interrupted=interrupted,
        assignment=result.bins.tolist() if assignment else None,
    )


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("instance")
    for name in ("items", "bins", "lower bound", "gap", "seconds"):
        table.add_column(name, justify="right")
    for line in lines:
        name = f"{line.instance} (interrupted)" if line.interrupted else line.instance
        table.add_row(name, f"{line.items:,}", *_figures(line.bins, line.lower_bound, line.seconds))
    if len(lines) > 1:
        items, bins, bound = np.sum([(line.items, line.bins, line.lower_bound) for line in lines], axis=0).tolist()
        table.add_section()
        table.add_row(TOTAL, f"{items:,}", *_figures(bins, bound, ordered_sum(line.seconds for line in lines)))
    return table


def _figures(bins: int, bound: int, seconds: float) -> tuple[str, str, str, str]:
    gap = "none" if bins <= bound else f"{100 * (bins / bound - 1):.1f} %"
    return f"{bins:,}", f"{bound:,}", gap, f"{seconds:.2f}"


__all__ = ["pack"]
