"""What becomes of capability reports: pools, their order, their figures, and what services change."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.storage.pools.reports import BackendReport, VolumeService
from hostler.placement.storage.pools.view import attribute

from .values import engine, pool, report, wish


def names(given: Any) -> list[str]:
    return [given.pools.fact(row).backend_id for row in given.pools.live_rows().tolist()]


def only(capabilities: dict[str, Any], **options: Any) -> Any:
    """A look-up of attributes of the one pool reported."""
    pools = engine(BackendReport(host="h@b", capabilities=capabilities, at=1.0), **options).pools
    return lambda name: attribute(pools, 0, name)


def test_a_legacy_report_is_one_pool_named_after_the_backend() -> None:
    assert names(engine(BackendReport(host="h@b", capabilities={"volume_backend_name": "LVM"}, at=1.0))) == ["h@b#LVM"]
    assert names(engine(BackendReport(host="h@b", capabilities={"total_capacity_gb": 1}, at=1.0))) == ["h@b#_pool0"]


def test_a_pool_has_what_it_leaves_out_from_its_backend() -> None:
    backend = {"vendor_name": "V", "storage_protocol": "fc", "filter_function": "1", "goodness_function": "2"}
    look = only({**backend, "volume_backend_name": "B", "pools": [{"pool_name": "p", "goodness_function": None}]})
    assert (look("vendor_name"), look("volume_backend_name"), look("filter_function")) == ("V", "B", "1")
    assert look("goodness_function") is None
    assert look("storage_protocol") == ["FC", "fibre_channel", "fc"]


@pytest.mark.parametrize(
    ("protocol", "known"), [("iSCSI", ["iSCSI", "iscsi"]), ("NVMe-TCP", "NVMe-TCP"), ("ISCSI", "ISCSI"), (None, None)]
)
def test_a_protocol_answers_to_all_names_of_its_family(protocol: Any, known: Any) -> None:
    assert only({"storage_protocol": protocol})("storage_protocol") == known


def test_what_is_not_reported_has_cinder_s_defaults() -> None:
    look = only({"allocated_capacity_gb": 7})
    assert (look("total_capacity_gb"), look("free_capacity_gb"), look("provisioned_capacity_gb")) == (0, 0, 7)
    assert (look("max_over_subscription_ratio"), look("goodness_function"), look("multiattach")) == (1.0, 0, False)


@pytest.mark.parametrize(("default", "own", "ratio"), [("7.5", None, 7.5), ("auto", None, 3.5), ("7.5", "2", 2.0)])
def test_the_over_subscription_ratio_is_the_pool_s_or_the_policy_s(default: str, own: Any, ratio: float) -> None:
    capabilities = {
        "total_capacity_gb": 10,
        "free_capacity_gb": 7,
        "provisioned_capacity_gb": 10,
        "thin_provisioning_support": True,
        "max_over_subscription_ratio": own,
    }
    assert only(capabilities, max_over_subscription_ratio=default)("max_over_subscription_ratio") == ratio


def test_a_report_from_before_a_placement_does_not_undo_it() -> None:
    given = engine(report("a@x", pool("p", 100, 100), at=10.0))
    given.place(wish(30).with_changes(now=20.0))
    assert given.pools.report(report("a@x", pool("p", 100, 100, tier="new"), at=15.0))
    assert given.pools.columns["free"][0] == 70
    assert given.pools.fact(0).capabilities["tier"] == "new"
    given.pools.report(report("a@x", pool("p", 100, 65), at=30.0))
    assert given.pools.columns["free"][0] == 65


def test_an_older_report_is_ignored_whole() -> None:
    given = engine(report("a@x", pool("p"), at=10.0))
    assert not given.pools.report(report("a@x", pool("q"), at=9.0))
    assert names(given) == ["a@x#p"]


def test_new_pools_come_behind_those_of_their_backend_and_absent_ones_go() -> None:
    given = engine(report("a@x", pool("p"), pool("q")), report("b@x", pool("p")))
    given.pools.report(report("a@x", pool("0"), pool("q"), pool("p"), at=200.0))
    assert names(given) == ["a@x#p", "a@x#q", "a@x#0", "b@x#p"]
    given.pools.report(report("a@x", pool("0"), at=300.0))
    assert names(given) == ["a@x#0", "b@x#p"]
    given.fleet.check()


def test_a_backend_that_was_down_comes_back_last_and_anew() -> None:
    given = engine(report("a@x", pool("p", 100, 100)), report("b@x", pool("p", 100, 90)))
    given.place(wish(5).with_changes(now=500.0))
    given.pools.set_service("a@x", up=False)
    assert names(given) == ["b@x#p"]
    given.pools.set_service("a@x", up=True)
    assert names(given) == ["b@x#p", "a@x#p"]
    assert given.pools.columns["free"][given.pools.row("a@x#p")] == 100


@pytest.mark.parametrize("change", [{"disabled": True}, {"frozen": True}, {"up": False}])
def test_a_service_that_does_not_serve_takes_its_pools_away(change: dict[str, Any]) -> None:
    given = engine(report("a@x", pool("p")))
    given.pools.set_service("a@x", **change)
    assert names(given) == []
    assert given.place(wish(1)).refusal is not None


def test_services_of_a_cluster_serve_the_same_pools() -> None:
    given = engine(report("a@x", pool("p"), cluster="cl@x"), report("b@x", pool("p"), at=200.0, cluster="cl@x"))
    assert names(given) == ["cl@x#p"]
    given.pools.set_service("a@x", up=False)
    assert (names(given), given.pools.fact(0).host) == (["cl@x#p"], "a@x#p")
    given.pools.set_service("b@x", up=False)
    assert names(given) == []
    given.fleet.check()


def test_a_change_of_zone_leaves_what_was_charged() -> None:
    given = engine(report("a@x", pool("p", 100, 100)))
    given.place(wish(30))
    given.pools.set_service("a@x", availability_zone="az9")
    assert given.pools.columns["free"][0] == 70
    assert given.place(wish(1, availability_zone="az9")).placed
    assert not given.place(wish(1, availability_zone="nova")).placed


def test_pools_are_ready_when_every_service_that_is_up_has_reported() -> None:
    given = engine()
    assert given.pools.ready
    given.pools.add_services([VolumeService(host="a@x"), VolumeService(host="b@x", up=False)])
    assert (given.pools.ready, given.pools.waiting) == (False, ["a@x"])
    refusal = given.place(wish(1)).refusal
    assert refusal is not None
    assert refusal.hint == "1 backends have not reported yet"
    given.pools.report(report("a@x", pool()))
    assert given.pools.ready


@pytest.mark.parametrize(
    "odd",
    [
        {"total_capacity_gb": None},
        {"free_capacity_gb": "lots"},
        {"free_capacity_gb": float("nan")},
        {"allocated_capacity_gb": True},
        {"reserved_percentage": 101},
        {"reserved_percentage": -1},
        {"provisioned_capacity_gb": [1]},
        {"max_over_subscription_ratio": "much", "thin_provisioning_support": True},
        {"max_over_subscription_ratio": "inf", "thin_provisioning_support": True},
    ],
)
def test_a_pool_whose_figures_make_no_sense_is_refused_and_the_others_live(odd: dict[str, Any]) -> None:
    given = engine(report("a@x", {**pool("bad"), **odd}, pool("good")))
    assert given.place(wish(1)).selected.backend_id == "a@x#good"
    reason = given.explain(wish(1)).reason("a@x#bad")
    assert reason is not None
    assert reason.stage == "report"
    assert reason.reason.startswith("its report cannot be used: ")
    given.fleet.check()


def test_a_pool_that_was_taken_away_gives_nothing_back() -> None:
    given = engine(report("a@x", pool("p")), report("b@x", pool("p", 5, 5)))
    volume = given.place(wish(1)).selected.volume_id
    given.pools.remove_service("a@x")
    assert given.release(volume) == 1
    given.fleet.check()


def test_many_reports_that_come_and_go_do_not_use_up_rows() -> None:
    given = engine(report("a@x", pool("p")))
    for turn in range(500):
        given.pools.report(report("b@x", *(pool(f"p{turn}-{index}") for index in range(3)), at=200.0 + turn))
        given.pools.set_service("b@x", up=turn % 2 == 0)
    assert given.pools.columns.rows < 300
    given.fleet.check()
