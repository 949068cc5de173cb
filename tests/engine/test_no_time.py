"""An engine that was never given a time judges no heartbeat; one that was given one goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler import (
    Engine,
    Flavor,
    Fleet,
    Host,
    InvalidValue,
    Request,
    RequestSpec,
    Service,
    add_hosts,
    load_fleet,
    save_fleet,
)

pytestmark = pytest.mark.kernel_twin

SEEN = 1_700_000_000.0
SMALL = RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=64))
ANY, FRESH, LATE = (Request(spec=SMALL, now=now) for now in (None, SEEN + 60, SEEN + 61.5))


def engine() -> Engine:
    """One host with a heartbeat, one that is disabled, one that was never heard of."""
    services = Service(last_seen_up=SEEN), Service(last_seen_up=SEEN, disabled=True), Service()
    fleet = Fleet()
    add_hosts(
        fleet,
        [
            Host(host=f"h{i}", vcpus_total=8, total_usable_ram_mb=8192, service=service)
            for i, service in enumerate(services)
        ],
    )
    return Engine(fleet)


def refused(of: Engine, request: Request) -> dict[str, str]:
    return {each.node: each.reason for each in of.explain(request).refused}


DISABLED = {"h1": "service disabled: no reason given"}
SILENT = {"h0": "service last seen 61.5 s from now, more than service_down_time 60 s"}


def test_without_a_time_no_heartbeat_is_judged_but_disabled_services_are() -> None:
    untimed = engine()
    assert untimed.fleet.now is None
    assert refused(untimed, ANY) == DISABLED
    assert [decision.host for decision in untimed.place_many([ANY, ANY])] == ["h0", "h2"]
    assert untimed.place(ANY).placed
    untimed.fleet.check()


def test_heartbeats_are_judged_from_the_first_time_on_also_for_requests_without_one() -> None:
    timed = engine()
    assert refused(timed, LATE) == DISABLED | SILENT
    assert refused(timed, ANY) == DISABLED | SILENT
    assert timed.fleet.now == LATE.now
    assert {timed.place(ANY).host for _ in range(4)} == {"h2"}
    timed.fleet.heartbeat("h0", SEEN + 2)
    assert refused(timed, ANY) == DISABLED
    timed.fleet.check()


def test_a_batch_takes_its_first_time_in_its_turn() -> None:
    batched, singly = engine(), engine()
    requests = [ANY, ANY, LATE, ANY, FRESH, ANY]
    hosts = [decision.host for decision in batched.place_many(requests)]
    assert hosts == [singly.place(request).host for request in requests]
    assert hosts[2:4] == ["h2", "h2"]
    assert batched.fleet.now == singly.fleet.now == FRESH.now


def test_a_fork_has_its_own_time() -> None:
    untimed = engine()
    trial = untimed.what_if()
    assert refused(trial, LATE) == DISABLED | SILENT
    assert untimed.fleet.now is None
    assert refused(untimed, ANY) == DISABLED
    assert refused(trial, ANY) == DISABLED | SILENT


@pytest.mark.parametrize("call", ["place", "explain", "rank", "fits", "place_many"])
def test_a_call_that_fails_gives_no_time(call: str) -> None:
    untimed = engine()
    bad = LATE.with_changes(instance_uuids=("no uuid",))
    with pytest.raises(InvalidValue):
        getattr(untimed, call)([LATE, bad] if call == "place_many" else bad)
    assert untimed.fleet.now is None
    assert refused(untimed, ANY) == DISABLED
    untimed.fleet.check()


@pytest.mark.parametrize("first", [ANY, LATE])
def test_a_saved_fleet_keeps_its_time_or_that_there_is_none(first: Request, tmp_path: Path) -> None:
    saved = engine()
    saved.explain(first)
    save_fleet(saved.fleet, tmp_path / "fleet")
    loaded = Engine(load_fleet(tmp_path / "fleet"))
    assert loaded.fleet.now == first.now
    assert refused(loaded, ANY) == refused(saved, ANY)
    loaded.fleet.check()
