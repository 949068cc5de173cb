"""The hook of kube-scheduler (an HTTP extender): ``filter`` and ``prioritize``, best with ``nodeCacheCapable``.

Binding and preemption need the Kubernetes API, and are left to kube-scheduler.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from ....placement.types.errors import HostlerError
from ...machine.ranking import Ranking
from ..errors import HttpError
from .asking import Asking
from .config import HooksConfig

MOST: Final = 10
"""Greatest score of an extender."""
ZONE: Final = "topology.kubernetes.io/zone"
UNKNOWN: Final = "Hostler does not know this node"
_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(10) ** (3 * power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?")


class Meta(msgspec.Struct, frozen=True):
    """The metadata of an object."""

    name: str = ""


class Resources(msgspec.Struct, frozen=True):
    """What a container asks for, quantities by resource."""

    requests: dict[str, str | int | float] = {}


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container. A ``restart_policy`` of Always makes an init container a sidecar, which runs on."""

    resources: Resources = Resources()
    restart_policy: str = ""


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What a pod needs."""

    containers: list[Container] = []
    init_containers: list[Container] = []
    overhead: dict[str, str | int | float] = {}
    node_selector: dict[str, str] = {}


class Pod(msgspec.Struct, frozen=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()


class Node(msgspec.Struct, frozen=True):
    """A node, of which the name is read."""

    metadata: Meta


class Nodes(msgspec.Struct, frozen=True):
    """Nodes in full, sent where the extender is not ``nodeCacheCapable``."""

    items: list[msgspec.Raw] = []


class Arguments(msgspec.Struct, frozen=True, rename="pascal"):
    """The request of ``filter`` and ``prioritize``."""

    pod: Pod
    nodes: Nodes | None = None
    node_names: list[str] | None = None


class Filtered(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of ``filter``."""

    nodes: dict[str, list[msgspec.Raw]] | None
    node_names: list[str] | None
    failed_nodes: dict[str, str]
    failed_and_unresolvable_nodes: dict[str, str] = {}
    error: str = ""


class HostScore(msgspec.Struct, frozen=True, rename="pascal"):
    """A line of the answer of ``prioritize``."""

    host: str
    score: int


async def filter_nodes(asking: Asking, config: HooksConfig, raw: bytes) -> Filtered:
    """The nodes that pass. An error that is not HTTP's is in the answer's ``Error``."""
    given, names = _read(raw)
    try:
        ranking = await asking.rank(spec_of(given.pod, config), names)
    except HostlerError as error:
        return Filtered(nodes=None, node_names=None, failed_nodes={}, error=str(error))
    passed = {each.node for each in ranking.hosts} | {each.host for each in ranking.hosts}
    kept = [name for name in names if name in passed]
    unknown = set(ranking.unknown)
    failed = {name: UNKNOWN if name in unknown else _reason(ranking, name) for name in names if name not in passed}
    if given.node_names is not None:
        return Filtered(nodes=None, node_names=kept, failed_nodes=failed)
    assert given.nodes is not None
    items = [item for item, name in zip(given.nodes.items, names, strict=True) if name in passed]
    return Filtered(nodes={"items": items}, node_names=None, failed_nodes=failed)


async def prioritize(asking: Asking, config: HooksConfig, raw: bytes) -> list[HostScore]:
    """A score for each node: MOST for the best, 0 for the worst and those that do not pass."""
    given, names = _read(raw)
    ranking = await asking.rank(spec_of(given.pod, config), names)
    weights = {each.node: each.weight for each in ranking.hosts} | {each.host: each.weight for each in ranking.hosts}
    most, least = max(weights.values(), default=0.0), min(weights.values(), default=0.0)
    scores = []
    for name in names:
        score = 0
        if name in weights:
            score = round(MOST * (weights[name] - least) / (most - least)) if most > least else MOST
        scores.append(HostScore(name, score))
    return scores


def _reason(ranking: Ranking, name: str) -> str:
    return f"refused by {ranking.refused.get(name, 'Hostler')}"


def _read(raw: bytes) -> tuple[Arguments, list[str]]:
    """A request, and the names of its nodes in order. HttpError 400."""
    try:
        given = msgspec.json.decode(raw, type=Arguments)
        if given.node_names is not None:
            return given, given.node_names
        if given.nodes is not None:
            return given, [msgspec.json.decode(item, type=Node).metadata.name for item in given.nodes.items]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HttpError(400, f"the request is malformed: {error}") from None
    raise HttpError(400, "the request names no nodes")


def quantity(text: str | float) -> Decimal:
    """A quantity of Kubernetes, such as 500m or 2Gi. HttpError 400 if it is none."""
    found = _QUANTITY.fullmatch(str(text).strip())
    try:
        if found is not None:
            return Decimal(found[1]) * _SUFFIXES[found[2] or ""]
    except InvalidOperation:
        pass
    raise HttpError(400, f"{str(text)[:40]!r} is not a quantity")


def amounts_of(spec: PodSpec) -> dict[str, Decimal]:
    """What a pod takes: its containers and sidecars together, or an init container with the sidecars before it if that
    is more, and the overhead (Kubernetes, "Resource sharing within containers")."""
    total: dict[str, Decimal] = {}
    for container in spec.containers:
        _add(total, container.resources.requests)
    sidecars: dict[str, Decimal] = {}
    starting: dict[str, Decimal] = {}
    for container in spec.init_containers:
        if container.restart_policy == "Always":
            _add(sidecars, container.resources.requests)
            current = sidecars
        else:
            current = sidecars.copy()
            _add(current, container.resources.requests)
        for name, amount in current.items():
            starting[name] = max(starting.get(name, Decimal(0)), amount)
    for name, amount in sidecars.items():
        total[name] = total.get(name, Decimal(0)) + amount
    for name, amount in starting.items():
        total[name] = max(total.get(name, Decimal(0)), amount)
    _add(total, spec.overhead)
    return total


def _add(total: dict[str, Decimal], more: dict[str, Any]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + quantity(amount)


def spec_of(pod: Pod, config: HooksConfig) -> dict[str, Any]:
    """The spec as RPC has it: memory in MiB and disk in GiB, rounded up; other resources as custom resource classes."""
    extra: dict[str, str] = {}
    vcpus = memory = disk = 0
    for name, amount in amounts_of(pod.spec).items():
        if name == "cpu" and config.kubernetes_cpu == "cores":
            vcpus = math.ceil(amount)
        elif name == "cpu":
            extra["resources:CUSTOM_MILLICPU"] = str(math.ceil(amount * 1000))
        elif name == "memory":
            memory = math.ceil(amount / 1024**2)
        elif name == "ephemeral-storage":
            disk = math.ceil(amount / 1024**3)
        elif amount:
            extra[f"resources:CUSTOM_{re.sub(r'[^A-Z0-9]', '_', name.upper())}"] = str(math.ceil(amount))
    # A flavor has a vCPU and some memory; what the pod does not ask for is not charged.
    if not vcpus:
        extra["resources:VCPU"] = "0"
    if not memory:
        extra["resources:MEMORY_MB"] = "0"
    flavor = {
        "name": "pod",
        "vcpus": max(vcpus, 1),
        "memory_mb": max(memory, 1),
        "root_gb": disk,
        "extra_specs": extra,
    }
    spec: dict[str, Any] = {"flavor": flavor, "prepare": False}
    if ZONE in pod.spec.node_selector:
        spec["availability_zone"] = pod.spec.node_selector[ZONE]
    return spec
