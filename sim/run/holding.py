"""What guests take and hosts give, in numbers that can be summed, and whether an empty host could hold a guest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ...ext.devices import WHOLE
from ...placement.gpu.providers import gpu_wish, model_trait
from ...placement.types.request import RequestSpec
from .hardware import Hardware

DIMENSIONS: Final = ("vcpus", "memory_mb", "disk_gb", "gpu_milli", "gpus of more than a half")
"""Of every guest; other resource classes come after them."""
_TRAIT: Final = "trait:"
_RESOURCES: Final = "resources:"


def classes_of(specs: Iterable[RequestSpec]) -> tuple[str, ...]:
    """The other resource classes that guests ask for, sorted."""
    return tuple(sorted({name for spec in specs for name in _custom(spec)}))


def _custom(spec: RequestSpec) -> dict[str, int]:
    """Amounts of other resource classes that a guest asks for."""
    told = {key: text for key, text in spec.flavor.extra_specs.items() if key.startswith(f"{_RESOURCES}CUSTOM_")}
    return {key.removeprefix(_RESOURCES): int(text) for key, text in told.items() if text.isdecimal()}


def asked(spec: RequestSpec, classes: Sequence[str] = ()) -> tuple[int, ...]:
    """What a guest takes in each of the dimensions, and of the other resource classes."""
    flavor, wish = spec.flavor, gpu_wish(spec.flavor.extra_specs)
    disk = 0 if spec.is_bfv else flavor.root_gb
    large = wish.count if 2 * wish.milli > WHOLE else 0
    more = _custom(spec) if classes else {}
    own = (more.get(name, 0) for name in classes)
    return flavor.vcpus, flavor.memory_mb, disk, wish.milli * wish.count, large, *own


def holds(kind: Hardware, classes: Sequence[str] = ()) -> tuple[float, ...]:
    """What a host gives in each of the dimensions, and of the other resource classes."""
    vcpus, memory_mb, disk_gb = kind.capacity
    return vcpus, memory_mb, disk_gb, WHOLE * kind.gpus, kind.gpus, *(kind.resources.get(name, 0) for name in classes)


def could_hold(kind: Hardware, spec: RequestSpec, zones: Collection[str] | None = None) -> bool:
    """True if an empty host of a kind, in one of ``zones`` (None: those of the kind), could take the guest: one guest
    is given no more than the host has, whatever the over-commit is."""
    classes = classes_of([spec])
    whole = (kind.vcpus, round(kind.memory_gb * 1024), kind.disk_gb, *holds(kind, classes)[3:])
    given = holds(kind, classes)
    if any(amount > min(has, most) for amount, has, most in zip(asked(spec, classes), whole, given, strict=True)):
        return False
    models = gpu_wish(spec.flavor.extra_specs).models
    if models and model_trait(kind.gpu_model) not in {model_trait(model) for model in models}:
        return False
    has = {*kind.traits, *([model_trait(kind.gpu_model)] if kind.gpu_model and kind.gpus else [])}
    for key, wish in spec.flavor.extra_specs.items():
        trait = key.removeprefix(_TRAIT)
        # Fleet files do not tell what hypervisors can do.
        if key.startswith(_TRAIT) and not trait.startswith("COMPUTE_") and (wish == "required") != (trait in has):
            return False
    zones = kind.zones if zones is None else zones
    return not spec.availability_zone or spec.availability_zone in zones
