"""Run by the real Placement's Python: writes a cloud, JSON on standard input, into its tables, as requests to it would.

    python placement_fill.py DATABASE_URL < CLOUD

It imports nothing of Hostler's. By requests a provider takes the service 30 ms.
"""

from __future__ import annotations

import json
import sys
from typing import Any

FIGURES = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")
TABLES = {
    "resource_providers": ("id", "uuid", "name", "generation", "root_provider_id", "parent_provider_id"),
    "inventories": ("resource_provider_id", "resource_class_id", *FIGURES),
    "resource_provider_traits": ("resource_provider_id", "trait_id"),
    "resource_provider_aggregates": ("resource_provider_id", "aggregate_id"),
}


def rows_of(cloud: dict[str, Any], ids: dict[str, dict[str, int]]) -> dict[str, list[tuple[Any, ...]]]:
    """By table, the rows of the nodes, parents before children. ``ids``: by table and name."""
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    numbers: dict[str, int] = {}
    roots: dict[int, int] = {}
    for number, node in enumerate(cloud["nodes"], 1):
        numbers[node["name"]] = number
        parent = numbers[node["parent"]] if node["parent"] else None
        roots[number] = number if parent is None else roots[parent]
        generation = 1 + bool(node["traits"]) + bool(node["aggregates"])
        provider = (number, node["uuid"], node["name"], generation, roots[number], parent)
        rows["resource_providers"].append(provider)
        for name, figures in node["inventories"].items():
            values = (number, ids["resource_classes"][name], *(figures[field] for field in FIGURES))
            rows["inventories"].append(values)
        rows["resource_provider_traits"] += [(number, ids["traits"][name]) for name in node["traits"]]
        known = ids["placement_aggregates"]
        rows["resource_provider_aggregates"] += [(number, known[uuid]) for uuid in node["aggregates"]]
    return rows


def main(url: str) -> None:
    """Fill the database."""
    from sqlalchemy import create_engine, text

    cloud = json.load(sys.stdin)
    with create_engine(url).begin() as connection:
        ids: dict[str, dict[str, int]] = {}
        for table, column, names in (
            ("resource_classes", "name", []),
            ("traits", "name", cloud["traits"]),
            ("placement_aggregates", "uuid", cloud["aggregates"]),
        ):
            if names:
                connection.execute(
                    text(f"insert into {table} ({column}) values (:name)"), [{"name": name} for name in names]
                )
            ids[table] = dict(connection.execute(text(f"select {column}, id from {table}")).fetchall())
        for table, rows in rows_of(cloud, ids).items():
            columns = TABLES[table]
            insert = f"insert into {table} ({', '.join(columns)}) values (:{', :'.join(columns)})"
            connection.execute(text(insert), [dict(zip(columns, row, strict=True)) for row in rows])
        if connection.dialect.name == "postgresql":
            last = "(select max(id) from resource_providers)"
            connection.execute(text(f"select setval(pg_get_serial_sequence('resource_providers', 'id'), {last})"))
            connection.execute(text("analyze"))


if __name__ == "__main__":
    main(sys.argv[1])
