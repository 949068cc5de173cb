"""Free PCI devices of all rows. Each combination of pools is stored once, however many hosts have it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from ..devices.sriov import available
from ..types.errors import InvalidValue
from ..types.host import PciPool
from ..types.validation import shown, whole_number
from .change_log import ChangeLog, rows_array
from .columns import COLUMN

MOST_WEIGHED: Final = 99
"""PCIWeigher counts free devices up to this number (Nova 33: MAX_DEVS - 1)."""


class PciStates:
    """Combinations of pools by id; 0 is the empty one. The column ``pci`` holds the id for each row."""

    def __init__(self, change_log: ChangeLog) -> None:
        self._change_log = change_log
        self.values: list[tuple[PciPool, ...]] = []
        self._available: list[tuple[PciPool, ...]] = []
        self._ids: dict[str, int] = {}
        self.id(())

    def __len__(self) -> int:
        return len(self.values)

    def id(self, pools: Iterable[PciPool]) -> int:
        """The id of a combination, new if it was not seen before. O(devices' attributes)."""
        state = tuple(pools)
        key = json.dumps(
            [[pool.count, pool.numa_node, dict(pool.tags), pool.card, pool.total] for pool in state], sort_keys=True
        )
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = len(self.values)
            self.values.append(state)
            self._available.append(available(state))
        return known

    def of(self, row: int) -> tuple[PciPool, ...]:
        """Devices of a row that no guest has; empty if none are known. O(1)."""
        return self.values[int(self._change_log.store.row["pci"][row])]

    def available(self, row: int) -> tuple[PciPool, ...]:
        """Those of them that a guest may take: no function of a card of which another function is taken. O(1)."""
        return self._available[int(self._change_log.store.row["pci"][row])]

    def set(self, row: int, state: int) -> None:
        """Set the state of a row and the column that PCIWeigher reads. Does not record or log the change. O(pools)."""
        store = self._change_log.store
        self._change_log.constants.count_devices((state > 0) - int(store.row["pci"][row] > 0))
        store.row["pci"][row] = state
        store.host[COLUMN["pci_weight"], row] = weight(self._available[state])

    def replace(self, row: int, state: int) -> None:
        """Give a row another state, recorded, logged and settled. O(pools)."""

        def put(value: int) -> None:
            self.set(row, value)
            self._change_log.changed(rows_array(row))
            self._change_log.settle()

        self._change_log.make(partial(put, state), partial(put, int(self._change_log.store.row["pci"][row])))

    def keep(self, kept: Iterable[int]) -> None:
        """Forget all states but those with the ids ``kept``, which become 0, 1, 2, ... in their order. O(states)."""
        new = {old: index for index, old in enumerate(kept)}
        self.values[:] = [self.values[old] for old in new]
        self._available[:] = [self._available[old] for old in new]
        self._ids = {key: new[old] for key, old in self._ids.items() if old in new}

    def truncate(self, count: int) -> None:
        """Drop the states after the first ``count``, after a failed load."""
        del self.values[count:], self._available[count:]
        self._ids = {key: index for key, index in self._ids.items() if index < count}


def weight(pools: Iterable[PciPool]) -> float:
    """100 - min(available devices, 99): the raw value of Nova 33's PCIWeigher for requests without PCI devices."""
    return 100.0 - min(sum(pool.count for pool in pools), MOST_WEIGHED)


def check_pools(pools: object, field: str) -> tuple[PciPool, ...]:
    """``pools`` if they are PCI pools that can be saved; InvalidValue otherwise. O(attributes)."""
    if not isinstance(pools, (tuple, list)):
        raise InvalidValue(f"{field} must be a tuple of PCI pools, got {shown(pools)}", field=field)
    for pool in pools:
        if not isinstance(pool, PciPool):
            raise InvalidValue(f"{field} must be PCI pools, got {shown(pool)}", field=field)
        whole_number(pool.count, f"{field}.count")
        if pool.numa_node is not None:
            whole_number(pool.numa_node, f"{field}.numa_node")
        if pool.total is not None:
            whole_number(pool.total, f"{field}.total", least=pool.count)
        if pool.card is not None and not (isinstance(pool.card, str) and pool.card):
            raise InvalidValue(f"{field}.card must be a name, got {shown(pool.card)}", field=field)
        if not is_plain(pool.tags):
            raise InvalidValue(
                f"{field}.tags must be a mapping of names to plain values, got {shown(pool.tags)}", field=field
            )
    return tuple(pools)


def is_plain(values: Any) -> bool:
    """True for a mapping with string keys that survives a round trip through JSON."""
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        return False
    try:
        text = json.dumps(dict(values), allow_nan=False)
        return bool(json.loads(text) == dict(values))
    except (TypeError, ValueError, RecursionError):
        return False
