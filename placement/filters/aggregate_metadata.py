"""Aggregate metadata of a host as filters read it: merged, with comma lists split where the rule requires it."""

from __future__ import annotations

from ..types.host import HostState


def listed_values(host: HostState) -> dict[str, set[str]]:
    """Metadata key -> all values of it in the host's aggregates, comma lists split. O(metadata of the host)."""
    united: dict[str, set[str]] = {}
    for aggregate in host.aggregates:
        for key, text in aggregate.metadata.items():
            united.setdefault(key, set()).update(split(text))
    return united


def whole_values(host: HostState, key: str) -> set[str]:
    """The values of ``key`` in the host's aggregates, unsplit. O(aggregates of the host)."""
    return {aggregate.metadata[key] for aggregate in host.aggregates if key in aggregate.metadata}


def split(text: str) -> list[str]:
    """The items of a comma list, without the blanks around them."""
    return [item.strip() for item in text.split(",")]


def shown(values: set[str]) -> str:
    """Values formatted for a message: sorted, at most eight."""
    ordered = sorted(values)
    return ",".join(ordered[:8]) + (f",... ({len(ordered)} values)" if len(ordered) > 8 else "")
