"""Reads catalogues of instance types: AWS's, Azure's and OpenStack's, or any CSV file with a name and sizes."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...placement.gpu.providers import gpu_extra_specs
from ...placement.types.errors import DuplicateName, InvalidValue
from ...placement.types.request import Flavor
from .csv_columns import Reader, read_columns, read_header

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "name": ("name", "InstanceType", "flavor", "Name"),
    "vcpus": ("vcpus", "VCPU", "cpus", "VCPUs"),
    "memory_mb": ("memory_mb", "MemoryMb", "ram", "RAM"),
    "disk_gb": ("disk_gb", "disk", "Disk"),
    "gpus": ("gpus", "GPU"),
    "extra_specs": ("extra_specs", "Properties", "properties"),
}
"""What a column may be called; memory in MiB, disk in GiB."""


def read_flavors(path: Path) -> dict[str, Flavor]:
    """The flavors of a CSV file, also compressed, or of OpenStack's ``flavor list --long`` in JSON, by name, in the
    order of the file; their GPUs are whole ones.

    InvalidValue names the file, line and column at fault; DuplicateName for a name that is there twice.
    """
    readers: dict[str, Reader] = dict.fromkeys(_NAMES, _amount) | {"name": _name, "extra_specs": _properties}
    columns = _of_json(path, readers)
    if columns is None:
        header = read_header(path, field="flavors")
        called = {name: next((each for each in known if each in header), known[0]) for name, known in _NAMES.items()}
        optional = ("disk_gb", "gpus", "extra_specs")
        columns = read_columns(path, readers, field="flavors", names=called, optional=optional)
    count = len(columns["name"])
    lists = (columns[name] for name in ("name", "vcpus", "memory_mb"))
    others = (columns.get(name, [empty] * count) for name, empty in (("disk_gb", 0), ("gpus", 0), ("extra_specs", {})))
    flavors: dict[str, Flavor] = {}
    for name, vcpus, memory_mb, disk, gpus, told in zip(*lists, *others, strict=True):
        if name in flavors:
            raise DuplicateName(f"{path}: {name} is there twice", field="flavors.name")
        extra = {**told, **gpu_extra_specs(1000, gpus)}
        flavors[name] = Flavor(name=name, vcpus=vcpus, memory_mb=memory_mb, root_gb=disk, extra_specs=extra)
    if not flavors:
        raise InvalidValue(f"{path}: no flavors", field="flavors")
    return flavors


def _of_json(path: Path, readers: Mapping[str, Reader]) -> dict[str, list[Any]] | None:
    """The columns of a list of objects in JSON; None for another file. InvalidValue names the object at fault."""
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidValue(f"{path}: not a list of flavors", field="flavors")
    columns: dict[str, list[Any]] = {name: [] for name in readers}
    for number, row in enumerate(rows, 1):
        for name, read in readers.items():
            value = next((row[each] for each in _NAMES[name] if row.get(each) is not None), "")
            try:
                columns[name].append(read(value if isinstance(value, str) else json.dumps(value)))
            except ValueError:
                raise InvalidValue(f"{path}, flavor {number}: {name} is {value!r:.60}", field="flavors") from None
    return columns


def _properties(text: str) -> dict[str, str]:
    """Extra specs as OpenStack's command line prints them: JSON, a Python literal, or k='v', k='v'."""
    if not text.strip():
        return {}
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pairs = [pair.partition("=") for pair in text.split(",")]
        found = {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}
    if not isinstance(found, dict):
        raise ValueError(text)
    return {str(key): str(value) for key, value in found.items()}


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
