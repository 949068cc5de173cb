"""Every filter by itself against the recorded answers of the real Nova 33."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hostler.bench import nova_cases
from hostler.placement.filters import BUILTIN_FILTERS, Filter
from hostler.placement.types.host import Host
from hostler.placement.types.options import Options
from hostler.placement.types.request import Request

RECORDED = Path(__file__).resolve().parents[2].parent / "shared" / "parity" / "nova" / "cases.jsonl.gz"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not RECORDED.exists(), reason="the recorded answers ../shared/parity/nova are not here"),
]


@cache
def sorted_cases() -> tuple[nova_cases.Case, ...]:
    return tuple(case for case in nova_cases.read_cases(RECORDED) if case["kind"] == "sorted")


def answer(judge: Filter, hosts: list[Host], request: Request) -> dict[str, Any]:
    """What the filter says of all hosts, in the form of the records."""
    if request.is_rebuild and not judge.runs_on_rebuild:
        return {"eliminated": []}
    for host in hosts:
        error = judge.nova_error(host, request)
        if error is not None:
            return {"error": error, "at_host": [host.host, host.nodename]}
    refused = [host for host in hosts if judge.applies(request) and not judge.host_passes(host, request)]
    return {"eliminated": [[host.host, host.nodename] for host in refused]}


def recorded(alone: dict[str, Any]) -> dict[str, Any]:
    return alone if "error" not in alone else {"error": alone["error"]["type"], "at_host": alone["at_host"]}


@pytest.mark.parametrize("name", sorted(BUILTIN_FILTERS))
def test_a_filter_alone_refuses_the_hosts_that_nova_refuses(name: str) -> None:
    compared, differing = 0, []
    for case in sorted_cases():
        alone = (case["expected"]["each_filter_alone"] or {}).get(name)
        if alone is None:
            continue
        judge = BUILTIN_FILTERS[name](Options.from_mapping(nova_cases.option_values(case)))
        by_name = {(host.host, host.nodename): host for host in nova_cases.hosts(case)}
        hosts = [by_name[service_host, node] for service_host, node in case["expected"]["host_selection"]]
        compared += 1
        if answer(judge, hosts, nova_cases.request(case)) != recorded(alone):
            differing.append(case["id"])
    assert not differing
    assert compared


def test_derived_numbers_are_novas() -> None:
    for case in sorted_cases():
        for host, derived in zip(nova_cases.hosts(case), case["expected"]["host_state"], strict=True):
            numbers = {name: value for name, value in derived.items() if name not in ("host", "node")}
            assert {name: getattr(host, name) for name in numbers} == numbers, (case["id"], host.host)
