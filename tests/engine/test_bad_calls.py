"""Calls that cannot be served are refused whole, whatever is wrong beside the request: names, uuids, hooks, limits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.types.decision import Decision, Refusal
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue, NoValidHost, UnknownName
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .dump import dump
from .values import guest_uuid

pytestmark = pytest.mark.kernel_twin

TAKEN, NEW, OTHER, NOBODY = (guest_uuid(0xABC0 + number) for number in range(4))
HOST_UUIDS = [guest_uuid(8000 + number) for number in range(3)]


def engine() -> Engine:
    fleet = Fleet()
    add_hosts(
        fleet,
        [Host(host=f"h{i}", uuid=HOST_UUIDS[i], vcpus_total=2, total_usable_ram_mb=2048) for i in range(3)],
    )
    fleet.add_provider("pool", uuid=guest_uuid(8009))
    made = Engine(fleet)
    made.place(request(TAKEN))
    return made


def request(*uuids: str, vcpus: int = 1, extra_specs: Mapping[str, str] | None = None) -> Request:
    flavor = Flavor(name="f", vcpus=vcpus, memory_mb=512, extra_specs=extra_specs or {})
    return Request(spec=RequestSpec(flavor=flavor), instance_uuids=uuids)


def refused(made: Engine, call: Callable[[Engine], object], error: type[Exception] = HostlerError) -> Any:
    """The error that a call raises, which must leave everything as it was."""
    before = dump(made)
    with pytest.raises(error) as failure:
        call(made)
    assert dump(made) == before
    return failure.value


BIG = 20  # vCPUs that no host has


def spelt(uuid: str) -> str:
    """The same uuid in another form."""
    return uuid.upper().replace("-", "")


WITH_TAKEN_UUIDS = [
    [request(TAKEN)],
    [request(spelt(TAKEN))],
    [request(NEW, TAKEN)],
    [request(NEW), request(NEW)],
    [request(NEW), request(OTHER), request(spelt(NEW))],
    [request(NEW), request(OTHER, NEW)],
    [request(NEW, OTHER), request(NEW)],
    [request(TAKEN, vcpus=BIG)],
    [request(NEW), request(NEW, vcpus=BIG)],
    [request(NEW), request(OTHER), request(TAKEN, vcpus=BIG), request(NOBODY)],
    [request(), request(TAKEN), request(), request(TAKEN), request(vcpus=BIG), request()],
    [request(TAKEN).with_changes(now=50.0), request(), request(TAKEN).with_changes(now=70.0), request()],
    [request(NEW, vcpus=BIG), request(TAKEN, vcpus=BIG), request(NEW), request(NEW), request(NEW, vcpus=BIG)],
]


@pytest.mark.parametrize("requests", WITH_TAKEN_UUIDS)
def test_a_batch_carries_on_behind_a_uuid_that_is_taken(requests: list[Request]) -> None:
    alone, together = engine(), engine()
    answers: list[Decision | str] = []
    for each in requests:
        try:
            answers.append(alone.place(each))
        except DuplicateName as error:
            answers.append(str(error))
    decisions = together.place_many(requests)
    assert [
        str(decisions.errors[index]) if index in decisions.errors else without_parts(decision)
        for index, decision in enumerate(decisions)
    ] == [each if isinstance(each, str) else without_parts(each) for each in answers]
    assert dump(together) == dump(alone)
    assert together.fleet.now == alone.fleet.now


def without_parts(decision: Decision) -> Decision:
    """What ``place_many`` answers: no score parts, and of a refusal the counts, but nothing of what would help."""
    refusal = decision.refusal
    if refusal is not None:
        refusal = Refusal(sentence=refusal.sentence, stage=refusal.stage, removed=refusal.removed)
    chosen = tuple(msgspec.structs.replace(each, parts=()) for each in decision.selections)
    return msgspec.structs.replace(decision, selections=chosen, refusal=refusal)


def test_the_decision_of_a_request_that_was_not_carried_out_is_a_refusal() -> None:
    decision = engine().place_many([request(TAKEN)])[0]
    assert not decision
    assert decision.refusal is not None
    assert (decision.sequence, decision.refusal.stage) == (0, "request")
    assert TAKEN in decision.refusal.sentence
    with pytest.raises(NoValidHost):
        _ = decision.host


MALFORMED = [request(NEW, NEW), request("no uuid"), request(extra_specs={"group_policy": "maybe"}), request(vcpus=-1)]


@pytest.mark.parametrize("bad", [*MALFORMED, "no request"])
def test_a_malformed_request_stops_a_batch_only_where_it_is_strict(bad: Any) -> None:
    requests = [request(OTHER), bad, request()]
    refused(engine(), lambda trial: trial.place_many(requests))
    lenient, without = engine(), engine()
    decisions = lenient.place_many(requests, strict=False)
    without.place_many([requests[0], requests[2]])
    assert list(decisions.errors) == [1]
    assert isinstance(decisions.errors[1], HostlerError)
    assert dump(lenient) == dump(without)


@pytest.mark.property
@hypothesis.given(
    choices=st.lists(st.tuples(st.sampled_from([(), (NEW,), (OTHER,), (NEW, OTHER)]), st.sampled_from([1, BIG])))
)
def test_requests_together_are_requests_one_by_one(choices: list[tuple[tuple[str, ...], int]]) -> None:
    alone, together = engine(), engine()
    requests = [request(*uuids, vcpus=vcpus) for uuids, vcpus in choices]
    for each in requests:
        with contextlib.suppress(DuplicateName):
            alone.place(each)
    together.place_many(requests)
    assert dump(together) == dump(alone)


def test_a_uuid_that_was_refused_may_come_again() -> None:
    made = engine()
    decisions = made.place_many([request(NEW, vcpus=BIG), request(NEW), request(OTHER)])
    assert [decision.placed for decision in decisions] == [False, True, True]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("trait:HW_NO_SUCH", "required"),
        ("trait:CUSTOM_lower", "required"),
        ("trait:CUSTOM_A", "maybe"),
        ("resources:NO_SUCH_CLASS", "1"),
        ("resources:CUSTOM_", "1"),
        ("resources:VCPU", "-1"),
        ("resources:VCPU", "1.5"),
        ("resources:VCPU", "many"),
        ("resources:VCPU", str(2**31)),
        ("resources:VCPU", "9" * 5000),
        ("resources1:CUSTOM_X", "nan"),
        ("group_policy", "maybe"),
        ("hw:cpu_policy", "maybe"),
    ],
)
def test_an_extra_spec_that_makes_no_sense_is_named(spec: str, value: str) -> None:
    asked = request(NEW, extra_specs={spec: value})
    for way in (
        lambda trial: trial.place(asked),
        lambda trial: trial.place_many([request(OTHER), asked]),
        lambda trial: trial.explain(asked),
        lambda trial: trial.fits(asked),
    ):
        error = refused(engine(), way)
        assert error.field is not None
        assert spec in error.field
        assert len(str(error)) < 500


def test_an_unknown_class_in_a_refused_request_stays_unknown() -> None:
    made = engine()
    asked = request(NEW, extra_specs={"resources:CUSTOM_NEW": "1", "resources:NO_SUCH_CLASS": "1"})
    refused(made, lambda trial: trial.place(asked))
    assert "CUSTOM_NEW" not in made.fleet.resource_classes


# outside candidates and claims

ALL: dict[str, list[Any]] = {uuid: ["any"] for uuid in HOST_UUIDS}
BAD_CANDIDATES = [
    5,
    "all",
    HOST_UUIDS,
    {5: ["any"]},
    {"no uuid": ["any"]},
    ALL | {HOST_UUIDS[0]: None},
    ALL | {HOST_UUIDS[0]: "any"},
    ALL | {HOST_UUIDS[0]: 5},
    ALL | {spelt(HOST_UUIDS[0]): []},
]


@pytest.mark.parametrize("candidates", BAD_CANDIDATES, ids=lambda value: repr(value)[:30])
def test_bad_candidates_are_named(candidates: Any) -> None:
    for way in (
        lambda trial: trial.place(request(NEW), candidates=candidates),
        lambda trial: trial.rank(request(NEW), candidates=candidates),
        lambda trial: trial.explain(request(NEW), candidates=candidates),
    ):
        assert refused(engine(), way).field == "candidates"


def test_candidates_may_be_named_in_any_form_of_a_uuid() -> None:
    made = engine()
    decision = made.place(request(NEW), candidates={spelt(HOST_UUIDS[1]): ["any"]})
    assert (decision.host, decision.considered) == ("h1", 1)


def test_candidates_of_unknown_providers_are_left_out() -> None:
    decision = engine().place(request(NEW), candidates={NOBODY: ["any"], HOST_UUIDS[2]: ["any"]})
    assert (decision.host, decision.considered) == ("h2", 1)


def test_a_provider_that_is_no_host_is_no_candidate() -> None:
    decision = engine().place(request(NEW), candidates={guest_uuid(8009): ["any"], HOST_UUIDS[2]: ["any"]})
    assert (decision.host, decision.considered) == ("h2", 1)


Hook = Callable[[str, str, Mapping[str, Mapping[str, int]]], Any]


def answers(*given: Any) -> Hook:
    """A claim hook that gives these answers, or raises those that are errors."""
    left = list(given)

    def claim(instance: str, provider: str, allocations: Mapping[str, Mapping[str, int]]) -> Any:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return claim


def place_with(claim: Hook, asked: Request, made: Engine) -> object:
    return made.place(asked, claim=claim)


@pytest.mark.parametrize("answer", [None, 1, 0, "yes", [], object()])
def test_a_claim_answers_true_or_false(answer: object) -> None:
    for given in ((answer,), (True, answer)):
        hook = answers(*given)
        error = refused(engine(), partial(place_with, hook, request(NEW, OTHER)))
        assert isinstance(error, InvalidValue)
        assert error.field == "claim"


@pytest.mark.parametrize("claim", [5, "yes", object()])
def test_a_claim_hook_must_be_callable(claim: Any) -> None:
    assert refused(engine(), lambda trial: trial.place(request(NEW), claim=claim)).field == "claim"


def test_a_claim_hook_that_raises_half_way_leaves_nothing() -> None:
    for given in ((OSError(),), (True, OSError()), (True, False, OSError()), (True, True, KeyError("x"))):
        hook = answers(*given)
        refused(engine(), partial(place_with, hook, request(NEW, OTHER, NOBODY)), Exception)


def test_a_hook_that_refuses_every_host_leaves_nothing() -> None:
    made = engine()
    before = dump(made)
    decision = made.place(request(NEW, OTHER), claim=answers(True, False, False, False))
    assert [claim[2] for claim in decision.claims] == [True, False, False, False, True]
    assert decision.claims[-1][1] == "delete"
    before["sequence"] += 1
    assert dump(made) == before


# other calls

OTHER_CALLS: list[tuple[Callable[[Engine], object], type[HostlerError]]] = [
    (lambda trial: trial.place_many(5), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.place_many(None), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.place_many("abc"), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.place_many([request(NEW), None]), InvalidValue),  # type: ignore[list-item]
    (lambda trial: trial.explain(request(NEW), top=-1), InvalidValue),
    (lambda trial: trial.explain(request(NEW), top="5"), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.explain(request(NEW), top=True), InvalidValue),
    (lambda trial: trial.fits(request(NEW), limit=-1), InvalidValue),
    (lambda trial: trial.fits(request(NEW), limit=1.5), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.release(5), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.release([5]), InvalidValue),  # type: ignore[list-item]
    (lambda trial: trial.release([[]]), InvalidValue),  # type: ignore[list-item]
    (lambda trial: trial.release("no uuid"), InvalidValue),
    (lambda trial: trial.release(NOBODY), UnknownName),
    (lambda trial: trial.release([TAKEN, NOBODY]), UnknownName),
    (lambda trial: trial.release([TAKEN, TAKEN]), InvalidValue),
    (lambda trial: trial.release([TAKEN, spelt(TAKEN)]), InvalidValue),
    (lambda trial: trial.spawned(5), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.spawned([TAKEN, 5]), InvalidValue),  # type: ignore[list-item]
    (lambda trial: trial.spawned([TAKEN, NOBODY]), UnknownName),
    (lambda trial: trial.move(NOBODY, request()), UnknownName),
    (lambda trial: trial.move(5, request()), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.move(TAKEN, request(), candidates=5), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.resize(TAKEN, request(), claim=answers(None)), InvalidValue),
    (lambda trial: trial.fork("nova"), InvalidValue),  # type: ignore[arg-type]
    (lambda trial: trial.what_if(5), InvalidValue),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "error"), OTHER_CALLS)
def test_a_bad_call_changes_nothing(call: Callable[[Engine], object], error: type[HostlerError]) -> None:
    made = engine()
    made.place(request(guest_uuid(1)))
    assert refused(made, call, error).field is not None


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "1", True])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(InvalidValue, match="seed"):
        Engine(seed=seed)


@pytest.mark.parametrize("wrong", [{"fleet": 5}, {"policy": "nova"}])
def test_an_engine_is_made_of_a_fleet_and_a_policy(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as failure:
        Engine(**wrong)
    assert failure.value.field in wrong


def test_a_failing_call_leaves_the_clock() -> None:
    made = engine()
    made.place(request(NEW).with_changes(now=5.0))
    late = request(TAKEN).with_changes(now=500.0)
    refused(made, lambda trial: trial.place(late), DuplicateName)
    assert made.fleet.now == 5.0
    assert isinstance(made.place_many([late]).errors[0], DuplicateName)
    assert made.fleet.now == 5.0
