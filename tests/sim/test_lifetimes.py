"""Lifetimes of which many are not seen to the end, and the guests that are made from them."""

from __future__ import annotations

import numpy as np
import pytest

from hostler.placement.types.request import Flavor, RequestSpec
from hostler.sim.trace.generator import Made
from hostler.sim.trace.lifetimes import Lifetimes
from hostler.sim.trace.workload import NEVER, STEP_S, Workload

DAY = 86_400
SPEC = (RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1024)),)


def workload(arrival: np.ndarray, departure: np.ndarray, *, end_s: int, standing: int = 0) -> Workload:
    count = len(arrival)
    return Workload(
        name="t",
        specs=SPEC,
        arrival_s=np.asarray(arrival, np.int64),
        departure_s=np.asarray(departure, np.int64),
        spec=np.zeros(count, np.int64),
        batch=np.arange(count),
        group=np.full(count, -1),
        standing=standing,
        start_s=0,
        end_s=end_s,
        closed=True,
    )


def seen(days: float, mean_days: float, per_hour: float, seed: int, *, standing: bool) -> Workload:
    """Guests that come at random and stay exponentially long, of which a window of time is seen; the standing ones with
    their true time of arrival, if they are."""
    rng = np.random.default_rng(seed)
    window, before = int(days * DAY), int(12 * mean_days * DAY) if standing else 0
    arrival = np.sort(rng.uniform(-before, window, rng.poisson(per_hour * (before + window) / 3600)))
    departure = arrival + rng.exponential(mean_days * DAY, len(arrival))
    here = departure > 0
    arrival, departure = arrival[here] // STEP_S * STEP_S, np.ceil(departure[here] / STEP_S) * STEP_S
    departure = np.where(departure >= window, NEVER, departure)
    return workload(arrival, departure, end_s=window, standing=int(np.count_nonzero(arrival < 0)))


def load(made: Made) -> float:
    """Guests that are there on average."""
    whole = made.whole()
    stays = np.minimum(whole.departure_s, whole.end_s) - np.maximum(whole.arrival_s, 0)
    return float(stays.sum()) / whole.end_s


@pytest.mark.parametrize("times", [0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("standing", [False, True])
def test_made_guests_are_as_many_as_the_rate_times_the_mean_lifetime(times: float, standing: bool) -> None:
    """Also where guests live five times as long as the trace is."""
    days, per_hour = 4.0, 120.0 if times > 1 else 60.0
    loads = []
    for seed in range(2):
        made = Made(seen(days, times * days, per_hour, seed, standing=standing), hours=24 * 12, seed=seed, warm_up=True)
        loads.append(load(made) / (per_hour * 24 * times * days))
    assert np.mean(loads) == pytest.approx(1.0, abs=0.03)


def test_the_estimate_is_the_product_limit() -> None:
    """Five guests: ends at the ages 1, 2 and 4 (in steps), one seen until 2, one from age 2 until 3."""
    step = STEP_S
    entry = np.array([0, 0, 0, 0, 2]) * step
    leave = np.array([1, 2, 2, 4, 3]) * step
    found = Lifetimes(np.repeat(entry, 40), np.repeat(leave, 40), np.repeat([True, True, False, True, False], 40))
    by_hand = [1 - 1 / 4, (1 - 1 / 4) * (1 - 1 / 3)]
    assert found.ages.tolist()[:2] == [step, 2 * step]
    assert found.survival.tolist()[:2] == pytest.approx(by_hand)


def test_guests_that_are_never_seen_to_end_stay() -> None:
    count = 200
    entry, leave = np.zeros(count, np.int64), np.full(count, 10 * DAY)
    never = Lifetimes(entry, leave, np.zeros(count, bool))
    assert never.forever == 1.0
    assert set(never.beyond(leave, np.linspace(0, 0.99, count)).tolist()) == {NEVER}
    ended = np.arange(count) < 100
    half = Lifetimes(entry, np.where(ended, 300 * (1 + np.arange(count) % 12), leave), ended)
    assert half.forever == pytest.approx(0.5)


def test_what_stands_at_the_traces_end_stands_at_the_beginning_of_what_is_made() -> None:
    """900 guests stay for ever, and one a day comes, at noon."""
    arrival = np.array([-STEP_S] * 900 + [day * DAY + DAY // 2 for day in range(30)])
    made = Made(workload(arrival, np.full(930, NEVER), end_s=30 * DAY, standing=900), hours=24 * 30, seed=0)
    assert made.standing == 930
    whole = made.whole()
    assert whole.standing == 930
    assert len(whole) - 930 == pytest.approx(30, abs=20)
    assert (whole.departure_s == NEVER).all()


def test_a_crowd_in_the_first_step_is_taken_for_guests_that_stood_there() -> None:
    arrival = np.array([0] * 900 + [day * DAY + DAY // 2 for day in range(30)])
    made = Made(workload(arrival, np.full(930, NEVER), end_s=30 * DAY), hours=24 * 10, seed=0)
    assert made.standing == 930
    assert any("first step" in note for note in made.notes)


def test_growth_is_drawn_anew_for_each_seed() -> None:
    trace = seen(4.0, 0.5, 10.0, 1, standing=False)
    drawn = [
        Made(trace, hours=1, seed=seed, growth_per_year=0.5, growth_error=0.2).growth_per_year for seed in range(200)
    ]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)
    assert np.std(drawn) == pytest.approx(0.2, abs=0.04)
    assert Made(trace, hours=1, seed=3, growth_per_year=0.5).growth_per_year == 0.5
