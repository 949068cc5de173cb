"""Hosts that a fleet names one by one, from ``[[host]]`` of a fleet file or a table: each of a kind of hardware, or
with sizes of its own, which make a kind. Where each stands, and how much of it is used from the beginning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ..trace.csv_columns import read_columns, read_header
from .hardware import Hardware

OWN: Final = (
    *("vcpus", "memory_gb", "disk_gb", "gpus", "gpu_model", "cpu_allocation_ratio", "ram_allocation_ratio"),
    *("disk_allocation_ratio", "reserved_vcpus", "reserved_memory_gb", "reserved_disk_gb", "numa_cells", "traits"),
    *("dedicated_vcpus", "threads_per_core", "huge_pages", "resources", "price_per_hour", "watts"),
)
"""What a host may have that differs from its kind."""
WHOLE: Final = ("vcpus", "disk_gb", "gpus", "numa_cells", "dedicated_vcpus", "threads_per_core")
"""Those of them that are whole numbers."""


class NamedHost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A host by name: of the kind ``hardware``, but for what it says itself (None: as its kind). It stands in a rack of
    its own if none is named. ``used_…``: taken from the beginning, until the end, by a guest that the trace does not
    have."""

    name: str
    hardware: str = ""
    zone: str = "zone-1"
    rack: str = ""
    row: str = ""
    cluster: str = ""
    cell: str = ""
    vcpus: int | None = None
    memory_gb: float | None = None
    disk_gb: int | None = None
    gpus: int | None = None
    gpu_model: str | None = None
    cpu_allocation_ratio: float | None = None
    ram_allocation_ratio: float | None = None
    disk_allocation_ratio: float | None = None
    reserved_vcpus: int | None = None
    reserved_memory_gb: float | None = None
    reserved_disk_gb: int | None = None
    numa_cells: int | None = None
    dedicated_vcpus: int | None = None
    threads_per_core: int | None = None
    huge_pages: dict[str, int] | None = None
    traits: tuple[str, ...] | None = None
    resources: dict[str, int] | None = None
    price_per_hour: float | None = None
    watts: float | None = None
    used_vcpus: int = 0
    used_memory_gb: float = 0.0
    used_disk_gb: int = 0

    @property
    def used(self) -> tuple[int, int, int]:
        """What is taken of VCPU, MEMORY_MB (MiB) and DISK_GB (GiB) from the beginning."""
        return self.used_vcpus, round(self.used_memory_gb * 1024), self.used_disk_gb


def with_kinds(
    hardware: Sequence[Hardware], named: Sequence[NamedHost]
) -> tuple[tuple[Hardware, ...], tuple[NamedHost, ...]]:
    """All kinds, those included that the hosts' own sizes make, and the hosts without sizes of their own. UnknownName
    or InvalidValue, with the host's key, for one of an unknown kind or with a size that cannot be."""
    kinds = {kind.name: kind for kind in hardware}
    made: dict[tuple[str, str], str] = {}
    hosts = []
    for index, host in enumerate(named):
        key = f"host[{index}]"
        if not host.name:
            raise InvalidValue(f"{key}.name: a host needs a name", field=f"fleet.{key}.name")
        if host.hardware and host.hardware not in kinds:
            raise UnknownName.among(f"{key}.hardware:", host.hardware, kinds, field=f"fleet.{key}.hardware")
        own = {name: getattr(host, name) for name in OWN if getattr(host, name) is not None}
        if own or not host.hardware:
            different = (host.hardware, repr(sorted(own.items())))
            if different not in made:
                kind = _kind(f"{key} ({host.name})", kinds.get(host.hardware), own, kinds.keys())
                kinds[kind.name], made[different] = kind, kind.name
            cleared: dict[str, Any] = dict.fromkeys(OWN)
            host = msgspec.structs.replace(host, hardware=made[different], **cleared)
        _check_used(f"{key} ({host.name})", host, kinds[host.hardware])
        hosts.append(host)
    return tuple(kinds.values()), tuple(hosts)


def _kind(key: str, base: Hardware | None, own: dict[str, Any], taken: Any) -> Hardware:
    """The kind of a host with sizes of its own, on those of ``base``."""
    told = {} if base is None else msgspec.structs.asdict(base)
    told |= own
    for name in ("vcpus", "memory_gb"):
        if name not in told:
            raise InvalidValue(f"{key}: {name} is missing", field="fleet.host", hint="or name its hardware")
    plain = f"{told['vcpus']} vCPU, {told['memory_gb']:g} GiB" if base is None else f"{base.name} (own sizes)"
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain} #{number}"
    try:
        return msgspec.convert({**told, "name": name, "count": 0}, Hardware)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{key}: {error}", field="fleet.host") from None


def _check_used(key: str, host: NamedHost, kind: Hardware) -> None:
    for word, used, most in zip(("vCPUs", "MiB", "GiB of disk"), host.used, kind.capacity, strict=True):
        if used < 0:
            raise InvalidValue(f"{key}: {used:,} {word} are used", field="fleet.host.used")
        if used > most and not host.hardware:
            raise InvalidValue(f"{key}: {used:,} of {most:,} {word} are used", field="fleet.host.used")


def _names(text: str) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split("|") if part.strip()) or None


def _amounts(text: str) -> dict[str, int] | None:
    parts = [part.partition("=") for part in text.split("|") if part.strip()]
    return {name.strip(): int(amount) for name, _, amount in parts} or None


def _reader(name: str) -> Callable[[str], Any]:
    if name in ("traits", "resources", "huge_pages"):
        return _names if name == "traits" else _amounts
    whole = name in WHOLE or name.startswith(("reserved_", "used_"))
    if name in ("reserved_memory_gb", "used_memory_gb"):
        whole = False
    number: Callable[[str], Any] = int if whole else float
    if name in ("name", "hardware", "zone", "rack", "row", "cluster", "cell", "gpu_model"):
        return lambda text: text.strip() or None
    return lambda text: number(text) if text.strip() else None


def read_hosts(path: Path) -> tuple[NamedHost, ...]:
    """The hosts of a CSV file, gzipped or not: one per line, columns by the names of ``NamedHost``, cells that are
    empty left out; ``traits`` as A|B, ``resources`` as CUSTOM_A=1|CUSTOM_B=2, ``huge_pages`` as 2MiB=1024|1GiB=16.
    InvalidValue names the file, line and column at fault."""
    fields = NamedHost.__struct_fields__
    header = read_header(path, field="fleet")
    for name in header:
        if name not in fields:
            raise UnknownName.among(f"{path}: column", name, fields, field="fleet")
    columns = read_columns(path, {name: _reader(name) for name in header}, field="fleet")
    if "name" not in columns:
        raise InvalidValue(f"{path}: no column name", field="fleet")
    lines = zip(*columns.values(), strict=True)
    rows = [{name: cell for name, cell in zip(columns, line, strict=True) if cell is not None} for line in lines]
    if not rows:
        raise InvalidValue(f"{path}: no hosts", field="fleet")
    try:
        return tuple(msgspec.convert(rows, list[NamedHost]))
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{path}: {error}", field="fleet") from None
