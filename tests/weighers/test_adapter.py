"""Existing Nova weigher classes, unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.options import Options
from hostler.placement.weighers.adapter import NovaWeigherAdapter
from tests.weighers.scoring import score

from .values import aggregate, host, request


class InstancesWeigher:
    """Nova's form: fewer instances are better."""

    minval = -10

    def weight_multiplier(self, host_state: Any) -> float:
        return 2.0 if any("fast" in one.metadata for one in host_state.aggregates) else 1.0

    def _weigh_object(self, host_state: Any, request_spec: Any) -> Any:
        return -host_state.num_instances * request_spec.flavor.vcpus


class BareWeigher:
    """Only what must be there."""

    def _weigh_object(self, host_state: Any, request_spec: Any) -> Any:
        return {"h1": 1, "h2": True, "h3": "much", "h4": float("nan")}[host_state.host]


def adapted(nova_class: type[Any]) -> NovaWeigherAdapter:
    return NovaWeigherAdapter.of(nova_class)(Options())


def test_it_is_called_and_bounded_as_the_nova_class() -> None:
    judge = adapted(InstancesWeigher)
    assert (judge.name, judge.minval, judge.maxval) == ("InstancesWeigher", -10, None)
    assert judge.__doc__ == InstancesWeigher.__doc__


def test_it_is_scored_as_nova_scores_it() -> None:
    hosts = [host(num_instances=count) for count in (4, 0, 20)]
    scored = score(hosts, request(), [adapted(InstancesWeigher)])
    assert [(one.host_index, one.parts[0].raw, one.total) for one in scored] == [
        (1, 0.0, 1.0),
        (0, -4.0, 0.6),
        (2, -10, 0.0),
    ]


def test_its_multiplier_may_depend_on_the_hosts_aggregates() -> None:
    judge = adapted(InstancesWeigher)
    assert judge.multiplier() == 1.0
    assert judge.host_multiplier(host(aggregates=(aggregate(fast="yes"),))) == 2.0


def test_without_a_multiplier_it_has_novas_default() -> None:
    judge = adapted(BareWeigher)
    assert (judge.multiplier(), judge.minval, judge.maxval) == (1.0, None, None)


def test_it_counts_as_reading_every_field_of_host_and_request() -> None:
    judge, asked = adapted(BareWeigher), request()
    assert {"free_ram_mb", "stats", "instances"} <= judge.fields(asked)
    assert judge.key(asked) is asked


@pytest.mark.parametrize(("name", "expected"), [("h1", 1.0), ("h2", 1.0)])
def test_its_numbers_are_taken(name: str, expected: float) -> None:
    assert adapted(BareWeigher).raw(host(host=name), request()) == expected


@pytest.mark.parametrize("name", ["h3", "h4"])
def test_an_answer_that_is_no_finite_number_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match="_weigh_object returned"):
        adapted(BareWeigher).raw(host(host=name), request())


def test_a_class_that_does_not_weigh_is_refused() -> None:
    with pytest.raises(InvalidValue, match="not a Nova weigher"):
        NovaWeigherAdapter.of(dict)
