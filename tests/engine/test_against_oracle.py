"""The engine decides as the slow, obvious scheduler does, and its state stays the same as that one's, whatever
happens."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.placement.policy.policy import Policy
from hostler.placement.types.request import RequestSpec

from . import commands as c
from . import values
from .dump import dump
from .run import Run

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(quick, max_examples=120)
@given(values.fleets(), values.policies(), values.some_specs, st.lists(c.commands, min_size=4, max_size=16))
def test_every_decision_and_every_state_is_the_oracles(
    setup: values.Fleet, policy: Policy, specs: tuple[RequestSpec, ...], steps: list[c.Command]
) -> None:
    run = Run(setup, [policy], specs)
    run.check()
    for step in steps:
        run.do(step)


turns = st.tuples(st.integers(0, 3), st.one_of(c.forks, c.commands, c.commands, c.commands))


@settings(quick, max_examples=60)
@given(
    values.fleets(most=5),
    st.lists(values.policies(), min_size=2, max_size=2),
    values.some_specs,
    st.lists(turns, min_size=6, max_size=16),
)
def test_forks_go_their_own_ways(
    setup: values.Fleet, policies: list[Policy], specs: tuple[RequestSpec, ...], steps: list[tuple[int, c.Command]]
) -> None:
    runs = [Run(setup, policies, specs)]
    for turn, step in steps:
        run = runs[turn % len(runs)]
        if isinstance(step, c.Fork):
            if len(runs) < 4:
                runs.append(run.fork(policies[1] if step.other_policy else None))
        else:
            run.do(step)
    for run in runs:
        run.check()


@settings(quick, max_examples=60)
@given(values.fleets(most=5), values.policies(), values.some_specs, st.lists(c.commands, max_size=5), st.data())
def test_what_if_leaves_its_parent_untouched(
    setup: values.Fleet, policy: Policy, specs: tuple[RequestSpec, ...], steps: list[c.Command], data: st.DataObject
) -> None:
    run = Run(setup, [policy, policy], specs)
    for step in steps:
        run.do(step)
    before = dump(run.engine)
    trial = run.fork(None)
    for step in data.draw(st.lists(c.commands, min_size=1, max_size=6)):
        trial.do(step)
        assert dump(run.engine) == before
    run.check()
