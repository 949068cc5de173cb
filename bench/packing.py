"""``python -m hostler.bench.packing FOLDER``: bins and CPU time of every packing algorithm on published instances.

FOLDER holds the .vbp files, in any depth, of a set; ``--known FILE`` the tab-separated table of the best known counts
(columns instance_name, LB, best_overall).
"""

from __future__ import annotations

import csv
import gzip
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from ..placement.types.errors import HostlerError
from ..sim.pack.heuristics import HEURISTICS, Order
from ..sim.pack.instance import read, read_order
from ..sim.pack.search import BEST, pack

app = cyclopts.App(name="packing", help="Bins and CPU time of every packing algorithm on a folder of instances.")


@app.default
def packing(
    folder: Path,
    *,
    order: Path | None = None,
    known: Path | None = None,
    every: int = 1,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Pack every instance in a folder with every algorithm.

    Parameters
    ----------
    folder
        Where the .vbp files are.
    order
        The file of the orders in which items are taken.
    known
        A table of the best counts that are known.
    every
        Only each n-th instance.
    json
        Print one JSON object.
    """
    orders: dict[int, Order] = {} if order is None else read_order(order)
    best = {} if known is None else _known(known)
    bins: dict[str, int] = defaultdict(int)
    cpu: dict[str, float] = defaultdict(float)
    paths = sorted(folder.rglob("*.vbp"))[::every]
    for path in paths:
        instance = read(path)
        for algorithm in (*HEURISTICS, BEST):
            started = time.process_time()
            packed = pack(instance, algorithm, order=orders.get(len(instance)))
            cpu[algorithm] += time.process_time() - started
            bins[algorithm] += packed.count
        bins["lower bound"] += packed.lower_bound
        bins["best known"] += best.get(instance.name, 0)
    if json:
        print(msgspec.json.encode({"instances": len(paths), "bins": bins, "cpu_seconds": cpu}).decode())
        return 0
    print(f"{len(paths)} instances")
    for name, count in sorted(bins.items(), key=lambda item: -item[1]):
        print(f"{name:16} {count:8,} bins  {f'{cpu[name]:8.2f} s CPU' if name in cpu else ''}")
    return 0


def _known(path: Path) -> dict[str, int]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return {row["instance_name"]: int(row["best_overall"]) for row in csv.DictReader(lines, delimiter="\t")}


if __name__ == "__main__":
    try:
        sys.exit(app())
    except HostlerError as error:
        sys.exit(f"packing: {error}")
