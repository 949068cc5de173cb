"""Measured placements: the phases are told, and no answer depends on it."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.phase_timing import Phases, PhaseSampler
from hostler.core.tenancy import commands as c

from .orders import asked, machine, order

SPECS: list[dict[str, Any]] = [
    {},
    {"vcpus": 3},
    {"vcpus": 1_000},
    {"ignore_hosts": ["node-0"]},
    {"scheduler_hints": {"resource_pools": ["mine"]}},
    {"project": "p1", "vcpus": 2},
    {"project": "p2"},
]
REQUESTS = st.builds(
    lambda uuids, spec: asked(*uuids, **spec),
    st.sampled_from([(), (), (1,), (2,), (3, 4), (5, 6, 7)]),
    st.sampled_from(SPECS),
)


def limited() -> ServiceMachine:
    """A machine whose project p1 has room for two guests."""
    made = machine(4)
    for command in (
        c.CreateDomain(id="d"),
        c.CreateProject(id="p1", domain="d"),
        c.SetLimits(scope="project:p1", limits={"instances": 2}),
    ):
        made.apply(order(command))
    return made


@settings(max_examples=60)
@given(st.lists(st.lists(REQUESTS, min_size=1, max_size=9), min_size=1, max_size=4))
def test_no_answer_depends_on_which_placements_are_measured(runs: list[list[p.Asked]]) -> None:
    plain, measured = limited(), limited()
    measured.state.sampler = PhaseSampler(lambda way, phases: None, every=0.0, clock=lambda: 0.0)
    for run in runs:
        orders = [order(p.Place(request=request)) for request in run]
        for given_orders in (orders, [order(p.PlaceMany(requests=tuple(run)))]):
            answers = [made.apply_batch(given_orders) for made in (plain, measured)]
            assert list(map(str, answers[0])) == list(map(str, answers[1]))
    assert plain.state.usage == measured.state.usage
    assert plain.state.engine.sequence == measured.state.engine.sequence
    measured.state.fleet.check()


def test_a_placement_by_the_index_and_one_by_a_scan_tell_all_their_phases() -> None:
    made, seen = machine(), list[tuple[str, Phases]]()
    for request in (asked(1), asked(2, ignore_hosts=["node-0"])):
        clock = itertools.count().__next__  # each look at it is a second
        made.state.sampler = PhaseSampler(lambda way, phases: seen.append((way, phases)), clock=clock)
        made.apply(order(p.Place(request=request)))
    assert [way for way, _ in seen] == ["index", "scan"]
    for _, each in seen:
        assert list(each) == ["compile", "filters", "weighers", "claim"]
        assert all(seconds >= 0 for seconds in each.values())
        assert each["weighers"] > 0
    assert seen[0][1]["filters"] > 0


def test_between_two_samples_there_is_time_for_others() -> None:
    now = [0.0]
    sampler = PhaseSampler(lambda way, phases: None, every=0.1, clock=lambda: now[0])
    chosen = []
    for now[0] in (0.0, 0.05, 0.099, 0.1, 0.15, 0.21):
        chosen.append(sampler.choose(10) is not None)
    assert chosen == [True, False, False, True, False, True]


def test_samples_that_take_long_are_rare() -> None:
    made, now, measured = machine(), [0.0], list[float]()
    sampler = PhaseSampler(lambda way, phases: measured.append(now[0]), every=0.1, clock=lambda: now[0])
    made.state.sampler = sampler
    rank = made.state.engine.rank

    def slow(*given: Any, **more: Any) -> Any:
        now[0] += 0.2
        return rank(*given, **more)

    made.state.engine.rank = slow  # type: ignore[method-assign]  # a scan of a very big fleet
    for number in range(100):
        now[0] += 1.0
        made.apply(order(p.Place(request=asked(number, memory_mb=1, ignore_hosts=["node-0"]))))
    assert len(measured) == 5
    assert all(after - before >= 20 for before, after in itertools.pairwise(measured))


def test_samples_fall_on_every_position_of_a_run() -> None:
    sampler = PhaseSampler(lambda way, phases: None, every=0.0)
    assert {sampler.choose(64) for _ in range(64)} == set(range(64))
