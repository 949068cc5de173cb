"""The storage engine's commands: what they decide, charge, say, and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostler.ext.draws import Draws, word
from hostler.placement.persist.file import load, save
from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.explain import PoolReason
from hostler.placement.storage.groups import group_order
from hostler.placement.storage.pools.reports import BackendReport, VolumeService
from hostler.placement.storage.pools.request import Retry, VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue, NoValidHost, UnknownName

from .values import engine, pool, report, wish

UUID = "11111111-2222-3333-4444-55555555555{}"


def two_pools(**options: Any) -> VolumeEngine:
    return engine(report("a@x", pool("p", 100, 100)), report("b@x", pool("p", 100, 50)), **options)


def free(given: VolumeEngine) -> list[float]:
    return list(given.pools.columns["free"].tolist())


def test_a_volume_is_charged_to_the_pool_with_most_room_and_given_back() -> None:
    given = two_pools()
    decision = given.place(wish(10))
    assert decision.selected.backend_id == "a@x#p"
    assert decision.selected.parts[0].raw == 100.0
    assert free(given) == [90, 50]
    assert given.release(decision.selected.volume_id) == 1
    assert free(given) == [100, 50]
    given.fleet.check()


def test_a_refusal_says_what_would_help() -> None:
    given = two_pools()
    decision = given.place(wish(120))
    assert decision.refusal is not None
    assert decision.refusal.sentence == "No valid backend was found: of 2 pools, 2 without room for 120 GiB"
    assert decision.refusal.hint == "2 pools lack only room, the nearest 20 GiB"
    with pytest.raises(NoValidHost, match="without room"):
        _ = decision.selected


def test_explain_gives_reasons_with_numbers_and_what_would_change() -> None:
    given = two_pools(scheduler_default_weighers=["CapacityWeigher", "VolumeNumberWeigher"])
    given.place(wish(1))
    story = given.explain(wish(70, {"tier": "gold"}))
    assert story.removed["CapacityFilter"] == 1
    assert [each.reason for each in story.refused] == ["tier is not reported, must be 'gold'", "free 50 GiB < 70 GiB"]
    assert "1 pool would pass without CapabilitiesFilter" in story.counterfactuals
    assert given.explain(wish(1)).counterfactuals == ("without CapacityWeigher b@x#p would win",)


def _plain(reason: PoolReason) -> tuple[str, int | None, float | None]:
    return reason.code, reason.asked, reason.limit


def test_refusals_and_explanations_say_the_same_in_codes_and_amounts() -> None:
    given = two_pools(scheduler_default_weighers=["CapacityWeigher", "VolumeNumberWeigher"])
    refusal = given.place(wish(120)).refusal
    assert refusal is not None
    assert (refusal.code, refusal.stage, refusal.removed["CapacityFilter"]) == ("refused", "CapacityFilter", 2)
    amounts = (refusal.resource, refusal.asked, refusal.nearest, refusal.host, refusal.cut)
    assert amounts == ("gigabytes", 120, 100, "a@x#p", 20)
    assert given.place(wish(refusal.nearest or 0)).placed
    story = given.explain(wish(70, {"tier": "gold"}))
    assert [(each.code, each.asked, each.limit) for each in story.refused] == [
        ("no_room", 70, 0.0),
        ("no_room", 70, 50.0),
    ]
    given = two_pools(scheduler_default_weighers=["CapacityWeigher", "VolumeNumberWeigher"])
    given.place(wish(1))
    (change,) = given.explain(wish(1)).pivotal
    assert (change.code, change.weigher, change.host) == ("weigher", "CapacityWeigher", "b@x#p")
    story = given.explain(wish(70, {"tier": "gold"}))
    assert [(each.code, each.asked, each.limit) for each in story.refused] == [
        ("filter", None, None),
        ("no_room", 70, 50.0),
    ]
    assert [(each.code, each.stage, each.hosts) for each in story.changes] == [("stage", "CapabilitiesFilter", 1)]
    place = given.explain(VolumeRequest(spec=VolumeSpec(size_gb=1, resource_backend="b@x#p"))).refused
    assert [(each.backend_id, each.code) for each in place] == [("a@x#p", "place")]
    empty = VolumeEngine().place(wish(1)).refusal
    assert empty is not None
    assert empty.code == "no_hosts"


def test_alternates_are_the_next_best() -> None:
    decision = two_pools().place(wish(1).with_changes(alternates=5))
    assert [each.backend_id for each in decision.selected.alternates] == ["b@x#p"]


def test_a_retry_gives_back_and_goes_elsewhere_until_attempts_end() -> None:
    given = two_pools(scheduler_default_filters=["IgnoreAttemptedHostsFilter", "CapacityFilter"])
    request = wish(10).with_changes(volume_id=UUID.format(1))
    first = given.place(request)
    second = given.place(request.with_changes(retry=first.retry))
    assert (first.selected.backend_id, second.selected.backend_id) == ("a@x#p", "b@x#p")
    assert free(given) == [100, 40]
    third = given.place(request.with_changes(retry=second.retry))
    assert third.refusal is not None
    fourth = given.place(request.with_changes(retry=third.retry))
    assert fourth.refusal is not None
    assert fourth.refusal.stage == "retry"
    assert given.place(wish(1).with_changes(retry=Retry(num_attempts=3))).refusal is not None


def test_extend_charges_the_growth_where_the_volume_is() -> None:
    given = two_pools()
    placed = given.place(wish(10)).selected
    request = wish(10).with_changes(volume_id=placed.volume_id)
    assert given.extend(request, 40).selected.charged_gb == 30
    assert free(given) == [60, 50]
    refused = given.extend(request, 400)
    assert refused.refusal is not None
    assert "free 60 GiB < 390 GiB" in refused.refusal.sentence
    given.release(placed.volume_id)
    assert free(given) == [100, 50]


def test_retype_stays_if_it_may_and_moves_only_if_the_policy_lets_it() -> None:
    given = engine(report("a@x", pool("p", 100, 100)), report("b@x", pool("p", 100, 50, tier="gold")))
    placed = given.place(wish(10)).selected
    gold = wish(10, {"tier": "gold"}).with_changes(volume_id=placed.volume_id)
    assert given.retype(wish(10).with_changes(volume_id=placed.volume_id)).selected.charged_gb == 0
    never = given.retype(gold)
    assert never.refusal is not None
    assert never.refusal.sentence.endswith("and the migration policy is never")
    assert given.retype(gold, migration_policy="on-demand").selected.backend_id == "b@x#p"
    assert free(given) == [90, 40]
    given.migrated(placed.volume_id)
    assert free(given) == [100, 40]
    assert given.release(placed.volume_id) == 1
    assert free(given) == [100, 50]
    given.fleet.check()


def test_manage_knows_a_volume_without_charging_it() -> None:
    given = two_pools(scheduler_default_weighers=["VolumeNumberWeigher"])
    taken = given.manage(wish(500), "a@x").selected
    assert (free(given), taken.backend_id) == ([100, 50], "a@x#p")
    assert given.place(wish(1)).selected.backend_id == "b@x#p"


def test_passes_checks_a_pool_or_a_backend_and_charges_nothing() -> None:
    given = two_pools()
    assert given.passes(wish(10), "b@x").placed
    assert given.passes(wish(10), "b@x#p").placed
    refused = given.passes(wish(60), "b@x")
    assert refused.refusal is not None
    assert refused.refusal.sentence == "b@x cannot take the volume: free 50 GiB < 60 GiB"
    unknown = given.passes(wish(10), "c@x")
    assert unknown.refusal is not None
    assert "not known" in unknown.refusal.sentence
    assert free(given) == [100, 50]


def test_a_group_is_packed_on_one_backend_or_not_at_all() -> None:
    given = engine(
        report("a@x", pool("p", 100, 60), pool("q", 100, 10)), report("b@x", pool("p", 100, 50), pool("q", 100, 50))
    )
    both = VolumeGroupRequest(volumes=(wish(40), wish(40)))
    decision = given.place_group(both)
    assert decision.backend == "b@x"
    assert [each.backend_id for each in decision.selections] == ["b@x#p", "b@x#q"]
    assert free(given) == [60, 10, 10, 10]
    refused = given.place_group(both)
    assert refused.refusal is not None
    assert free(given) == [60, 10, 10, 10]
    given.fleet.check()


def test_a_group_s_type_must_be_satisfied() -> None:
    given = engine(report("a@x", pool(tier="gold")), report("b@x", pool()))
    group = VolumeGroupRequest(volumes=(wish(1),), group_type=VolumeType(extra_specs={"tier": "gold"}))
    assert given.place_group(group).backend == "a@x"


def test_the_largest_volume_goes_first_where_the_order_asked_for_does_not_fit() -> None:
    given = engine(report("a@x", pool("p", 100, 60), pool("q", 100, 50)))
    decision = given.place_group(VolumeGroupRequest(volumes=(wish(50), wish(60))))
    assert [each.backend_id for each in decision.selections] == ["a@x#q", "a@x#p"]


def test_a_group_of_many_volumes_names_each_pool_once() -> None:
    """Cinder names a pool as often as it was matched: 2 to the power of the volumes, where backends have two pools."""
    given = engine(*(report(f"{name}@x", pool("p", 100, 60), pool("q", 100, 60)) for name in "abc"))
    few = VolumeGroupRequest(volumes=(wish(1),) * 3)
    order, _ = group_order(given._context, few)
    assert [name for name, _ in order].count("a@x#p") == 2**3
    decision = given.place_group(VolumeGroupRequest(volumes=(wish(1),) * 100))
    assert decision.backend is not None
    names = [name for name, _ in decision.order]
    assert sorted(names) == sorted(f"{name}@x#{pool}" for name in "abc" for pool in "pq")


def test_a_group_is_tried_on_so_many_backends_as_volumes_may_be_placed_for() -> None:
    """Three volumes that are more than half a pool each do not go into two pools with room for as much."""
    full = [report(f"{name}@x", pool("p", 100, 60), pool("q", 100, 60)) for name in "abc"]
    given = engine(*full, report("d@x", pool("p", 100, 40), pool("q", 100, 40), pool("r", 100, 40)))
    group = VolumeGroupRequest(volumes=(wish(1), wish(38), wish(38), wish(39)))
    assert given.fork().place_group(group).backend == "d@x"
    refused = given.fork().place_group(group, most_tried=4).refusal
    assert refused is not None
    assert "on none of 1 that were tried" in refused.sentence
    sure = VolumeGroupRequest(volumes=(wish(60),) * 3)  # more than any has room for together: nothing is tried
    assert given.place_group(sure, most_tried=1).refusal is not None
    given.fleet.check()


def test_fits_counts_what_place_then_places() -> None:
    given = engine(
        report("a@x", pool("p", 100, 95.5), pool("q", 10, 10, thin_provisioning_support=True)),
        report("b@x", pool("p", 100, 7)),
    )
    fit = given.fits(wish(8))
    assert fit.by_host == {"a@x#p": 11, "a@x#q": 25}
    assert given.place_many(wish(8) for _ in range(40)).placed == fit.count
    assert given.fits(wish(8)).count == 0


def test_fits_without_end_needs_a_limit() -> None:
    given = engine(report("a@x", pool("p", "infinite", "infinite")))
    with pytest.raises(InvalidValue, match="unbounded"):
        given.fits(wish(1))
    assert given.fits(wish(1), limit=7).count == 7


def test_place_many_answers_as_place_does() -> None:
    requests = [wish(size) for size in (5, 30, 200, 1, 60, 7)]
    one, many = two_pools(), two_pools()
    alone = [one.place(request) for request in requests]
    for single, decision in zip(alone, many.place_many(requests), strict=True):
        assert (decision.sequence, decision.removed, decision.seed) == (single.sequence, single.removed, single.seed)
        assert (decision.placed, decision.retry) == (single.placed, single.retry)
        if single.selection is not None and decision.selection is not None:
            assert decision.selection.volume_id == single.selection.volume_id
            assert decision.selection.backend_id == single.selection.backend_id
    assert free(one) == free(many)
    assert dict(one.pools.volumes) == dict(many.pools.volumes)


def test_chance_is_drawn_of_the_seed() -> None:
    options = {"scheduler_weight_handler": "StochasticHostWeightHandler"}
    chosen = [
        [two_pools(**options, seed=seed).place(wish(1)).selected.backend_id for _ in range(3)] for seed in range(20)
    ]
    assert all(len(set(each)) == 1 for each in chosen)
    assert len({each[0] for each in chosen}) == 2


def test_pools_that_are_kept_stay_those_of_their_engine() -> None:
    given = two_pools()
    pools, trial = given.pools, given.fork()
    of_trial = trial.pools
    trial.place(wish(10))
    assert pools.columns["free"].tolist() == [100, 50]
    assert of_trial.columns["free"].tolist() == [90, 50]
    pools.report(report("a@x", pool("p", 100, 70), at=1_000.0))
    trial.place(wish(5))
    pools.report(report("c@x", pool("p", 100, 10), at=1_000.0))
    assert free(given) == [70, 50, 10]
    assert free(trial) == [85, 50]
    assert (len(pools), len(of_trial)) == (3, 2)
    assert "3 Pools" in repr(pools)
    given.fleet.check()


def test_random_choices_among_pools_and_hosts_have_one_source() -> None:
    given = two_pools(scheduler_default_weighers=["ChanceWeigher"], seed=7)
    decision = given.place(wish(1))
    assert decision.seed == word(7, decision.sequence)
    draws = Draws(decision.seed)
    drawn = {"a@x#p": draws.fraction(), "b@x#p": draws.fraction()}
    assert decision.selected.backend_id == max(drawn, key=drawn.__getitem__)
    assert all(0 <= value < 1 for value in drawn.values())


def test_a_fork_sees_what_was_and_leaves_no_trace() -> None:
    given = two_pools()
    trial = given.what_if()
    trial.place(wish(10))
    trial.pools.report(report("0@x", pool("p"), pool("q"), at=200.0))
    trial.pools.report(report("a@x", pool("p", 100, 100), pool("q"), at=200.0))
    assert free(given) == [100, 50]
    assert len(trial.pools) == 5
    given.place(wish(1))
    assert len(given.pools) == 2
    given.fleet.check()
    assert len(trial.pools) == 5
    trial.fleet.check()


def test_a_fleet_s_file_holds_its_pools(tmp_path: Path) -> None:
    given = two_pools()
    given.pools.add_services([VolumeService(host="c@x", cluster_name="cl", up=False)])
    given.place_many(wish(7) for _ in range(3))
    given.pools.report(report("a@x", pool("p", 100, 1, tier="new"), at=50.0))
    given.pools.set_aggregates("a", [UUID.format(1)])
    save(given.fleet, tmp_path / "fleet")
    again = VolumeEngine(load(tmp_path / "fleet"))
    again.sequence = given.sequence
    again.fleet.check()
    assert dict(again.pools.volumes) == dict(given.pools.volumes)
    assert again.place(wish(5)) == given.place(wish(5))
    assert again.pools.report(report("a@x", pool("p", 100, 90), at=300.0))


def test_capabilities_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    given = engine(report("a@x", pool("p", odd={1, 2})))
    with pytest.raises(InvalidValue, match="cannot be saved"):
        save(given.fleet, tmp_path / "fleet")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ("volume", "request"),
        (VolumeRequest(spec=None), "spec"),  # type: ignore[arg-type]  # that is the point
        (wish(-1), "size_gb"),
        (wish(2**40), "size_gb"),
        (wish(True), "size_gb"),
        (wish(1, scheduler_hints={"query": 5}), "scheduler_hints.query"),
        (wish(1, scheduler_hints=None), "scheduler_hints"),
        (wish(1, {"a": 5}), "volume_type.extra_specs"),  # type: ignore[dict-item]  # that is the point
        (wish(1, availability_zones="az1"), "availability_zones"),
        (wish(1, availability_zone=5), "availability_zone"),
        (wish(1, qos_specs=[1]), "qos_specs"),
        (wish(1).with_changes(volume_id="v"), "volume_id"),
        (wish(1).with_changes(now=float("nan")), "now"),
        (wish(1).with_changes(now=1e300), "now"),
        (wish(1).with_changes(alternates=-1), "alternates"),
        (wish(1).with_changes(project_id=5), "project_id"),  # type: ignore[arg-type]
        (wish(1).with_changes(retry="no"), "retry"),  # type: ignore[arg-type]
        (wish(1).with_changes(retry=Retry(num_attempts=-1)), "retry.num_attempts"),
        (VolumeRequest(spec=VolumeSpec(size_gb=1, volume_type="gold")), "volume_type"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_request_names_its_field_and_changes_nothing(request_: Any, field: str) -> None:
    given = two_pools()
    for call in (given.place, given.explain, lambda each: given.place_many([wish(1), each])):
        with pytest.raises(InvalidValue) as caught:
            call(request_)
        assert caught.value.field == field
    assert (free(given), given.sequence, len(given.pools.volumes)) == ([100, 50], 0, 0)


def bad_calls() -> list[Any]:
    known = wish(1).with_changes(volume_id=UUID.format(0))
    return [
        (DuplicateName, lambda each: each.place(known)),
        (DuplicateName, lambda each: each.place_many([wish(1), known])),
        (DuplicateName, lambda each: each.place_many([wish(1).with_changes(volume_id=UUID.format(7))] * 2)),
        (UnknownName, lambda each: each.release([UUID.format(0), UUID.format(1)])),
        (InvalidValue, lambda each: each.release([UUID.format(0)] * 2)),
        (UnknownName, lambda each: each.migrated("v")),
        (UnknownName, lambda each: each.extend(wish(1).with_changes(volume_id=UUID.format(1)), 5)),
        (InvalidValue, lambda each: each.extend(wish(1), 5)),
        (InvalidValue, lambda each: each.extend(known, 1)),
        (UnknownName, lambda each: each.retype(known, migration_policy="always")),
        (InvalidValue, lambda each: each.passes(wish(1), 5)),
        (InvalidValue, lambda each: each.place_group("group")),
        (InvalidValue, lambda each: each.fits(wish(1), limit=-1)),
        (InvalidValue, lambda each: each.fork("policy")),
        (InvalidValue, lambda each: each.pools.report("report")),
        (InvalidValue, lambda each: each.pools.report(BackendReport(host="a#b", capabilities={}, at=1.0))),
        (InvalidValue, lambda each: each.pools.report(report("a@x", pool("p"), pool("p"), at=900.0))),
        (InvalidValue, lambda each: each.pools.report(BackendReport(host="a@x", capabilities={"pools": 5}, at=900.0))),
        (InvalidValue, lambda each: each.pools.report(report("a@x", at=float("inf")))),
        (InvalidValue, lambda each: each.pools.report(report("a@x", at=1e12))),
        (UnknownName, lambda each: each.pools.set_service("nobody", up=True)),
        (InvalidValue, lambda each: each.pools.set_service("a@x", up="yes")),
        (UnknownName, lambda each: each.pools.remove_service("nobody")),
        (InvalidValue, lambda each: each.pools.set_aggregates("a@x", "uuid")),
        (InvalidValue, lambda each: each.pools.add_volumes(["v"])),
    ]


@pytest.mark.parametrize("index", range(len(bad_calls())))
def test_a_bad_call_changes_nothing(index: int) -> None:
    given = two_pools()
    given.place(wish(1).with_changes(volume_id=UUID.format(0)))
    before = (free(given), given.sequence, dict(given.pools.volumes), dict(given.pools.services))
    error, call = bad_calls()[index]
    with pytest.raises(error) as caught:
        call(given)
    assert isinstance(caught.value, HostlerError)
    assert caught.value.field
    assert (free(given), given.sequence, dict(given.pools.volumes), dict(given.pools.services)) == before
    given.fleet.check()


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [100, 500, 900, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_a_query_that_nests_deeply_is_refused_at_every_door(levels: int, brackets: str) -> None:
    """Some depths exceeded the interpreter's limit only when a pool was judged."""
    given = two_pools(scheduler_default_filters=["JsonFilter", "CapacityFilter"])
    query = brackets[:-1] * levels + "1" + brackets[-1] * levels
    request = VolumeRequest(spec=VolumeSpec(size_gb=1, scheduler_hints={"query": query}))
    calls = (given.place, given.explain, given.rank, given.fits, lambda each: given.place_many([each]))
    for call in calls:
        with pytest.raises(InvalidValue, match="deeper than 64") as caught:
            call(request)
        assert caught.value.field == "scheduler_hints.query"
    shallow = '["not", ' * 63 + "false" + "]" * 63
    spec = VolumeSpec(size_gb=1, scheduler_hints={"query": shallow})
    assert not given.place(VolumeRequest(spec=spec)).placed


@pytest.mark.parametrize("name", ["metadata", "properties", "scheduler_hints", "qos_specs"])
def test_a_field_that_nests_deeply_is_refused(name: str) -> None:
    fields: dict[str, Any] = {name: {"a": nested(5_000)}}
    with pytest.raises(InvalidValue, match="nested more than 32 levels") as caught:
        two_pools().place(VolumeRequest(spec=VolumeSpec(size_gb=1, **fields)))
    assert caught.value.field == name
