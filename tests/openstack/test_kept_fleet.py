"""A kept fleet follows Nova's hosts by what changes, and decides beside an outside Placement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hostler.drivers.openstack.nova.hosts import host_of
from hostler.drivers.openstack.nova.kept_fleet import AGGREGATES, KeptFleet
from hostler.drivers.openstack.nova.requests import request_of
from hostler.placement.fleet.aggregates import NONE
from hostler.placement.types.errors import DuplicateName
from hostler.placement.types.request import Request, ServerGroup

from .nova_objects import NOW, aggregate, candidates, host_state, instance_uuid, node_uuid, request_spec

OPTIONS: dict[str, dict[str, Any]] = {"hostler": {"prepare": False}}


def kept_fleet(*states: Any, **options: dict[str, Any]) -> KeptFleet:
    kept = KeptFleet()
    kept.use({**OPTIONS, **options})
    kept.update(map(host_of, states))
    return kept


def asked(*uuids: str, **changes: Any) -> Request:
    return request_of(request_spec(**changes), uuids or [instance_uuid(1)], alternates=1, now=NOW.timestamp())


def chosen(kept: KeptFleet, request: Request, given: Any, claim: Any = None) -> list[str]:
    decision = kept.engine.choose(request, candidates=kept.candidates(given, given), claim=claim)
    return [selection.host for selection in decision.selections]


def test_the_freest_host_is_chosen_and_nothing_is_kept() -> None:
    kept = kept_fleet(host_state(1, free_ram_mb=1000), host_state(2))
    for _ in range(3):
        assert chosen(kept, asked(), candidates(1, 2)) == ["compute2"]
    assert kept.engine.fleet.drift().size == 0
    kept.engine.fleet.check()


def test_a_host_that_changed_is_read_in_alone() -> None:
    kept = kept_fleet(host_state(1), host_state(2, free_ram_mb=1000))
    kept.update([host_of(host_state(1, free_ram_mb=100))])
    assert kept.changes == 3
    assert chosen(kept, asked(), candidates(1, 2)) == ["compute2"]


def test_only_hosts_with_candidates_are_chosen_and_those_with_none_left_are_not() -> None:
    kept = kept_fleet(host_state(1), host_state(2), host_state(3))
    assert chosen(kept, asked(), candidates(3)) == ["compute3"]
    assert chosen(kept, asked(), {**candidates(1), node_uuid(2): []}) == ["compute1"]
    assert chosen(kept, asked(), candidates(9)) == []


def test_a_service_that_is_not_seen_any_more_takes_its_host_out() -> None:
    kept = kept_fleet(host_state(1), host_state(2))
    kept.heartbeats({node_uuid(1): NOW.timestamp() - 3600, node_uuid(7): 1.0})
    assert chosen(kept, asked(), candidates(1, 2)) == ["compute2"]
    kept.heartbeats({node_uuid(1): NOW.timestamp(), node_uuid(2): NOW.timestamp() - 3600})
    assert chosen(kept, asked(), candidates(1, 2)) == ["compute1"]


def test_aggregates_that_nova_has_no_longer_are_forgotten() -> None:
    kept = kept_fleet(host_state(1, aggregates=[aggregate(1, availability_zone="az")]))
    for number in range(2, 2 * AGGREGATES + 4):
        kept.update([host_of(host_state(2, aggregates=[aggregate(number)]))])
    there = [each.name for each in kept.engine.fleet.aggregates if each is not NONE]
    assert len(there) <= AGGREGATES + 4
    assert there[0] == "aggregate 1"
    kept.engine.fleet.check()


def test_an_aggregate_that_changed_is_changed_for_all_its_hosts() -> None:
    states = [host_state(number, aggregates=[aggregate(1, availability_zone="old")]) for number in (1, 2)]
    kept = kept_fleet(*states)
    changed = tuple(replace(each, metadata={"availability_zone": "new"}) for each in host_of(states[0]).aggregates)
    kept.update([replace(host_of(state), aggregates=changed) for state in states])
    decision = kept.engine.choose(asked(), candidates=candidates(1, 2))
    assert decision.selected.availability_zone == "new"


def test_a_host_that_is_gone_takes_its_instances_along() -> None:
    kept = kept_fleet(host_state(1, instances={instance_uuid(5): None}), host_state(2))
    kept.update([], gone=[node_uuid(1), node_uuid(8)])
    assert set(kept.hosts) == {node_uuid(2)}
    assert len(kept.engine.fleet) == 1
    kept.engine.fleet.check()


def test_hosts_that_are_gone_together_take_an_instance_along_that_stood_on_both() -> None:
    kept = kept_fleet(*(host_state(number, instances={instance_uuid(5): None}) for number in (1, 2)), host_state(3))
    kept.update([], gone=[node_uuid(1), node_uuid(2)])
    assert set(kept.hosts) == {node_uuid(3)}
    kept.engine.fleet.check()


def test_a_node_that_was_made_again_under_its_name_replaces_the_one_before() -> None:
    kept = kept_fleet(host_state(1))
    kept.update([host_of(host_state(1, uuid=node_uuid(77)))])
    assert set(kept.hosts) == {node_uuid(77)}


def test_an_instance_that_moves_counts_where_it_is() -> None:
    mine = instance_uuid(1)
    kept = kept_fleet(
        host_state(1, instances={mine: None}), host_state(2, free_ram_mb=10), host_state(3, free_ram_mb=5)
    )
    group = ServerGroup(uuid="g", policy="anti-affinity", members=frozenset({mine}), hosts=frozenset({"compute1"}))
    request = asked(mine).with_changes(server_group=group)
    assert chosen(kept, request, candidates(1, 2, 3)) == ["compute1"]
    assert chosen(kept, request, candidates(2, 3)) == ["compute2"]
    assert kept.hosts[node_uuid(1)].host.instances.keys() == {mine}


def test_several_instances_see_each_other_and_are_gone_afterwards() -> None:
    kept = kept_fleet(host_state(1), host_state(2))
    both = instance_uuid(1), instance_uuid(2)
    group = ServerGroup(uuid="g", policy="anti-affinity", members=frozenset(both))
    request = asked(*both).with_changes(server_group=group)
    assert sorted(chosen(kept, request, candidates(1, 2))) == ["compute1", "compute2"]
    assert chosen(kept, asked(*map(instance_uuid, (1, 2, 3))).with_changes(server_group=group), candidates(1)) == []
    assert all(not kept.engine.fleet.instances(row) for row in range(2))


def test_several_instances_of_which_one_is_known_are_refused() -> None:
    kept = kept_fleet(host_state(1, instances={instance_uuid(1): None}))
    with pytest.raises(DuplicateName):
        chosen(kept, asked(instance_uuid(1), instance_uuid(2)), candidates(1))


def test_a_claim_that_fails_has_the_next_host_tried_with_its_candidate() -> None:
    kept = kept_fleet(host_state(1), host_state(2, free_ram_mb=1000))
    given, tried = candidates(1, 2), []

    def claim(uuid: str, provider: str, candidate: Any) -> bool:
        assert candidate is given[provider][0]
        tried.append(provider)
        return provider == node_uuid(2)

    assert chosen(kept, asked(), given, claim) == ["compute2"]
    assert tried == [node_uuid(1), node_uuid(2)]


def test_a_rebuild_asks_for_no_room() -> None:
    full = host_state(1, free_ram_mb=0, free_disk_mb=0, vcpus_used=64)
    kept = kept_fleet(full)
    request = asked(scheduler_hints={"_nova_check_type": ["rebuild"]}, force_hosts=["compute1"])
    decision = kept.engine.choose(request, candidates=kept.candidates(kept.hosts, None))
    assert decision.host == "compute1"


def test_options_that_change_are_followed() -> None:
    kept = kept_fleet(host_state(1, free_ram_mb=1000), host_state(2))
    assert chosen(kept, asked(), candidates(1, 2)) == ["compute2"]
    kept.use({**OPTIONS, "filter_scheduler": {"ram_weight_multiplier": -1.0}})
    assert chosen(kept, asked(), candidates(1, 2)) == ["compute1"]


def test_requests_of_equal_content_share_a_spec() -> None:
    kept = kept_fleet(host_state(1))
    one, two = kept.shared(asked()), kept.shared(asked())
    assert one.spec is two.spec
