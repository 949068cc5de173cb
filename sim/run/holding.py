"""What guests take and hosts give, in numbers that can be summed, and whether an empty host could hold a guest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ...ext.devices import WHOLE
from ...placement.gpu.providers import gpu_wish, model_trait
from ...placement.request.flavor_and_image import Wishes
from ...placement.request.resource_groups import groups_of
from ...placement.types.errors import HostlerError
from ...placement.types.request import Request, RequestSpec
from .hardware import PCPU, Hardware

DIMENSIONS: Final = ("vcpus", "memory_mb", "disk_gb", "gpu_milli", "gpus of more than a half")
"""Of every guest; other resource classes come after them."""
_TRAIT: Final = "trait:"
_RESOURCES: Final = "resources:"


def classes_of(specs: Iterable[RequestSpec]) -> tuple[str, ...]:
    """The other resource classes that guests ask for, sorted."""
    return tuple(sorted({name for spec in specs for name in _custom(spec)}))


def cpus_of(spec: RequestSpec) -> tuple[int, int]:
    """The CPUs that a guest shares (VCPU), and that it has for itself (PCPU), as Placement is asked for them."""
    vcpus = spec.flavor.vcpus
    properties = spec.image.properties if spec.image is not None else {}
    if not any(map(_names_cpus, spec.flavor.extra_specs)) and "hw_cpu_policy" not in properties:
        return vcpus, 0
    request = Request(spec=spec)
    try:
        group = groups_of(request, Wishes.of(request)).group()
    except HostlerError:
        return vcpus, 0  # an invalid request, which the run names
    return group.resources.get("VCPU", 0), group.resources.get(PCPU, 0)


def _names_cpus(key: str) -> bool:
    return key in ("hw:cpu_policy", "resources:VCPU", "resources:PCPU")


def _custom(spec: RequestSpec) -> dict[str, int]:
    """Amounts of other resource classes that a guest asks for, dedicated CPUs included."""
    dedicated = cpus_of(spec)[1]
    own = {PCPU: dedicated} if dedicated else {}
    told = {key: text for key, text in spec.flavor.extra_specs.items() if key.startswith(f"{_RESOURCES}CUSTOM_")}
    return own | {key.removeprefix(_RESOURCES): int(text) for key, text in told.items() if text.isdecimal()}


def asked(spec: RequestSpec, classes: Sequence[str] = ()) -> tuple[int, ...]:
    """What a guest takes in each of the dimensions, and of the other resource classes."""
    flavor, wish = spec.flavor, gpu_wish(spec.flavor.extra_specs)
    disk = 0 if spec.is_bfv else flavor.root_gb
    large = wish.count if 2 * wish.milli > WHOLE else 0
    more = _custom(spec) if classes else {}
    own = (more.get(name, 0) for name in classes)
    return cpus_of(spec)[0], flavor.memory_mb, disk, wish.milli * wish.count, large, *own


def holds(kind: Hardware, classes: Sequence[str] = ()) -> tuple[float, ...]:
    """What a host gives in each of the dimensions, and of the other resource classes."""
    vcpus, memory_mb, disk_gb = kind.capacity
    own = kind.resources | {PCPU: kind.dedicated_vcpus}
    return vcpus, memory_mb, disk_gb, WHOLE * kind.gpus, kind.gpus, *(own.get(name, 0) for name in classes)


def could_hold(kind: Hardware, spec: RequestSpec, zones: Collection[str] | None = None) -> bool:
    """True if an empty host of a kind, in one of ``zones`` (None: those of the kind), could take the guest: one guest
    is given no more than the host has, whatever the over-commit is."""
    classes = classes_of([spec])
    whole = (kind.shared_vcpus, round(kind.memory_gb * 1024), kind.disk_gb, *holds(kind, classes)[3:])
    given = holds(kind, classes)
    if any(amount > min(has, most) for amount, has, most in zip(asked(spec, classes), whole, given, strict=True)):
        return False
    models = gpu_wish(spec.flavor.extra_specs).models
    if models and model_trait(kind.gpu_model) not in {model_trait(model) for model in models}:
        return False
    has = {*kind.reported_traits, *([model_trait(kind.gpu_model)] if kind.gpu_model and kind.gpus else [])}
    for key, wish in spec.flavor.extra_specs.items():
        trait = key.removeprefix(_TRAIT)
        # Fleet files do not tell what hypervisors can do.
        if key.startswith(_TRAIT) and not trait.startswith("COMPUTE_") and (wish == "required") != (trait in has):
            return False
    zones = kind.zones if zones is None else zones
    return not spec.availability_zone or spec.availability_zone in zones
