"""Alibaba's OpenB GPU cluster: guests with shares of GPUs that only arrive, under one policy, and what it measures.

The published experiment (Weng et al., Beware of Fragmentation, USENIX ATC 2023): all guests of a list in random order,
then copies of guests drawn from it, until they ask for 130 % of the cluster's GPUs; what fits nowhere is dropped.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...ext.devices import WHOLE
from ...placement.decide.engine import Engine
from ...placement.decide.gpu_batch import place_gpus
from ...placement.fleet.fleet import Fleet
from ...placement.gpu.providers import GPU_MILLI, add_gpus, gpu_extra_specs, model_trait
from ...placement.load.bulk import add_hosts
from ...placement.policy.policy import Policy
from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.host import Host
from ...placement.types.request import Flavor, Request, RequestSpec
from .csv_columns import Reader, read_columns, whole, whole_or_0

WEIGHERS: Final[Mapping[str, str]] = {
    "best-fit": "GpuBestFitWeigher",
    "dot-product": "GpuDotProductWeigher",
    "gpu-packing": "GpuPackingWeigher",
    "gpu-clustering": "GpuClusteringWeigher",
    "fgd": "GpuFragmentationWeigher",
    "random": "GpuRandomWeigher",
}
"""Policy -> the weigher that it runs."""
LOAD: Final = 1.3
"""What is asked for in all, as a part of the cluster's GPUs."""
COVERED: Final = 0.95
"""Part of the list that the typical requests must make up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host with ``gpus`` GPUs of one model; CPUs in thousandths."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A guest that asks for ``gpu_milli`` thousandths of each of ``gpus`` GPUs, of one of ``models`` (``A|B``)."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    gpu_milli: int
    models: str

    @property
    def milli(self) -> int:
        """Thousandths of GPUs in all."""
        return self.gpus * self.gpu_milli


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """In which order guests arrive, by name, and hosts are preferred where they are equally good."""

    pods: Sequence[str]
    nodes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenbResult:
    """What the published tables hold. Keys of the curves: GPUs asked for so far, in percent of the cluster's."""

    policy: str
    seed: int
    allocation_percent: Mapping[str, float]
    fragmentation_percent: Mapping[str, float]
    failed_pods: int
    offered_pods: int
    gpu_milli_allocated: int
    gpu_milli_total: int
    cpu_milli_allocated: int
    memory_mib_allocated: int
    gpus_touched: int


def read_nodes(path: Path) -> list[Node]:
    """Hosts of a node list (sn, cpu_milli, memory_mib, gpu, model). InvalidValue names the line and column at fault."""
    readers: dict[str, Reader] = {"sn": _name, "cpu_milli": whole, "memory_mib": whole}
    readers |= {"gpu": whole_or_0, "model": str}
    columns = read_columns(path, readers, field="nodes", optional=("model",))
    models = columns.get("model", [""] * len(columns["sn"]))
    figures = zip(columns["sn"], columns["cpu_milli"], columns["memory_mib"], columns["gpu"], models, strict=True)
    nodes = [Node(name=n, cpu_milli=c, memory_mib=m, gpus=g, model=model) for n, c, m, g, model in figures]
    return _named_once(nodes, path, "nodes")


def read_pods(path: Path) -> list[Pod]:
    """Guests of a pod list (name, cpu_milli, memory_mib, num_gpu, gpu_milli[, gpu_spec]); a share is at most a whole
    GPU. InvalidValue names the line and column at fault."""
    readers: dict[str, Reader] = {"name": _name, "cpu_milli": whole, "memory_mib": whole}
    readers |= {"num_gpu": whole_or_0, "gpu_milli": whole_or_0, "gpu_spec": str}
    columns = read_columns(path, readers, field="pods", optional=("gpu_spec",))
    columns.setdefault("gpu_spec", [""] * len(columns["name"]))
    pods = []
    for name, cpu, memory, gpus, milli, models in zip(*(columns[each] for each in readers), strict=True):
        share = min(milli, WHOLE) if gpus else 0
        kind = models if gpus and share else ""
        pods.append(
            Pod(name=name, cpu_milli=cpu, memory_mib=memory, gpus=gpus if share else 0, gpu_milli=share, models=kind)
        )
    return _named_once(pods, path, "pods")


def _name(text: str) -> str:
    if not text:
        raise ValueError("a name is missing")
    return text


def _named_once(items: list[Any], path: Path, field: str) -> list[Any]:
    if not items:
        raise InvalidValue(f"{path}: no {field}", field=field)
    name, count = Counter(item.name for item in items).most_common(1)[0]
    if count > 1:
        raise InvalidValue(f"{path}: {name} is there {count} times", field=field)
    return items


class _Recorded(msgspec.Struct):
    seed: int
    pods: list[str]
    node_order: list[str]


def read_order(path: Path, seed: int) -> Order:
    """The order recorded for a seed in a file of JSON lines (seed, pods, node_order). InvalidValue with the line that
    is none, or for a seed that the file has not."""
    seeds: list[str] = []
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                found = msgspec.json.decode(line, type=_Recorded)
                if found.seed == seed:
                    return Order(pods=found.pods, nodes=found.node_order)
                seeds.append(str(found.seed))
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"{path}, line {len(seeds) + 1}: cannot be read: {error}", field="order") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidValue(f"{path}: cannot be read: {reason}", field="order") from None
    raise InvalidValue(f"{path}: no order for seed {seed}", field="seed", hint=f"it has {', '.join(seeds)[:200]}")


def made_order(nodes: Sequence[Node], pods: Sequence[Pod], *, seed: int, load: float = LOAD) -> Order:
    """An order of our own: the guests shuffled, then copies of guests drawn, or guests taken away, until they ask for
    ``load`` of the GPUs; hosts are preferred at random. The same for the same seed. InvalidValue if no guest asks for
    GPUs."""
    if not any(pod.milli for pod in pods):
        raise InvalidValue("no guest asks for GPUs", field="pods")
    rng = np.random.default_rng([seed, 3])
    sorted_pods = sorted(pods, key=lambda pod: pod.name)
    most = load * WHOLE * sum(node.gpus for node in nodes)
    offered = [sorted_pods[index] for index in rng.permutation(len(pods)).tolist()]
    asked = sum(pod.milli for pod in offered)
    while asked > most and offered:
        asked -= offered.pop(int(rng.integers(len(offered)))).milli
    while asked < most:
        pod = sorted_pods[int(rng.integers(len(pods)))]
        if asked + pod.milli > most:
            break
        offered.append(pod)
        asked += pod.milli
    names = sorted(node.name for node in nodes)
    preferred = [names[index] for index in rng.permutation(len(names)).tolist()]
    return Order(pods=[pod.name for pod in offered], nodes=preferred)


def typical(pods: Iterable[Pod]) -> dict[str, float]:
    """The most frequent requests of a list that make up COVERED of it, as ``[gpu] typical`` names them, with shares."""
    counts = Counter((pod.cpu_milli, pod.gpu_milli, pod.gpus, pod.models) for pod in pods)
    found: dict[tuple[int, int, int, str], int] = {}
    for shape, count in sorted(counts.items(), key=lambda item: (item[1], item[0]), reverse=True):
        if sum(found.values()) >= COVERED * counts.total():
            break
        found[shape] = count
    # In this order: fragmentation is compared by its last bits.
    every, kept = counts.total(), sum(found.values())
    return {":".join(map(str, shape)).rstrip(":"): (n / every) / (kept / every) for shape, n in found.items()}


def openb_policy(name: str, pods: Iterable[Pod]) -> Policy:
    """The policy called ``name``, with the typical requests of ``pods``. UnknownName for an unknown name."""
    if name not in WEIGHERS:
        raise UnknownName.among("policy", name, WEIGHERS, field="policy")
    return Policy.from_mapping(
        {
            "hostler": {"name": name},
            "filter_scheduler": {
                "available_filters": ["GpuModelFilter"],
                "enabled_filters": ["GpuModelFilter"],
                "weight_classes": [WEIGHERS[name]],
            },
            "gpu": {"vcpu_milli": 1, "typical": typical(pods)},
        }
    )


def openb_fleet(nodes: Sequence[Node], order: Sequence[str]) -> Fleet:
    """The hosts, in order of preference, with their GPUs below them; a VCPU stands for a thousandth of a CPU.
    InvalidValue if ``order`` does not name each host once."""
    by_name = {node.name: node for node in nodes}
    if sorted(order) != sorted(by_name):
        raise InvalidValue("the order does not name each host once", field="order")
    fleet = Fleet(capacity=len(nodes) + sum(node.gpus for node in nodes) + 1)
    add_hosts(fleet, (_host(by_name[name]) for name in order))
    add_gpus(fleet, {name: by_name[name].gpus for name in order})
    return fleet


def _host(node: Node) -> Host:
    return Host(
        host=node.name,
        vcpus_total=node.cpu_milli,
        cpu_allocation_ratio=1.0,
        total_usable_ram_mb=node.memory_mib,
        traits=frozenset({model_trait(node.model)} if node.model and node.gpus else ()),
    )


def requests(pods: Iterable[Pod], order: Sequence[str]) -> list[Request]:
    """One request per name of ``order``; guests of one shape share it. UnknownName for a guest that is not in
    the list."""
    by_name = {pod.name: pod for pod in pods}
    shapes: dict[tuple[int, int, int, int, str], Request] = {}
    made = []
    for name in order:
        pod = by_name.get(name)
        if pod is None:
            raise UnknownName.among("guest", str(name), by_name, field="order")
        shape = (pod.cpu_milli, pod.memory_mib, pod.gpu_milli, pod.gpus, pod.models)
        if shape not in shapes:
            shapes[shape] = Request(spec=RequestSpec(flavor=_flavor(pod)))
        made.append(shapes[shape])
    return made


def _flavor(pod: Pod) -> Flavor:
    extra = gpu_extra_specs(pod.gpu_milli, pod.gpus, pod.models)
    return Flavor(name=pod.name, vcpus=pod.cpu_milli, memory_mb=pod.memory_mib, extra_specs=extra)


def openb(nodes: Sequence[Node], pods: Sequence[Pod], policy: str, *, order: Order, seed: int) -> OpenbResult:
    """Place all guests of ``order`` and measure. Seconds for 10,000 guests on 1,000 hosts."""
    if not order.pods:
        raise InvalidValue("the order names no guest", field="order")
    engine = Engine(openb_fleet(nodes, order.nodes), openb_policy(policy, pods), seed=seed)
    asked = requests(pods, order.pods)
    decisions = place_gpus(engine, asked)
    by_name = {pod.name: pod.milli for pod in pods}
    milli = np.array([by_name[name] for name in order.pods], np.int64)
    total = WHOLE * sum(node.gpus for node in nodes)
    if total == 0:
        raise InvalidValue("the hosts have no GPUs", field="nodes")
    used = np.cumsum(np.where(decisions.rows >= 0, milli, 0))
    allocation = np.round(100.0 * used / total, 2)
    fragmentation = 100.0 * decisions.fragmentation / total
    percent = _percent(np.cumsum(milli), total)
    given = _given(engine.fleet)
    return OpenbResult(
        policy=policy,
        seed=seed,
        allocation_percent=_curve(percent, allocation),
        fragmentation_percent=_curve(percent, fragmentation),
        failed_pods=len(asked) - decisions.placed,
        offered_pods=len(asked),
        gpu_milli_allocated=given[GPU_MILLI],
        gpu_milli_total=total,
        cpu_milli_allocated=given["VCPU"],
        memory_mib_allocated=given["MEMORY_MB"],
        gpus_touched=_touched(engine.fleet),
    )


def _percent(arrived: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    return np.round(arrived / (total / 100.0)).astype(np.int64)


def _curve(percent: NDArray[np.int64], values: NDArray[np.float64]) -> dict[str, float]:
    """The mean of the values at each percent that occurs, to two places; percents only rise."""
    which, first = np.unique(percent, return_index=True)
    parts = np.split(values, first[1:])
    return {str(key): float(np.round(np.mean(part), 2)) for key, part in zip(which.tolist(), parts, strict=True)}


def _given(fleet: Fleet) -> dict[str, int]:
    """What consumers hold, by resource class, as the inventories have it."""
    used = fleet._store.inventory["used"][:, : fleet.rows].sum(axis=1)
    given = dict.fromkeys((GPU_MILLI, "VCPU", "MEMORY_MB"), 0)
    return given | dict(zip(fleet.resource_classes, used.tolist(), strict=False))


def _touched(fleet: Fleet) -> int:
    """GPUs of which something is taken."""
    used = fleet._store.inventory["used"][fleet.resource_class(GPU_MILLI, create=True), : fleet.rows]
    return int(np.count_nonzero(used))
