"""JsonFilter."""

import json
from typing import Any

import pytest

from hostler.placement.filters.json_query import JsonFilter
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Service
from hostler.placement.types.request import Request

from .values import build, host, request

HOST = host(
    free_ram_mb=4096,
    num_io_ops=0,
    stats={"rack": "r0"},
    metrics={"load": 3},
    service=Service(disabled=True),
    supported_instances=(("x86_64", "kvm", "hvm"),),
)


def asking(query: Any) -> Request:
    return request(hints={"query": (query if isinstance(query, str) else json.dumps(query),)})


TABLE: list[tuple[Any, bool]] = [
    ("", True),
    ("[]", True),
    ("{}", True),
    ("null", True),
    (["=", "$host", "h1"], True),
    (["=", "$hypervisor_hostname", "n1"], True),
    (["=", "$host", "h1", "h2"], False),
    ([">", "$free_ram_mb", 1024, 2048], True),
    ([">", "$free_ram_mb", 1024, 4096], False),
    (["<", 1, "$vcpus_total"], True),
    (["<=", "$num_io_ops", 0], True),
    ([">=", "$free_ram_mb"], False),
    (["="], False),
    (["in", "$stats.rack", "r0", "r1"], True),
    (["in", "$stats.rack", "r1"], False),
    (["in", "$stats.rack"], False),
    (["=", "$service.disabled", True], True),
    (["=", "$metrics.load", 3], True),
    (["in", ["=", 1, 1], True], True),
    (["=", "$nothing", 3], False),
    (["=", "$nothing", 3, 3], True),
    (["=", "$stats.nothing", 3], False),
    (["=", "$host.x", 3], False),
    (["=", "", "x"], False),
    (["=", None, "x", "x"], True),
    (["not", ["=", "$host", "h2"]], True),
    (["not", True, False], True),
    (["not", True, True], False),
    (["not"], False),
    (["and", ["not", True]], True),
    (["and", [">", "$free_ram_mb", 1], ["=", 1, 2]], False),
    (["and"], True),
    (["or", ["=", 1, 2], []], True),
    (["or"], False),
    (["=", "$supported_instances", "$supported_instances"], True),
]


@pytest.mark.parametrize(("query", "passes"), TABLE)
def test_a_host_must_satisfy_the_query(query: Any, passes: bool) -> None:
    assert build(JsonFilter).host_passes(HOST, asking(query)) is passes


@pytest.mark.parametrize(
    "query",
    [
        "{",
        '"text"',
        "3",
        '{"=": 1}',
        ["xor", 1],
        [["="], 1],
        [3],
        ["and", ["nothing"]],
        ["<", "$free_ram_mb", "1024"],
        ["<", "$stats.rack", 3],
        "[" * 100_000,
        '["not", ' * 100 + "true" + "]" * 100,
        '["not", ' * 100_000 + "true" + "]" * 100_000,
    ],
)
def test_a_query_that_makes_no_sense_is_an_error_that_names_the_hint(query: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        build(JsonFilter).host_passes(HOST, asking(query))
    assert caught.value.field == "scheduler_hints.query"


def test_two_queries_are_an_error() -> None:
    with pytest.raises(InvalidValue, match="takes one value, not 2"):
        build(JsonFilter).host_passes(HOST, request(hints={"query": ("[]", "[]")}))


def test_only_the_attributes_in_the_query_are_read() -> None:
    query = ["and", ["=", "$stats.rack", "$hypervisor_hostname"], ["not", ["=", "$nothing", "$limits.x", "$host"]]]
    assert build(JsonFilter).fields(asking(query)) == {"stats", "nodename", "host"}
    assert build(JsonFilter).fields(asking(["=", 1, 1])) == frozenset()


def test_the_reason_names_the_values_that_were_found() -> None:
    assert build(JsonFilter).reason(HOST, asking(["<", "$free_ram_mb", "$nothing", 3])) == (
        'query ["<", "$free_ram_mb", "$nothing", 3] is false with $free_ram_mb=4096, $nothing=missing'
    )
