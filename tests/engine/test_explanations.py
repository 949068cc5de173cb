"""Explanations are true: every stage, number, share and piece of advice in them is worked out anew from plain hosts, or
tried."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import floor
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hostler.placement.decide.engine import Engine
from hostler.placement.decide.explain.explanation import Explanation
from hostler.placement.fleet.fleet import Inventory
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import HostlerError, NoValidHost
from hostler.placement.types.request import Destination, Request
from tests.weighers.scoring import score

from . import commands as c
from . import values
from .dump import dump
from .oracle import Oracle
from .reasons import Facts, asked, is_true
from .run import Run, outcome
from .world import Node, Stock

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

quick = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


class Story:
    """A fleet with some past, a request, what the engine explains and what the oracle knows."""

    def __init__(self, run: Run, request: Request) -> None:
        self.run, self.request = run, request
        self.before = dump(run.engine)
        self.explained = outcome(lambda: run.engine.explain(request, top=3))
        world = copy.deepcopy(run.world)
        self.oracle = Oracle(world, run.engine.policy, run.row)
        self.ranked = outcome(lambda: self.oracle.rank(request))

    @property
    def explanation(self) -> Explanation:
        """Where both sides answer."""
        assume(isinstance(self.explained, Explanation) and not isinstance(self.ranked, HostlerError))
        explained: Explanation = self.explained
        return explained

    def facts(self, node: str) -> Facts:
        world, group = self.oracle.world, self.request.server_group
        value = world.group(group, self.request.instance_uuids) if isinstance(group, str) else group
        request = self.request.with_changes(server_group=value, now=world.now)
        return Facts(world.nodes[node], world, request, self.run.engine.policy, self.oracle._query(self.request))


_members = st.lists(st.builds(c.Place, st.builds(c.Ask, spec=c.numbers, group=st.integers(0, 1))), max_size=3)
grouped = st.tuples(st.lists(c.groups, min_size=1, max_size=2), _members).map(lambda steps: steps[0] + steps[1])
"""Guests of one or two server groups that the engine keeps."""


@st.composite
def stories(draw: st.DrawFn) -> Story:
    policy = draw(st.one_of(st.just(Policy.nova_default()), values.policies()))
    run = Run(draw(values.fleets()), [policy], draw(values.some_specs))
    for step in draw(st.one_of(st.lists(st.one_of(c.changes, c.placements), max_size=8), grouped)):
        run.do(step)
    return Story(run, run.request(draw(c.asks)))


# what is said of each host


@settings(quick)
@given(stories())
def test_both_answer_or_fail_alike(story: Story) -> None:
    if isinstance(story.ranked, NoValidHost):
        assert story.explained.refusal.stage == "request"
        assert story.explained.refusal.sentence == story.ranked.args[0]
    elif isinstance(story.ranked, HostlerError):
        assert type(story.explained) is type(story.ranked)
    else:
        assert isinstance(story.explained, Explanation)


@settings(quick)
@given(stories())
def test_explaining_changes_nothing_but_the_time(story: Story) -> None:
    after = dump(story.run.engine)
    story.before["now"] = after["now"]
    for provider in (*story.before["providers"].values(), *after["providers"].values()):
        provider.pop("service_up")
    assert after == story.before


@settings(quick)
@given(stories())
def test_the_stage_that_first_refuses_each_host_is_the_oracles(story: Story) -> None:
    explanation = story.explanation
    assert {each.node: each.stage for each in explanation.refused} == story.oracle.stages
    assert list(explanation.removed.items()) == list(story.oracle.removed.items())
    assert explanation.considered == len(story.oracle.world.nodes)
    by_stage = Counter(each.stage for each in explanation.refused)
    assert dict(by_stage) == {stage: count for stage, count in explanation.removed.items() if count}
    assert (explanation.refusal is None) == bool(story.ranked)


@settings(quick, max_examples=100)
@given(stories())
def test_the_words_for_each_host_are_true(story: Story) -> None:
    for each in story.explanation.refused:
        assert is_true(story.facts(each.node), each.stage, each.reason), each


@settings(quick)
@given(stories())
def test_the_best_hosts_and_their_score_parts_are_the_oracles(story: Story) -> None:
    explanation = story.explanation
    assert [(each.node, each.weight) for each in explanation.top] == [
        (node.nodename, weight) for node, weight in story.ranked[:3]
    ]
    nodes = [node for node, _ in story.ranked]
    asked = story.facts(nodes[0].nodename).request if nodes else story.request
    for each, scored in zip(explanation.top, score(nodes, asked, story.run.engine.policy.weighers), strict=False):
        assert each.points == each.weight
        told = {part.weigher: (part.raw, part.normalised, part.multiplier) for part in each.parts}
        for part in scored.parts:
            if part.weigher in told:
                assert told.pop(part.weigher) == (part.raw, part.normalized, part.multiplier)
            else:
                assert part.points == 0.0
        assert not told


@settings(quick)
@given(stories())
def test_a_decision_tells_the_counts_and_parts_that_its_explanation_does(story: Story) -> None:
    explanation, trial = story.explanation, story.run.engine.what_if()
    decision = outcome(lambda: trial.place(story.request))
    assume(not isinstance(decision, HostlerError))
    assert (decision.considered, list(decision.removed.items())) == (
        explanation.considered,
        list(explanation.removed.items()),
    )
    if explanation.refusal is not None:
        assert decision.refusal == explanation.refusal
    elif decision.placed and not story.run.engine._context.draws:
        best = explanation.top[0]
        chosen = decision.selected
        assert (chosen.host, chosen.node, chosen.weight, chosen.parts) == (
            best.host,
            best.node,
            best.weight,
            best.parts,
        )


@settings(quick)
@given(stories())
def test_a_batch_tells_the_same_counts(story: Story) -> None:
    explanation, trial = story.explanation, story.run.engine.what_if()
    decisions = outcome(lambda: trial.place_many([story.request]))
    assume(not isinstance(decisions, HostlerError))
    assert decisions[0].removed == explanation.removed
    assert decisions[0].placed or decisions[0].refusal.stage in (explanation.removed.keys() | {"claim"})


# counterfactuals


def changed(policy: Policy, option: str, names: list[str]) -> Policy:
    """The policy with other filters or weighers, and without chance."""
    mapping: dict[str, Any] = copy.deepcopy(policy.to_mapping())
    mapping.setdefault("filter_scheduler", {}).update({option: names, "host_subset_size": 1})
    mapping["filter_scheduler"]["shuffle_best_same_weighed_hosts"] = False
    return Policy.from_mapping(mapping)


def without_weigher(policy: Policy, name: str) -> Policy:
    return changed(policy, "weight_classes", [each.name for each in policy.weighers if each.name != name])


def without_filter(policy: Policy, name: str) -> Policy:
    return changed(policy, "enabled_filters", [each.name for each in policy.filters if each.name != name])


def winners(explanation: Explanation) -> dict[str, str]:
    """Weigher -> the host that is said to win without it."""
    said = (re.fullmatch(r"without (\S+) host (\S+) wins", each) for each in explanation.counterfactuals)
    return {match[1]: match[2] for match in said if match}


@settings(quick)
@given(stories())
def test_the_host_that_is_said_to_win_without_a_weigher_wins_without_it(story: Story) -> None:
    explanation, request = story.explanation, story.request
    assume(explanation.top)
    said = winners(explanation)
    for weigher in story.run.engine.policy.weighers:
        trial = story.run.engine.what_if(without_weigher(story.run.engine.policy, weigher.name))
        best = outcome(partial(trial.explain, request))
        if not isinstance(best, HostlerError):  # a metric that is required and missing fails the request
            assert best.top[0].node == said.get(weigher.name, explanation.top[0].node), weigher.name


class Candid(Oracle):
    """An oracle whose stages all judge all hosts, and only note what they refuse."""

    def refusing(self, request: Request) -> dict[str, list[str]]:
        """Node -> the stages that refuse it, whatever the others say."""
        self.refused: dict[str, list[str]] = {name: [] for name in self.world.nodes}
        hosts = self._candidates(request, self._query(request))
        uuids = request.instance_uuids[:1]
        asked = request.with_changes(instance_uuids=uuids, server_group=self._group(request), now=self.world.now)
        self._filtered(asked, hosts, 0)
        return self.refused

    def _keep(self, stage: str, hosts: list[Node], passes: Callable[[Node], bool]) -> list[Node]:
        for node in hosts:
            if not passes(node):
                self.refused[node.nodename].append(stage)
        return hosts


def refusing(story: Story, request: Request) -> dict[str, list[str]]:
    return Candid(story.oracle.world, story.run.engine.policy, story.run.row).refusing(request)


def unnamed(request: Request) -> Request:
    """The request without any name of a host."""
    spec = request.spec
    destination = spec.requested_destination and replace(spec.requested_destination, host=None, node=None)
    free = replace(spec, ignore_hosts=(), force_hosts=(), force_nodes=(), requested_destination=destination)
    return request.with_changes(spec=free)


def alone(story: Story) -> dict[str, list[str]]:
    """Stage -> nodes that would pass but for this stage."""
    found: dict[str, list[str]] = {}
    freed = refusing(story, unnamed(story.request))
    for node, stages in refusing(story, story.request).items():
        if len(stages) == 1 and (stages != ["host_selection"] or not freed[node]):
            stage = stages[0]
            if stage == "ComputeFilter" and story.oracle.world.nodes[node].service.disabled:
                # Without the filter, Placement's side of the request refuses a disabled service.
                if not is_up_if_enabled(story, node):
                    continue
                stage = "compute_status"
            found.setdefault(stage, []).append(node)
    return found


def is_disabled_and_down(story: Story, node: str, stages: list[str]) -> bool:
    """Whether ComputeFilter refuses a node for two reasons."""
    disabled = story.oracle.world.nodes[node].service.disabled
    return "ComputeFilter" in stages and disabled and not is_up_if_enabled(story, node)


def is_up_if_enabled(story: Story, node: str) -> bool:
    """Whether a disabled service would be up if it were enabled."""
    world, request = story.oracle.world, story.request
    service, now = world.nodes[node].service, world.now if request.now is None else request.now
    if service.forced_down or now is None or service.last_seen_up is None:
        return not service.forced_down
    return abs(now - service.last_seen_up) <= story.run.engine.policy.options.default.service_down_time


Said = tuple[str, str, int, int]
"""Kind, stage, number of hosts, and the amount that is told."""
STAGES = {
    "in any cell": "cell",
    "with their compute services enabled": "compute_status",
    "without the traits asked for": "traits",
    "without the aggregates asked for": "aggregates",
    "if the request named no hosts": "host_selection",
}
SENTENCES = (
    ("short", r"(?P<hosts>\d+) hosts? lacks? only (?P<stage>\S+), the nearest (?P<amount>\d+)(?: MiB| GiB)?"),
    ("units", r"(?P<hosts>\d+) hosts? would pass but for the unit rules of (?P<stage>\S+)"),
    (
        "small",
        r"(?P<hosts>\d+) hosts? (?:is|are) too small in (?P<stage>\S+) alone: \d+(?: MiB| GiB)? asked for, "
        r"at most (?P<amount>\d+)(?: MiB| GiB)? a guest",
    ),
    ("stage", rf"(?P<hosts>\d+) hosts? would pass (?P<stage>{'|'.join(STAGES)})"),
    ("stage", r"(?P<hosts>\d+) hosts? would pass without (?P<stage>\S+)"),
)
NEAREST = r"no host lacks one thing only; the nearest is (\S+): (.+)"


def read(sentence: str) -> Said:
    """What a counterfactual about hosts that are refused says."""
    for kind, pattern in SENTENCES:
        match = re.fullmatch(pattern, sentence)
        if match:
            stage = STAGES.get(match["stage"], match["stage"])
            return kind, stage, int(match["hosts"]), int(match.groupdict().get("amount") or 0)
    raise AssertionError(f"what does this say? {sentence}")


def about_refused(explanation: Explanation) -> list[str]:
    """The counterfactuals about hosts that are refused, but the one that names the nearest."""
    said = [each for each in explanation.counterfactuals if not re.fullmatch(r"without (\S+) host (\S+) wins", each)]
    return [each for each in said if not re.fullmatch(NEAREST, each)]


def by_kind(story: Story) -> dict[tuple[str, str], list[str]]:
    """(kind of sentence, stage) -> the nodes that it must be said of."""
    found: dict[tuple[str, str], list[str]] = {}
    for stage, nodes in alone(story).items():
        for node in nodes:
            found.setdefault((shortness(story, node, stage) if stage.isupper() else "stage", stage), []).append(node)
    return found


def stock(story: Story, node: str, stage: str) -> Stock:
    return story.oracle.world.nodes[node].stocks.get(stage, Stock(Inventory(total=0, max_unit=0)))


def lack(story: Story, node: str, stage: str) -> int:
    """How much of a resource class must come free."""
    held = stock(story, node, stage)
    wanted = asked(story.facts(node), stage)
    return wanted - (
        floor((held.inventory.total - held.inventory.reserved) * held.inventory.allocation_ratio) - held.used
    )


def shortness(story: Story, node: str, stage: str) -> str:
    has, wanted = stock(story, node, stage).inventory, asked(story.facts(node), stage)
    suits = has.min_unit <= wanted <= has.max_unit and wanted % has.step_size == 0
    return "short" if suits else "small" if lack(story, node, stage) > 0 else "units"


@settings(quick, max_examples=100)
@given(stories())
def test_every_stage_that_alone_keeps_hosts_out_is_told_with_their_number_and_what_is_lacking(story: Story) -> None:
    explanation, expected = story.explanation, set()
    for (kind, stage), nodes in by_kind(story).items():
        amounts = {
            "short": lambda nodes=nodes, stage=stage: min(lack(story, node, stage) for node in nodes),
            "small": lambda nodes=nodes, stage=stage: max(stock(story, n, stage).inventory.max_unit for n in nodes),
        }
        expected.add((kind, stage, len(nodes), amounts.get(kind, int)()))
    assert {read(each) for each in about_refused(explanation)} == expected
    assert len(about_refused(explanation)) == len(expected)


@settings(quick, max_examples=100)
@given(stories())
def test_the_nearest_host_is_told_where_no_stage_stands_alone(story: Story) -> None:
    explanation = story.explanation
    refused = refusing(story, story.request)
    said = [match for each in explanation.counterfactuals if (match := re.fullmatch(NEAREST, each, re.DOTALL))]
    reasons = {node: len(stages) + is_disabled_and_down(story, node, stages) for node, stages in refused.items()}
    if not refused or min(reasons.values()) < 2:
        assert not said
        return
    [match] = said
    stages, words = refused[match[1]], match[2].split("; ")
    assert len(stages) == len(words)
    assert reasons[match[1]] == min(reasons.values())
    assert all(is_true(story.facts(match[1]), *each) for each in zip(stages, words, strict=True))


# advice, taken on a fork


def helped(story: Story, trial: Engine, nodes: list[str], request: Request) -> bool:
    """Whether all ``nodes`` pass now."""
    now = outcome(lambda: trial.explain(request))
    assume(not isinstance(now, HostlerError))  # a metric that is required, and that one of them lacks
    return not {each.node for each in now.refused} & set(nodes)


def give(trial: Engine, node: str, stage: str, inventory: Inventory) -> None:
    """Another inventory of one class."""
    known = {name: each for name, (each, _) in trial.fleet.inventory(node).items()}
    trial.fleet.set_inventory(node, known | {stage: inventory})


def with_room(story: Story, node: str, stage: str, more: int) -> Inventory:
    """The node's inventory with ``more`` free."""
    held, wanted = stock(story, node, stage), asked(story.facts(node), stage)
    total = held.used + wanted - lack(story, node, stage) + more
    return replace(held.inventory, total=total, reserved=0, allocation_ratio=1.0)


def take_advice(story: Story, kind: str, stage: str, nodes: list[str]) -> None:
    engine, request = story.run.engine, story.request
    if kind != "stage":
        trial = engine.what_if()
        for node in nodes:
            wanted = asked(story.facts(node), stage)
            enough = with_room(story, node, stage, max(lack(story, node, stage), 0))
            free = {"min_unit": 1, "step_size": 1, "max_unit": wanted} if kind != "short" else {}
            if kind == "short":
                give(trial, node, stage, with_room(story, node, stage, lack(story, node, stage) - 1))
                assert not helped(story, trial, [node], request)
            give(trial, node, stage, replace(enough, **free))
    elif stage == "traits":
        trial, query = engine.what_if(), story.facts(nodes[0]).query
        required = query.required
        assume(not required & query.forbidden)
        for node in nodes:
            trial.fleet.set_traits(node, required)
    elif stage == "compute_status":
        trial = engine.what_if()
        for node in nodes:
            trial.fleet.set_service(node, disabled=False)
    elif stage == "host_selection":
        trial, request = engine.what_if(), unnamed(request)
    elif stage in ("cell", "aggregates"):
        open_to_all = {"scheduler": {"limit_tenants_to_placement_aggregate": False}}
        mapping = engine.policy.to_mapping()
        mapping["scheduler"] = mapping.get("scheduler", {}) | open_to_all["scheduler"]
        mapping["scheduler"]["enable_isolated_aggregate_filtering"] = False
        trial = engine.what_if(Policy.from_mapping(mapping) if stage == "aggregates" else None)
        request = anywhere(request, stage)
    else:
        trial = engine.what_if(without_filter(engine.policy, stage))
    assert helped(story, trial, nodes, request), (kind, stage, nodes)


def anywhere(request: Request, stage: str) -> Request:
    """The request without what it says of cells, or of aggregates."""
    spec = request.spec
    destination = spec.requested_destination or Destination()
    if stage == "cell":
        return request.with_changes(
            spec=replace(spec, requested_destination=replace(destination, allow_cross_cell_move=True))
        )
    destination = replace(destination, aggregates=(), forbidden_aggregates=frozenset())
    return request.with_changes(spec=replace(spec, requested_destination=destination, availability_zone=None))


@settings(quick, max_examples=100)
@given(stories())
def test_every_single_piece_of_advice_helps_all_the_hosts_that_it_is_about(story: Story) -> None:
    assume(story.explanation.refused)
    for (kind, stage), nodes in by_kind(story).items():
        take_advice(story, kind, stage, nodes)


@settings(quick)
@given(stories())
def test_a_refusal_gives_the_first_counterfactual_as_its_hint(story: Story) -> None:
    explanation = story.explanation
    if explanation.refusal is not None:
        otherwise = None if explanation.considered else "add hosts"
        assert explanation.refusal.hint == next(iter(explanation.counterfactuals), otherwise)


@settings(quick)
@given(stories(), st.sampled_from([5, 12, 25]))
def test_as_many_instances_as_are_said_to_fit_do(story: Story, count: int) -> None:
    engine = story.run.engine
    request = story.request.with_changes(instance_uuids=story.run.new_guests(count))
    decision = outcome(lambda: engine.what_if().place(request))
    assume(not isinstance(decision, HostlerError) and not decision.placed and decision.refusal.stage == "claim")
    match = re.fullmatch(r"ask for (\d+) instances?, or free capacity", decision.refusal.hint)
    assert match
    assert 0 < int(match[1]) < count
    some = request.with_changes(instance_uuids=request.instance_uuids[: int(match[1])])
    assert engine.what_if().place(some).placed
    more = request.with_changes(instance_uuids=request.instance_uuids[: int(match[1]) + 1])
    assert not engine.what_if().place(more).placed
