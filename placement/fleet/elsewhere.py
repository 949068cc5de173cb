"""Consumers that take of more rows than their own, by the other rows, and which of those are hosts: an instance that an
evacuation has given a second host stands on both. It knows no consumers but by id."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from .change_log import ChangeLog


class Elsewhere(dict[int, set[int]]):
    """By row: the consumers that are on another row and take of this one as well."""

    __slots__ = ("_change_log", "_hosts", "_topology", "_unsure")

    def __init__(self, change_log: ChangeLog) -> None:
        super().__init__()
        self._change_log = change_log
        self._hosts, self._unsure, self._topology = set[int](), set[int](), -1

    def add(self, row: int, consumer: int) -> None:
        """A consumer of another row takes of ``row``. O(1)."""
        self.setdefault(row, set()).add(consumer)
        self._unsure.add(row)

    def drop(self, row: int, consumer: int) -> None:
        """A consumer of another row takes of ``row`` no more. O(1)."""
        self[row].discard(consumer)
        self._unsure.add(row)

    def hosts(self) -> Set[int]:
        """The rows that are hosts. O(rows whose consumers changed since the last call), or O(rows) after providers
        changed: one that becomes a host is such a change."""
        change_log = self._change_log
        if self._topology != change_log.topology_epoch:
            self._topology = change_log.topology_epoch
            rows = np.fromiter((row for row, held in self.items() if held), np.int32)
            self._hosts = set(rows[change_log.is_host()[change_log.store.row["class_of"][rows]]].tolist())
        elif self._unsure:
            now = {row for row in self._unsure if self.get(row) and change_log.host_class(row).is_host}
            self._hosts = (self._hosts - self._unsure) | now
        self._unsure.clear()
        return self._hosts


__all__ = ["Elsewhere"]
