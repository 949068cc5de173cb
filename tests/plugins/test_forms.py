"""Rules of every form, given as classes, decide as their host form does, in place and in place_many."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.placement.policy.policy import Policy
from hostler.placement.types.request import RequestSpec

from ..engine import commands as c
from ..engine import values
from ..engine.run import Run
from .rules import FILTERS, WEIGHERS

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Some rules of one's own beside some of Nova's."""
    filters = draw(st.lists(st.sampled_from(FILTERS), unique=True, max_size=4))
    weighers = draw(st.lists(st.sampled_from(WEIGHERS), unique=True, max_size=4))
    group = {"enabled_filters": draw(st.sampled_from([["ComputeFilter"], ["ServerGroupAntiAffinityFilter"]]))}
    group |= draw(st.sampled_from([{}, {"weight_classes": ["RAMWeigher", "NumInstancesWeigher"]}]))
    return Policy.from_mapping({"filter_scheduler": group}, filters=filters, weighers=weighers)


away = st.sampled_from([(0, 1), (0, 1, 9000, 9001), (2,)]).map(lambda guests: tuple(map(values.guest_uuid, guests)))


@st.composite
def specs(draw: st.DrawFn) -> tuple[RequestSpec, ...]:
    chosen = draw(values.some_specs)
    hinted = replace(chosen[0], scheduler_hints={**chosen[0].scheduler_hints, "away": draw(away)})
    return (*chosen, hinted)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(values.fleets(), policies(), specs(), st.lists(c.commands, min_size=4, max_size=14))
def test_every_form_decides_as_the_host_form(
    setup: values.Fleet, policy: Policy, asked: tuple[RequestSpec, ...], steps: list[c.Command]
) -> None:
    run = Run(setup, [policy], asked)
    for step in steps:
        run.do(step)
