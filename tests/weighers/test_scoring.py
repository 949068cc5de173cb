"""The slow, obvious scorer: Nova's arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Host, HostState
from hostler.placement.types.options import Options
from hostler.placement.types.request import Request, ServerGroup
from hostler.placement.weighers import BUILTIN_WEIGHERS
from hostler.placement.weighers.base import ColumnWeigher, Weigher
from tests.weighers.scoring import Part, normalize, score

from . import values
from .values import host, in_aggregates, request, weigher


@pytest.mark.parametrize(
    ("raws", "minval", "maxval", "expected"),
    [
        ([], None, None, []),
        ([5], None, None, [0.0]),
        ([5, 5], None, None, [0.0, 0.0]),
        ([0, 5, 10], None, None, [0.0, 0.5, 1.0]),
        ([5, 10], 0.0, None, [0.5, 1.0]),
        ([0, 0], 0.0, None, [0.0, 0.0]),
        ([5, 10], 0.0, 20.0, [0.25, 0.5]),
        ([-3, -1], None, None, [0.0, 1.0]),
    ],
)
def test_raw_values_are_brought_to_a_common_range(
    raws: list[float], minval: float | None, maxval: float | None, expected: list[float]
) -> None:
    assert normalize(raws, minval, maxval) == expected


def totals(hosts: list[Host], weighers: list[Weigher]) -> list[tuple[int, float]]:
    return [(scored.host_index, scored.total) for scored in score(hosts, request(), weighers)]


def test_the_best_comes_first_and_ties_keep_their_order() -> None:
    hosts = [host(free_ram_mb=mb) for mb in (10, 40, 20, 40, 10)]
    assert totals(hosts, [weigher("RAMWeigher")]) == [(1, 1.0), (3, 1.0), (2, 0.5), (0, 0.25), (4, 0.25)]


def test_less_than_nothing_counts_as_nothing() -> None:
    hosts = [host(free_ram_mb=mb) for mb in (-50, 0, 100)]
    scored = score(hosts, request(), [weigher("RAMWeigher")])
    assert [(one.host_index, one.parts[0].raw, one.total) for one in scored] == [
        (2, 100, 1.0),
        (0, 0.0, 0.0),
        (1, 0, 0.0),
    ]


def test_one_host_is_not_weighed() -> None:
    required = weigher("MetricsWeigher", metrics={"weight_setting": "a=1"})
    (only,) = score([host()], request(), [required])
    assert only == (0, 0.0, ())


def test_no_host_and_no_weigher_are_scored_too() -> None:
    assert score([], request(), [weigher("RAMWeigher")]) == []
    assert totals([host(), host()], []) == [(0, 0.0), (1, 0.0)]


def test_a_part_says_what_a_weigher_added() -> None:
    hosts = [in_aggregates({"ram_weight_multiplier": "3"}), host(free_ram_mb=8)]
    hosts[0] = replace(hosts[0], free_ram_mb=4)
    (first, second) = score(hosts, request(), [weigher("RAMWeigher")])
    assert first.parts == (Part("RAMWeigher", 4, 0.5, 3.0),)
    assert (first.host_index, first.total, first.parts[0].points, second.total) == (0, 1.5, 1.5, 1.0)


class Answer(Weigher):
    """Answers with a number that the host's version names."""

    name: ClassVar[str] = "Answer"
    option: ClassVar[str] = "ram_weight_multiplier"
    maxval: ClassVar[float | None] = 10.0
    answers: ClassVar[dict[int | None, float]] = {1: math.nan, 2: math.inf, 3: 50.0, 4: 5.0, None: 0.0}

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"hypervisor_version"})

    def raw(self, host: HostState, request: Request) -> float:
        return self.answers[host.hypervisor_version]


@pytest.mark.parametrize("version", [1, 2])
def test_a_raw_value_that_is_no_finite_number_is_refused(version: int) -> None:
    with pytest.raises(InvalidValue, match="Answer: raw value is"):
        score([host(), host(hypervisor_version=version)], request(), [Answer(Options())])


def test_a_greatest_value_limits_raw_values_and_the_range() -> None:
    hosts = [host(hypervisor_version=version) for version in (3, 4, None)]
    scored = score(hosts, request(), [Answer(Options())])
    assert [(one.parts[0].raw, one.total) for one in scored] == [(10.0, 1.0), (5.0, 0.5), (0.0, 0.0)]


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(values.hosts, max_size=6), values.requests, values.options)
def test_scores_fall_and_sum_up_and_every_host_is_there_once(
    hosts: list[Host], asked: Request, options: Options
) -> None:
    weighers = [built(options) for built in BUILTIN_WEIGHERS.values()]
    scored = score(hosts, asked, weighers)
    assert sorted(one.host_index for one in scored) == list(range(len(hosts)))
    order = [(-one.total, one.host_index) for one in scored]
    assert order == sorted(order)
    for one in scored:
        total = 0.0
        for part in one.parts:
            assert 0.0 <= part.normalized <= 1.0
            total += part.multiplier * part.normalized
        assert one.total == total


@pytest.mark.property
@settings(deadline=None)
@given(
    st.lists(values.hosts, min_size=1, max_size=4),
    values.requests,
    values.options,
    st.sampled_from(list(BUILTIN_WEIGHERS)),
)
def test_a_weigher_depends_on_nothing_that_it_does_not_declare(
    hosts: list[Host], asked: Request, options: Options, name: str
) -> None:
    judge = BUILTIN_WEIGHERS[name](options)
    bare = host(metrics={}, instances={})
    for of in hosts:
        declared: dict[str, Any] = {field: getattr(of, field) for field in judge.fields(asked)}
        assert judge.raw(replace(bare, **declared), asked) == judge.raw(of, asked)
        assert judge.host_multiplier(replace(bare, aggregates=of.aggregates)) == judge.host_multiplier(of)


@pytest.mark.property
@settings(deadline=None)
@given(
    st.lists(values.hosts, min_size=1, max_size=4),
    values.requests,
    values.options,
    st.sampled_from(list(BUILTIN_WEIGHERS)),
)
def test_a_weigher_that_does_not_apply_sees_all_hosts_alike(
    hosts: list[Host], asked: Request, options: Options, name: str
) -> None:
    judge = BUILTIN_WEIGHERS[name](options)
    if not judge.applies(asked):
        assert len({judge.raw(of, asked) for of in hosts}) == 1


@pytest.mark.property
@settings(deadline=None)
@given(values.hosts, values.requests, values.options)
def test_the_group_form_says_the_same_as_the_host_form(of: Host, asked: Request, options: Options) -> None:
    for built in BUILTIN_WEIGHERS.values():
        judge = built(options)
        factor = judge.group_factor
        if factor is not None and judge.applies(asked) and isinstance(asked.server_group, ServerGroup):
            assert judge.raw(of, asked) == factor * len(asked.server_group.members & of.instances.keys())
        assert factor is None or not isinstance(judge, ColumnWeigher)
