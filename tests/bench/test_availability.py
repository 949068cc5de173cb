"""The proof of availability: its checker against a slow oracle, and a short run of its rounds."""

from __future__ import annotations

import random
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Literal

import pytest
import trio
from tests.etcd.servers import NEEDS_ETCD

from hostler.bench.availability_faults import run_rounds
from hostler.bench.clock_steps import COMPILER, ClockLibrary, ClockSteps
from hostler.bench.linearizability import NEVER, Operation, after, linearizable

Kind = Literal["create", "remove", "read"]


def slowly(history: list[Operation]) -> set[bool]:
    """All orders of all subsets that leave out unanswered operations only."""
    needed = [each for each in history if each.ended != NEVER]
    unknown = [each for each in history if each.ended == NEVER]
    ends: set[bool] = set()
    for choice in range(1 << len(unknown)):
        chosen = needed + [each for bit, each in enumerate(unknown) if choice >> bit & 1]
        for order in permutations(chosen):
            if any(later.ended < earlier.began for at, earlier in enumerate(order) for later in order[at + 1 :]):
                continue
            states = {False}
            for operation in order:
                states = {found for state in states for found in after(state, operation)}
            ends |= states
    return ends


def test_the_checker_agrees_with_all_orders_tried_one_by_one() -> None:
    verdicts = set()
    for seed in range(400):
        chance = random.Random(seed)
        history = []
        for _ in range(chance.randint(1, 5)):
            began = chance.random()
            kind: Kind = chance.choice(("create", "remove", "read"))
            if chance.random() < 0.2:
                history.append(Operation(kind, began, NEVER, None))
            else:
                history.append(Operation(kind, began, began + chance.random() / 2, chance.random() < 0.5))
        assert linearizable(history) == slowly(history)
        verdicts.add(bool(linearizable(history)))
    assert verdicts == {True, False}


@pytest.mark.parametrize(
    "history",
    [
        [Operation("create", 0, 1, True), Operation("read", 2, 3, False)],  # lost
        [Operation("create", 0, 1, True), Operation("create", 2, 3, True)],  # done by two leaders
        [Operation("create", 0, 1, True), Operation("remove", 2, 3, True), Operation("read", 4, 5, True)],  # doubled
        [Operation("read", 0, 1, True), Operation("create", 2, 3, True)],  # seen before it was asked for
    ],
)
def test_what_no_single_machine_would_answer_is_found_out(history: list[Operation]) -> None:
    assert not linearizable(history)


def test_what_had_no_answer_may_have_happened_at_any_time_since() -> None:
    unknown = Operation("create", 0, NEVER, None)
    assert linearizable([unknown]) == {False, True}
    assert linearizable([unknown, Operation("read", 5, 6, False), Operation("read", 7, 8, True)]) == {True}
    assert not linearizable([unknown, Operation("read", 5, 6, True), Operation("read", 7, 8, False)])


NEEDS_COMPILER = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler, cc")


@NEEDS_COMPILER
def test_each_process_has_a_clock_of_its_own(tmp_path: Path) -> None:
    library = ClockLibrary(tmp_path)
    ahead, behind = ClockSteps(library, tmp_path / "ahead"), ClockSteps(library, tmp_path / "behind")
    ahead.step(7_200)
    behind.step(-3_600)
    behind.step(-3_600)
    assert (ahead.seconds, behind.seconds) == (7_200, -7_200)
    ahead.check()
    behind.check()


@NEEDS_COMPILER
@pytest.mark.parametrize("variable", ["LD_PRELOAD", "CLOCK_OFFSET_FILE"])
def test_a_clock_that_cannot_be_set_is_an_error_and_no_round_without_a_fault(tmp_path: Path, variable: str) -> None:
    clock = ClockSteps(ClockLibrary(tmp_path), tmp_path / "clock")
    clock.set(3_600)
    clock.env.pop(variable)
    with pytest.raises(RuntimeError, match="has no effect"):
        clock.check()


@NEEDS_ETCD
@NEEDS_COMPILER
@pytest.mark.xdist_group("etcd")
def test_rounds_of_faults_lose_double_and_halve_nothing(tmp_path: Path) -> None:
    kinds = ["kill -9 of the leader", "slow way to etcd"]
    kinds += ["way to etcd slower than the lease", "clock steps of one member", "clocks apart"]
    found = trio.run(partial(run_rounds, tmp_path, len(kinds), seed=7, kinds=kinds))
    assert found["violations"] == []
    assert found["first_errors"] == []
    assert list(found["without_an_answer"]) == kinds


@NEEDS_ETCD
@pytest.mark.soak
@pytest.mark.xdist_group("etcd")
def test_three_hundred_rounds_of_faults(tmp_path: Path) -> None:
    found = trio.run(partial(run_rounds, tmp_path, 300, seed=11))
    assert found["violations"] == []
    assert found["first_errors"] == []
