"""Reads catalogues of instance types: AWS's, Azure's and OpenStack's, or any CSV file with a name and sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ...placement.gpu.providers import gpu_extra_specs
from ...placement.types.errors import DuplicateName, InvalidValue
from ...placement.types.request import Flavor
from .csv_columns import Reader, read_columns, read_header

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "name": ("name", "InstanceType", "flavor"),
    "vcpus": ("vcpus", "VCPU", "cpus"),
    "memory_mb": ("memory_mb", "MemoryMb", "ram"),
    "disk_gb": ("disk_gb", "disk"),
    "gpus": ("gpus", "GPU"),
}
"""What a column may be called; memory in MiB, disk in GiB."""


def read_flavors(path: Path) -> dict[str, Flavor]:
    """The flavors of a CSV file, gzipped or not, by name, in the order of the file; their GPUs are whole ones.

    InvalidValue names the file, line and column at fault; DuplicateName for a name that is there twice.
    """
    header = read_header(path, field="flavors")
    called = {name: next((each for each in known if each in header), known[0]) for name, known in _NAMES.items()}
    readers: dict[str, Reader] = dict.fromkeys(_NAMES, _amount) | {"name": _name}
    columns = read_columns(path, readers, field="flavors", names=called, optional=("disk_gb", "gpus"))
    zeros = [0] * len(columns["name"])
    flavors: dict[str, Flavor] = {}
    lists = (columns[name] for name in ("name", "vcpus", "memory_mb"))
    for name, vcpus, memory_mb, disk, gpus in zip(
        *lists, columns.get("disk_gb", zeros), columns.get("gpus", zeros), strict=True
    ):
        if name in flavors:
            raise DuplicateName(f"{path}: {name} is there twice", field="flavors.name")
        extra = gpu_extra_specs(1000, gpus)
        flavors[name] = Flavor(name=name, vcpus=vcpus, memory_mb=memory_mb, root_gb=disk, extra_specs=extra)
    if not flavors:
        raise InvalidValue(f"{path}: no flavors", field="flavors")
    return flavors


def _name(text: str) -> str:
    if not text:
        raise ValueError("a name is missing")
    return text


def _amount(text: str) -> int:
    """A number that is not negative, rounded up; nothing counts as 0."""
    number = float(text) if text else 0.0
    if not 0 <= number < 2**31:
        raise ValueError(text)
    return math.ceil(number)
