"""The shadow policy: each decision is compared with what another policy decides on the same state."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.core.engine_commands import AddHosts, Hold, Move, PlaceMany, Release
from hostler.core.failures import Failures
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.order_policies import service_policy
from hostler.core.shadow import shadowing
from hostler.core.shadow.judge import ShadowJudge
from hostler.core.shadow.shadowing import Shadowing
from hostler.core.shadow.status import ShadowCounts
from hostler.placement.decide.engine import Engine
from hostler.placement.types.errors import InvalidValue

from ..patience import HANG_SECONDS
from ..rpc.serving import serving, until
from .orders import NOW, asked, hosts, order, place, uuid_of
from .test_unexpected_errors import state_of

STACK: Any = {"filter_scheduler": {f"{what}_weight_multiplier": -1000.0 for what in ("ram", "cpu", "disk")}}
"""Full hosts first."""


def machine_of(count: int) -> ServiceMachine:
    machine = ServiceMachine()
    machine.apply(order(AddHosts(hosts=hosts(count))))
    return machine


def test_the_policy_in_force_differs_from_itself_nowhere() -> None:
    judge = ShadowJudge(machine_of(10), {})
    for number in range(30):
        assert judge.judge(number, order(place(number))) == []
    assert judge.counts == ShadowCounts(same=30)


def test_a_decision_of_the_other_policy_is_compared_on_the_same_state() -> None:
    machine, twin = machine_of(10), machine_of(10)
    judge = ShadowJudge(machine, STACK)
    for number in range(20):
        request = twin.state.request(asked(number), NOW)
        expected = twin.state.engine.fork(service_policy(STACK)).place(request).host
        live = twin.apply(order(place(number))).host
        found = judge.judge(number, order(place(number)), explain=True)
        if expected == live:
            assert not found
            continue
        (difference,) = found
        assert (difference.live, difference.shadow) == ((live,), (expected,))
        assert difference.live_explanation is not None
        assert difference.shadow_explanation is not None
        assert difference.live_explanation.top[0].host == live
        assert difference.shadow_explanation.top[0].host == expected
    assert judge.counts.elsewhere > 5
    assert judge.counts.compared == 20


def test_the_state_stays_that_of_the_service() -> None:
    machine, twin = machine_of(5), machine_of(5)
    judge = ShadowJudge(machine, STACK)
    commands: list[Any] = [
        *(place(number) for number in range(8)),
        PlaceMany(requests=tuple(asked(20 + number) for number in range(6))),
        Release(uuids=(uuid_of(3), uuid_of(21))),
        Hold(request=asked(40), expires_in=5.0),
        Move(uuid=uuid_of(4)),
        place(4),  # refused: it is there
        place(50),  # the hold has expired
    ]
    for number, command in enumerate(commands):
        judge.judge(number, order(command, now=NOW + number))
        twin.apply_batch([order(command, now=NOW + number)])
    assert state_of(machine) == state_of(twin)
    assert judge.counts.compared == 8 + 6 + 1 + 1 + 1


def test_requests_that_only_one_policy_places_are_told_apart() -> None:
    machine = machine_of(3)
    none: Any = {"filter_scheduler": {"enabled_filters": ["NumInstancesFilter"], "max_instances_per_host": 1}}
    judge = ShadowJudge(machine, none)
    for number in range(6):
        judge.judge(number, order(place(number)))
    assert judge.counts.only_live == 3
    other = ShadowJudge(machine, {})
    machine.state.decide_by(machine.state.engine.fork(judge._shadow.policy), none)
    other.judge(9, order(place(9)))
    assert other.counts.only_shadow == 1


def test_what_is_not_allowed_or_not_judged_is_carried_out_all_the_same() -> None:
    machine = machine_of(3)
    judge = ShadowJudge(machine, STACK)
    assert judge.judge(1, order(place(1), user="nobody")) == []
    judge.pass_over([order(place(2)), order(Release(uuids=(uuid_of(2),)))])
    assert judge.counts == ShadowCounts(passed_over=1)


def test_a_comparison_costs_the_same_after_hundreds_of_orders() -> None:
    judge = ShadowJudge(machine_of(100), STACK)

    def calls_of(number: int) -> int:
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            judge.judge(number, order(place(number)))
        finally:
            sys.setprofile(None)
        return calls

    for number in range(20):
        judge.judge(number, order(place(number)))
    first = min(calls_of(number) for number in range(20, 25))
    judge.pass_over([order(place(number)) for number in range(25, 200)])
    for number in range(200, 300):
        judge.judge(number, order(place(number)))
    assert min(calls_of(number) for number in range(300, 305)) < 1.2 * first


def test_an_engine_takes_over_what_a_fork_compiled() -> None:
    engine = machine_of(3).state.engine
    other = engine.fork(service_policy(STACK))
    assert engine.fork(compiled_by=other)._context.compiled is other._context.compiled
    with pytest.raises(InvalidValue):
        engine.fork(compiled_by=Engine())


async def test_a_child_that_falls_too_far_behind_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "MOST_BEHIND", 40)
    monkeypatch.setattr(shadowing, "PART", 4)
    failures = Failures()
    async with serving(count=10) as served, trio.open_nursery() as nursery:
        writer, shadow = served.service.writer, Shadowing(served.service, STACK)
        nursery.start_soon(failures.keep_running, "shadow policy", shadow.run)
        await until(lambda: shadow.running)
        os.kill(youngest_child(), signal.SIGSTOP)
        number = 0
        with trio.fail_after(HANG_SECONDS):
            while not shadow.restarts:
                await writer.submit(order(place(number, memory_mb=1)))
                number += 1
        assert shadow.counts.passed_over > 40
        await until(lambda: shadow.running)
        await writer.submit(order(place(number)))
        await until(lambda: shadow.counts.compared > 0)
        assert failures.counts == {"shadow policy": 1}
        nursery.cancel_scope.cancel()


def youngest_child() -> int:
    return int(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1])
