"""The commands ``hostler simulate openb`` and ``pack``: experiments with published results to hold against."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..placement.errors import InvalidValue
from . import openb as gpu_cluster
from .pack.algorithms import count_bins
from .pack.algorithms import pack as pack_items
from .pack.bounds import lower_bound
from .pack.instances import read_instances, read_orders

Seed = Annotated[int, Parameter(validator=Number(gte=0))]
Flag = Annotated[bool, Parameter(negative="")]


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    print(msgspec.json.encode(value).decode())


def openb(
    *,
    nodes: Path,
    pods: Path,
    policy: str = "fgd",
    order: Path | None = None,
    seed: Seed = 42,
    load: Annotated[float, Parameter(validator=Number(gt=0))] = gpu_cluster.LOAD,
    json: Flag = False,
) -> int:
    """Fill a cluster with guests that share GPUs, as in the OpenB experiments, and measure what is left in pieces.

    Parameters
    ----------
    nodes
        The hosts: a CSV file with sn, cpu_milli, memory_mib, gpu and model.
    pods
        The guests: a CSV file with name, cpu_milli, memory_mib, num_gpu, gpu_milli and gpu_spec.
    policy
        best-fit, dot-product, gpu-packing, gpu-clustering, fgd or random.
    order
        A file of recorded orders, one JSON object per seed; without it an order is made from the seed.
    seed
        Which recorded order, or the seed of the one that is made.
    load
        What the guests ask for in all, as a part of the cluster's GPUs, where the order is made.
    json
        Print one JSON object.
    """
    hosts, guests = gpu_cluster.read_nodes(nodes), gpu_cluster.read_pods(pods)
    arrivals = (
        gpu_cluster.made_order(hosts, guests, seed=seed, load=load)
        if order is None
        else gpu_cluster.read_order(order, seed)
    )
    started = time.perf_counter()
    result = gpu_cluster.openb(hosts, guests, policy, order=arrivals, seed=seed)
    seconds = time.perf_counter() - started
    if json:
        print_json(result)
    else:
        _show_openb(result)
    print(f"{result.offered_pods:,} guests on {len(hosts):,} hosts in {seconds:.2f} s", file=sys.stderr)
    return 0


SHOWN: Final = range(10, 131, 20)


def _show_openb(result: gpu_cluster.OpenbResult) -> None:
    total = result.gpu_milli_total
    print(f"{result.policy}, seed {result.seed}: {result.offered_pods - result.failed_pods:,} of ", end="")
    print(f"{result.offered_pods:,} guests placed, {100 * result.gpu_milli_allocated / total:.2f} % of the GPUs given")
    print("GPUs asked for  allocated  useless for typical guests")
    for key in SHOWN:
        given, lost = result.allocation_percent.get(str(key)), result.fragmentation_percent.get(str(key))
        if given is not None and lost is not None:
            print(f"{key:12} %  {given:7.2f} %  {lost:6.2f} %")


def pack(
    *files: Path,
    algorithm: str = "best",
    order: Path | None = None,
    json: Flag = False,
) -> int:
    """Pack sets of items of several sizes into the fewest bins: all guests at once on equal hosts.

    Parameters
    ----------
    files
        Instances (.vbp), folders of them, or tar archives.
    algorithm
        FF, FFD-L1-Unit, FFD-L2-Unit, FFD-Linf-Unit, BFD-L1-Unit, BFD-L2-Unit, BFD-Linf-Unit, DP, L2 or best.
    order
        A file with the orders in which items come, by number of items; without it, that of the file.
    json
        Print one JSON object per instance.
    """
    if not files:
        raise InvalidValue("no instances", field="files", hint="name .vbp files, folders of them, or tar archives")
    orders = None if order is None else read_orders(order)
    totals, started = [0, 0, 0], time.perf_counter()
    for given in read_instances(files):
        if orders is not None and len(given.sizes) not in orders:
            raise InvalidValue(f"{given.name}: no order for {len(given.sizes)} items", field="order")
        begun = time.perf_counter()
        bins = count_bins(pack_items(given, algorithm, None if orders is None else orders[len(given.sizes)]))
        seconds, bound = time.perf_counter() - begun, lower_bound(given)
        totals = [totals[0] + 1, totals[1] + bins, totals[2] + bound]
        if json:
            print_json({"instance": given.name, "bins": bins, "lower_bound": bound, "seconds": round(seconds, 6)})
        else:
            print(f"{given.name}: {bins:,} bins, at least {bound:,}")
    seconds = time.perf_counter() - started
    count, bins, bound = totals
    print(f"{algorithm}: {count:,} instances, {bins:,} bins (at least {bound:,}), {seconds:.1f} s", file=sys.stderr)
    return 0
