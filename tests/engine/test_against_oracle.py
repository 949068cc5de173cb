"""The engine decides as the slow, obvious scheduler does, and its state stays the same as that one's, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.placement.policy import Policy
from hostler.placement.request import RequestSpec

from . import commands as c
from . import values
from .run import Run

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
some_specs = st.lists(values.specs(), min_size=1, max_size=3)


@settings(quick, max_examples=150)
@given(values.fleets(), values.policies(), some_specs, st.lists(c.commands, min_size=1, max_size=10))
def test_every_decision_and_every_state_is_the_oracles(
    setup: values.Fleet, policy: Policy, specs: list[RequestSpec], steps: list[c.Command]
) -> None:
    run = Run(setup, [policy], specs)
    run.check()
    for step in steps:
        run.do(step)
