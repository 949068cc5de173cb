"""Every recorded ranking of the real Nova 33: raw values, normalised values, multipliers, scores and order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.weighers.scoring import Scored, score

from hostler.bench import nova_cases
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Host
from hostler.placement.weighers.base import Weigher

CASES = Path(__file__).parents[2] / ".." / "shared" / "parity" / "nova" / "cases.jsonl.gz"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not CASES.exists(), reason="the recorded answers of Nova (shared/parity/nova) are not here"),
]


def ranked_cases() -> list[dict[str, Any]]:
    """The cases of kind ``sorted`` but the few in which a filter failed, so that nothing was weighed."""
    return [case for case in nova_cases.read_cases(CASES) if was_weighed(case)] if CASES.exists() else []


def was_weighed(case: dict[str, Any]) -> bool:
    expected = case["expected"]
    return case["kind"] == "sorted" and (expected["error"] is None or expected["weighers"] is not None)


def weighers_of(case: dict[str, Any]) -> tuple[Weigher, ...]:
    order = {"hostler": {"weigher_order": case["weigher_order"]}}
    return Policy.from_mapping(nova_cases.option_values(case) | order).weighers


def passed_hosts(case: dict[str, Any]) -> list[Host]:
    by_name = {(host.host, host.nodename): host for host in nova_cases.hosts(case)}
    return [by_name[host, node] for host, node in case["expected"]["filtered"]]


def close(ours: float, theirs: float) -> bool:
    return abs(ours - theirs) <= 1e-9 * max(1.0, abs(theirs))


def assert_parts(case: dict[str, Any], ranking: Sequence[Scored]) -> None:
    by_host = sorted(ranking)
    for place, (name, recorded) in enumerate(case["expected"]["weighers"].items()):
        ours = [scored.parts[place] for scored in by_host]
        assert {part.weigher for part in ours} == {name}
        assert [part.raw for part in ours] == recorded["raw"], name
        assert [part.multiplier for part in ours] == recorded["multiplier"], name
        assert all(map(close, [part.normalized for part in ours], recorded["normalized"])), name


def assert_order(case: dict[str, Any], hosts: Sequence[Host], ranking: Sequence[Scored]) -> None:
    recorded = case["expected"]["ordered"]
    assert [hosts[scored.host_index].uuid for scored in ranking] == [item["uuid"] for item in recorded]
    assert all(map(close, [scored.total for scored in ranking], [item["weight"] for item in recorded]))


@pytest.mark.parametrize("case", ranked_cases(), ids=lambda case: case["id"])
def test_hosts_are_ranked_as_nova_ranked_them(case: dict[str, Any]) -> None:
    expected = case["expected"]
    hosts, request, weighers = passed_hosts(case), nova_cases.request(case), weighers_of(case)
    if expected["error"] is not None:
        with pytest.raises(HostlerError) as failure:
            score(hosts, request, weighers)
        assert getattr(failure.value, "nova_error", None) == expected["error"]["type"]
        return
    ranking = score(hosts, request, weighers)
    if expected["weighers"] is None:
        assert len(hosts) <= 1
        assert not any(scored.parts for scored in ranking)
    else:
        assert_parts(case, ranking)
    assert_order(case, hosts, ranking)
