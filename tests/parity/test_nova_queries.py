"""Every placement query that the real Nova 33 was recorded with, and where it failed before it asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hostler.bench import nova_cases
from hostler.placement.request.placement_query import HostsLookup, placement_query
from hostler.placement.types.errors import HostlerError, NoValidHost
from hostler.placement.types.host import Aggregate
from hostler.placement.types.options import Options

CASES = Path(__file__).parents[2] / ".." / "shared" / "parity" / "nova" / "cases.jsonl.gz"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not CASES.exists(), reason="the recorded answers of Nova (shared/parity/nova) are not here"),
]


def all_cases() -> list[dict[str, Any]]:
    return list(nova_cases.read_cases(CASES)) if CASES.exists() else []


def aggregates_of(case: dict[str, Any]) -> list[Aggregate]:
    return [Aggregate(uuid=item["uuid"], name=item["name"], metadata=item["metadata"]) for item in case["aggregates"]]


def lookup_of(case: dict[str, Any]) -> HostsLookup:
    def lookup(host: str | None, node: str | None, cell_uuid: str | None) -> Sequence[str]:
        wanted = {"name": host, "node": node, "cell_uuid": cell_uuid}
        return [
            item["uuid"]
            for item in case["hosts"]
            if all(value is None or item[key] == value for key, value in wanted.items())
        ]

    return lookup


def nova_error(error: HostlerError) -> str | None:
    return "NoValidHost" if isinstance(error, NoValidHost) else getattr(error, "nova_error", None)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case["id"])
def test_placement_is_asked_what_nova_asked(case: dict[str, Any]) -> None:
    recorded = case["expected"]["placement_query"]
    options = Options.from_mapping(nova_cases.option_values(case))
    asked = (nova_cases.request(case), aggregates_of(case), lookup_of(case), options)
    if recorded["error"] is None:
        assert placement_query(*asked).to_querystrings() == recorded["queries"]
        return
    with pytest.raises(HostlerError) as failure:
        placement_query(*asked)
    assert nova_error(failure.value) == recorded["error"]["type"]
