"""What a pod of Kubernetes takes, as a spec of Hostler's."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from ..errors import HttpError
from .config import HooksConfig

ZONE: Final = "topology.kubernetes.io/zone"
_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(10) ** (3 * power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]{1,64}(?:[eE][+-]?[0-9]{1,3})?)([numkMGTPE]|[KMGTPE]i)?")
"""The exponent is bounded: the time to convert a number grows with it."""
MOST: Final = 2**63 - 1
"""The greatest quantity of Kubernetes (apimachinery: "no quantity may be larger than 2^63-1")."""


class Meta(msgspec.Struct, frozen=True):
    """The metadata of an object."""

    name: str = ""
    uid: str = ""


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


def quantity(text: str | float) -> Decimal:
    """A quantity of Kubernetes, such as 500m or 2Gi. HttpError 400 if it is none, is negative, or is above MOST."""
    shown = str(text)
    found = _QUANTITY.fullmatch(shown.strip())
    try:
        if found is not None:
            return _in_range(Decimal(found[1]) * _SUFFIXES[found[2] or ""], repr(shown[:40]))
    except InvalidOperation:
        pass
    raise HttpError(400, f"{shown[:40]!r} is not a quantity")


def _in_range(amount: Decimal, what: str) -> Decimal:
    if not 0 <= amount <= MOST:
        raise HttpError(400, f"{what} is not from 0 to 2^63-1")
    return amount


def amounts_of(spec: PodSpec) -> dict[str, Decimal]:
    """What a pod takes: its containers and sidecars together, or an init container with the sidecars before it if that
    is more, and the overhead (Kubernetes, "Resource sharing within containers"). HttpError 400, as ``quantity``."""
    total: dict[str, Decimal] = {}
    for container in spec.containers:
        _add(total, container.resources.requests)
    sidecars: dict[str, Decimal] = {}
    starting: dict[str, Decimal] = {}
    for container in spec.init_containers:
        if container.restart_policy == "Always":
            _add(sidecars, container.resources.requests)
            continue
        own: dict[str, Decimal] = {}
        _add(own, container.resources.requests)
        for name, amount in own.items():
            starting[name] = max(starting.get(name, Decimal(0)), sidecars.get(name, Decimal(0)) + amount)
    for name, amount in sidecars.items():
        total[name] = total.get(name, Decimal(0)) + amount
    for name, amount in starting.items():
        total[name] = max(total.get(name, Decimal(0)), amount)
    _add(total, spec.overhead)
    for name, amount in total.items():
        _in_range(amount, f"what the pod requests of {name[:100]!r}")
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


def resources_of(spec: dict[str, Any]) -> dict[str, int]:
    """What a spec of `spec_of` takes, by resource class."""
    flavor, found = spec["flavor"], dict[str, int]()
    found |= {"VCPU": flavor["vcpus"], "MEMORY_MB": flavor["memory_mb"], "DISK_GB": flavor["root_gb"]}
    return found | {name.removeprefix("resources:"): int(amount) for name, amount in flavor["extra_specs"].items()}
