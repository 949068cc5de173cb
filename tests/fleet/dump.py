"""The whole state of a fleet as one comparable value, generations and the order of consumers on a row included.

Left out: what only ever grows because equal values get equal ids (host classes, shapes and the like), and how rows are
allocated.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hostler.ext.fleet_state import consumers
from hostler.placement.fleet.aggregates import NONE
from hostler.placement.fleet.fleet import Fleet


def dump(fleet: Fleet) -> dict[str, Any]:
    """The state to the bit."""
    return {
        "names": arrays(fleet._names.to_arrays()),
        "service hosts": arrays(fleet._nodes.names.to_arrays()),
        "made": fleet._providers.made,
        "now": fleet.now,
        "columns": columns(fleet),
        "inventories": inventories(fleet),
        "uuids": {fleet.uuid(row): fleet.row_of_uuid(fleet.uuid(row)) for row in live_rows(fleet)},
        "nodes": {index: row for index, row in enumerate(fleet._nodes.row_of.tolist()) if row >= 0},
        "shared": {host: list(rows) for host, rows in fleet._nodes.shared.items()},
        "aggregates": [each for each in fleet.aggregates[: len(fleet._aggregate_table)] if each is not NONE],
        "cells": {row: fleet._numa.get_row(row) for row in range(fleet.rows) if fleet._numa.get_row(row) is not None},
        "devices": [fleet.pci_pools(row) for row in range(fleet.rows)],
        "facts": (fleet._change_log.constants.facts(), fleet.sharing_providers(), trees(fleet)),
        "groups": [(uuid, fleet._kernel.group(index)) for index, uuid in enumerate(fleet._group_uuids)],
        "consumers": guests(fleet),
    }


def live_rows(fleet: Fleet) -> list[int]:
    """Rows that have a provider."""
    freed = set(fleet._names.to_arrays()["free"].tolist())
    return [row for row in range(fleet.rows) if row not in freed]


def arrays(found: dict[str, Any]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in found.items()}


def columns(fleet: Fleet) -> dict[str, bytes]:
    """All columns but the inventories'."""
    found = {"host": fleet._store.host[:, : fleet.rows].tobytes()}
    return found | {name: column[: fleet.rows].tobytes() for name, column in fleet._store.row.items()}


def inventories(fleet: Fleet) -> dict[tuple[str, str], bytes]:
    """Blocks by name and resource class, where there is anything."""
    blocks: dict[str, Any] = {**fleet._store.inventory, "ratio": fleet._store.ratio}
    return {
        (name, resource): block[index, : fleet.rows].tobytes()
        for name, block in blocks.items()
        for index, resource in enumerate(fleet.resource_classes)
        if block[index, : fleet.rows].any()
    }


def trees(fleet: Fleet) -> list[list[int]]:
    return [fleet.tree(row) for row in range(fleet.rows)]


def guests(fleet: Fleet) -> dict[Any, Any]:
    """Consumers by id, the rows' lists in order, and the ids that come next."""
    table = consumers(fleet._kernel)
    found: dict[Any, Any] = {}
    for consumer in np.flatnonzero(table["row"] >= 0).tolist():
        extras, properties = fleet._extras.get(consumer), fleet._image_properties.get(consumer)
        found[consumer] = (fleet._kernel.consumer(consumer), extras, properties)
    found["missing"] = dict(fleet._consumers.missing)
    found["also on"] = {row: dict(held) for row, held in fleet._consumers.also_on.items()}
    found["lists"] = [fleet._kernel.consumers_on(row) for row in range(fleet.rows)]
    free, fill = table["free"].tolist(), len(table["row"])
    while free and free[-1] == fill - 1:
        # Freed last of all: as if it had never been given out.
        fill -= 1
        free.pop()
    found["next"] = (free, fill)
    return found
