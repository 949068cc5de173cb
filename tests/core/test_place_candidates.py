"""The command ``place_candidates``: charged to the project, kept with the guest, and the same from the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core.engine_commands import AllocationCandidate, Move, PlaceCandidates, ProviderResources, Release
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.machine.what_if import WhatIf, what_if
from hostler.core.shadow.judge import ShadowJudge
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import QuotaExceeded
from hostler.placement.types.errors import HostlerError

from .orders import LOCAL, NOW, asked, machine, order, uuid_of


def candidate(made: ServiceMachine, node: str, **resources: int) -> AllocationCandidate:
    fleet = made.state.fleet
    own = fleet.uuid(fleet.row(node))
    return AllocationCandidate(allocations={own: ProviderResources(resources)}, mappings={"": (own,)})


def among(made: ServiceMachine, *candidates: AllocationCandidate, uuids: tuple[int, ...] = (1,)) -> PlaceCandidates:
    """Place a guest of project p with one of these; candidates are by the provider that they name first."""
    by_provider: dict[str, tuple[AllocationCandidate, ...]] = {}
    for each in candidates:
        provider = next(iter(each.allocations))
        by_provider[provider] = (*by_provider.get(provider, ()), each)
    return PlaceCandidates(request=asked(*uuids, project="p"), candidates=by_provider)


def do(made: ServiceMachine, command: Any) -> Any:
    """Carry out a command as the journal has it."""
    return made.apply(made.decode(made.encode(order(command))))


def with_project(**limits: int) -> ServiceMachine:
    made = machine()
    do(made, c.CreateDomain(id="d"))
    do(made, c.CreateProject(id="p", domain="d"))
    do(made, c.SetLimits(scope="project:p", limits=limits))
    return made


def used(made: ServiceMachine) -> dict[str, int]:
    return made.state.usage.of("project:p")


def test_a_project_is_charged_what_the_candidate_says_until_the_guest_is_released() -> None:
    made = with_project(VCPU=8)
    decision = do(made, among(made, candidate(made, "node-1", VCPU=3, MEMORY_MB=64)))
    assert decision.host == "node-1"
    assert used(made) == {"instances": 1, "VCPU": 3, "MEMORY_MB": 64}
    do(made, Release(uuids=(uuid_of(1),)))
    assert used(made) == {}


def test_a_quota_counts_what_the_candidate_says_and_its_refusal_changes_nothing(tmp_path: Path) -> None:
    made, twin = with_project(VCPU=4), with_project(VCPU=4)
    with pytest.raises(QuotaExceeded):
        do(made, among(made, candidate(made, "node-1", VCPU=5)))
    with pytest.raises(QuotaExceeded):
        do(made, among(made, candidate(made, "node-1", VCPU=3), candidate(made, "node-2", VCPU=3), uuids=(1, 2)))
    assert made.state.engine.sequence == twin.state.engine.sequence
    assert used(made) == {}
    made.state.fleet.check()
    assert do(made, among(made, candidate(made, "node-1", VCPU=4))).placed


def test_the_guest_is_kept_with_what_it_was_asked_with() -> None:
    made = with_project()
    do(made, among(made, candidate(made, "node-1", VCPU=3)))
    moved = do(made, Move(uuid=uuid_of(1)))
    assert moved.selected.allocations[moved.selected.provider_uuid] == {"VCPU": 1, "MEMORY_MB": 1_024}


def test_a_journal_plays_the_same_again() -> None:
    made, twin = with_project(VCPU=40), with_project(VCPU=40)
    outcomes = []
    for machine_ in (made, twin):
        names = {made.state.fleet.uuid(row): twin.state.fleet.uuid(row) for row in range(3)}
        assert all(one == other for one, other in names.items()), "uuids are made from names"
        commands = [among(machine_, candidate(machine_, "node-0", VCPU=7), uuids=(each,)) for each in range(3)]
        outcomes.append([do(machine_, command) for command in commands])
    assert outcomes[0] == outcomes[1]
    assert [each.placed for each in outcomes[0]] == [True] * 3


def test_a_command_without_an_instance_has_its_uuid_made() -> None:
    made = with_project()
    decision = do(made, among(made, candidate(made, "node-1", VCPU=3), uuids=()))
    assert made.state.project_of(decision.selected.instance_uuid) == "p"


def test_what_if_and_a_shadow_policy_judge_the_candidates_too() -> None:
    made = with_project()
    command = among(made, candidate(made, "node-1", VCPU=3), candidate(made, "node-2", VCPU=1))
    (tried,) = what_if(made.state, LOCAL, WhatIf(commands=[command], policy={}))
    assert tried.error is None
    judge = ShadowJudge(made, {"filter_scheduler": {"cpu_weight_multiplier": -1.0, "ram_weight_multiplier": -1.0}})
    assert judge.judge(1, order(command, now=NOW)) == []
    assert judge.counts.compared == 1
    assert made.state.fleet.consumer(uuid_of(1)).provider in ("node-1", "node-2")


@pytest.mark.parametrize(
    "value",
    [
        {"allocations": {uuid_of(5): {"resources": {"VCPU": 0}}}},
        {"allocations": {uuid_of(5): {"resources": {"VCPU": 1}, "generation": 3}}},
        {"allocations": {uuid_of(5): {"VCPU": 1}}},
        {"allocations": [], "mappings": {}},
    ],
)
def test_a_malformed_candidate_is_no_command(value: Any) -> None:
    written = order(PlaceCandidates(request=asked(1), candidates={}))
    plain = msgspec.to_builtins(msgspec.msgpack.decode(msgspec.msgpack.encode(written)))
    plain[2]["candidates"] = {uuid_of(5): [value]}
    with pytest.raises(msgspec.ValidationError, match="candidates"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(plain), type=Order)


def test_an_empty_candidate_is_refused_by_its_field() -> None:
    made = with_project()
    own = made.state.fleet.uuid(0)
    with pytest.raises(HostlerError) as said:
        do(made, PlaceCandidates(request=asked(1), candidates={own: (AllocationCandidate(allocations={}),)}))
    assert said.value.field == "candidates"
