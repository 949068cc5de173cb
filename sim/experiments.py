"""The command ``hostler simulate openb``: an experiment with published results to hold against."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..placement.types.counting import counted
from .trace import openb as gpu_cluster

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
    print(
        f"{counted(result.offered_pods, 'guest')} on {counted(len(hosts), 'host')} in {seconds:.2f} s", file=sys.stderr
    )
    return 0


SHOWN: Final = range(10, 131, 20)


def _show_openb(result: gpu_cluster.OpenbResult) -> None:
    total = result.gpu_milli_total
    print(f"{result.policy}, seed {result.seed}: {result.offered_pods - result.failed_pods:,} of ", end="")
    guests = counted(result.offered_pods, "guest")
    print(f"{guests} placed, {100 * result.gpu_milli_allocated / total:.2f} % of the GPUs given")
    print("GPUs asked for  allocated  useless for typical guests")
    for key in SHOWN:
        given, lost = result.allocation_percent.get(str(key)), result.fragmentation_percent.get(str(key))
        if given is not None and lost is not None:
            print(f"{key:12} %  {given:7.2f} %  {lost:6.2f} %")
