"""PCI aliases of ``[pci] alias``: names under which flavors ask for devices (``pci_passthrough:alias``). Values only.

Source: Nova 34 nova/pci/request.py and conf/pci.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from .errors import InvalidValue
from .validation import shown

DEVICE_TYPES: Final = ("type-PCI", "type-PF", "type-VF")
NUMA_POLICIES: Final = ("required", "preferred", "legacy", "socket")
_FIELD: Final = "pci.alias"
_ID: Final = re.compile(r"[0-9a-fA-F]{4}|\*")
_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE: Final = frozenset({"0", "f", "false", "off", "n", "no"})


@dataclass(frozen=True, slots=True)
class PciAlias:
    """One alias: ``specs`` are alternatives, each tag -> text, any of which a device may match."""

    name: str
    numa_policy: str
    specs: tuple[Mapping[str, str], ...]


class PciAliases(Mapping[str, PciAlias]):
    """All aliases by name, immutable, equal and hashable by content."""

    __slots__ = ("_aliases", "_words")

    def __init__(self, entries: Iterable[object] = ()) -> None:
        tables = [_table(entry) for entry in entries]
        self._words = tuple(json.dumps(table, sort_keys=True) for table in tables)
        self._aliases: dict[str, PciAlias] = {}
        for table in tables:
            alias = _alias(table)
            known = self._aliases.get(alias.name)
            self._aliases[alias.name] = alias if known is None else _joined(known, alias)

    def __getitem__(self, name: str) -> PciAlias:
        return self._aliases[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._aliases)

    def __len__(self) -> int:
        return len(self._aliases)

    def __eq__(self, other: object) -> bool:
        return self._words == other._words if isinstance(other, PciAliases) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._words)

    def __repr__(self) -> str:
        return f"PciAliases({list(self._words)!r})"

    def to_words(self) -> list[str]:
        """The form of nova.conf: one JSON object an entry, in order."""
        return list(self._words)


def read_aliases(field: str, value: object) -> PciAliases:
    """Aliases from one JSON text or table, or a list of them. Raises InvalidValue."""
    if isinstance(value, PciAliases):
        return value
    if isinstance(value, str | Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise _invalid(f"{field} is {shown(value)}, but must be a list of JSON objects")
    return PciAliases(value)


def _table(entry: object) -> dict[str, str]:
    if isinstance(entry, str):
        try:
            entry = json.loads(entry)
        except (ValueError, RecursionError) as error:
            raise _invalid(f"{_FIELD}: {shown(entry)} is not JSON: {error}") from None
    if not isinstance(entry, Mapping):
        raise _invalid(f"{_FIELD}: {shown(entry)} is not an object")
    for name, value in entry.items():
        if name not in _CHECKS:
            raise _invalid(f"{_FIELD}: unknown key {shown(name)}", f"known: {', '.join(_CHECKS)}")
        if not isinstance(value, str) or not _CHECKS[name](value):
            raise _invalid(f"{_FIELD}: {name} is {shown(value)}, which is not valid")
    if "name" not in entry:
        raise _invalid(f"{_FIELD}: an alias has no name")
    return dict(entry)


_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = MappingProxyType(
    {
        "name": lambda text: 1 <= len(text) <= 256 and bool(text.strip()),
        "capability_type": lambda text: text == "pci",
        "product_id": lambda text: _ID.fullmatch(text) is not None,
        "vendor_id": lambda text: _ID.fullmatch(text) is not None,
        "device_type": lambda text: text in DEVICE_TYPES,
        "numa_policy": lambda text: text in NUMA_POLICIES,
        "resource_class": bool,
        "traits": lambda text: True,
        "live_migratable": lambda text: text.strip().lower() in _TRUE | _FALSE,
    }
)
"""Key of an entry -> whether a value is valid."""


def _alias(table: Mapping[str, str]) -> PciAlias:
    spec = {key: value for key, value in table.items() if key not in ("name", "numa_policy")}
    if "device_type" in spec:
        spec["dev_type"] = spec.pop("device_type")
    if "live_migratable" in spec:
        spec["live_migratable"] = "true" if spec["live_migratable"].strip().lower() in _TRUE else "false"
    return PciAlias(table["name"].strip(), table.get("numa_policy", "legacy"), (MappingProxyType(spec),))


def _joined(one: PciAlias, other: PciAlias) -> PciAlias:
    """Two entries of one name are alternatives; NUMA policy and device type must agree."""
    if one.numa_policy != other.numa_policy:
        raise _invalid(f"{_FIELD}: {one.name} has two NUMA policies, {one.numa_policy} and {other.numa_policy}")
    types = {spec.get("dev_type") for spec in (*one.specs, *other.specs)}
    if len(types) > 1:
        raise _invalid(f"{_FIELD}: {one.name} has several device types")
    return PciAlias(one.name, one.numa_policy, one.specs + other.specs)


def check_aliases(aliases: PciAliases, *, pci_in_placement: bool) -> None:
    """Raise InvalidValue for an alias that no request can use. With ``pci_in_placement`` an alias has one entry, which
    names a resource class or both ids; else every entry names both ids."""
    for alias in aliases.values():
        if pci_in_placement and len(alias.specs) > 1:
            raise _invalid(
                f"{_FIELD}: {alias.name} has {len(alias.specs)} entries; with [filter_scheduler] pci_in_placement one",
                "give the devices one resource_class",
            )
        for spec in alias.specs:
            has_ids = "vendor_id" in spec and "product_id" in spec
            if not has_ids and not (pci_in_placement and "resource_class" in spec):
                wanted = "vendor_id and product_id" + (", or resource_class" if pci_in_placement else "")
                raise _invalid(f"{_FIELD}: {alias.name} needs {wanted}")


def _invalid(message: str, hint: str | None = None) -> InvalidValue:
    return InvalidValue(message, field=_FIELD, hint=hint)
