"""Hostler's class inside Nova, whole: what it reads of the cell databases as they change and fail, what it claims in
Placement, and what becomes of claims when something fails."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest

from ..patience import HANG_SECONDS
from .nova_doubles import (
    CELL_2,
    AllocationUpdateFailed,
    CellDatabase,
    Context,
    Nova,
    NoValidHost,
    inside,
    service,
    stamps,
)
from .nova_objects import NOW, Versioned, aggregate, candidates, host_state, instance_uuid, node_uuid, request_spec

pytestmark = pytest.mark.skipif(find_spec("nova") is not None, reason="Nova itself is here")


@pytest.fixture
def nova() -> Nova:
    return Nova()


@pytest.fixture
def manager(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with inside(nova, monkeypatch) as made:
        yield made


def schedule(manager: Any, among: Sequence[int], count: int = 1, **changes: Any) -> list[str]:
    """The service hosts of ``count`` instances; ``among``: numbers of the hosts that Placement offers."""
    given = candidates(*among)
    uuids = [instance_uuid(number) for number in range(1, count + 1)]
    answer = manager._schedule(Context(), request_spec(**changes), uuids, given, dict.fromkeys(given), "1.36", True)
    return [each[0].service_host if hasattr(each[0], "service_host") else "stock" for each in answer]


def fallbacks(manager: Any, reason: str) -> float:
    return float(manager.metrics.value("hostler_fallbacks_total", reason=reason))


def later(seconds: float) -> datetime.datetime:
    return (NOW + datetime.timedelta(seconds=seconds)).replace(tzinfo=None)


# the state


def test_the_freest_host_is_chosen_and_claimed(nova: Nova, manager: Any) -> None:
    nova.add(1, free_ram_mb=1000)
    nova.add(2)
    assert schedule(manager, [1, 2]) == ["compute2"]
    assert nova.placement.claims == {instance_uuid(1): node_uuid(2)}


def test_requests_that_wait_for_a_look_share_the_next(
    nova: Nova, manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nova.add(1)
    looking, waiting, go_on = threading.Event(), threading.Semaphore(0), threading.Event()

    def look() -> None:
        looking.set()
        assert go_on.wait(HANG_SECONDS)

    def mappings(spec: Any) -> Any:
        waiting.release()
        return nova.cells

    nova.on_look = look
    monkeypatch.setattr(manager, "_mappings", mappings)
    answers: list[list[str]] = []
    threads = [threading.Thread(target=lambda: answers.append(schedule(manager, [1]))) for _ in range(8)]
    threads[0].start()
    assert looking.wait(HANG_SECONDS)
    for thread in threads[1:]:
        thread.start()
    for _ in threads:
        assert waiting.acquire(timeout=HANG_SECONDS)
    go_on.set()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert answers == [["compute1"]] * 8
    assert nova.looks == 2


def test_a_request_after_a_look_looks_again(nova: Nova, manager: Any) -> None:
    row = nova.add(1)
    nova.add(2, free_ram_mb=1000)
    assert schedule(manager, [1, 2]) == ["compute1"]
    row.figures["free_ram_mb"] = 10
    row.updated_at = later(1)
    assert schedule(manager, [1, 2]) == ["compute2"]


def test_messages_do_not_wait_for_a_look(nova: Nova, manager: Any) -> None:
    nova.add(1)
    nova.on_look = lambda: told.append(in_a_thread(lambda: manager.update_instance_info(None, "compute1", None)))
    told: list[bool] = []
    schedule(manager, [1])
    assert told == [True]


def in_a_thread(call: Any) -> bool:
    """Whether a call in another thread ends while this one goes on."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    return not thread.is_alive()


def test_messages_are_read_while_rows_are_not_looked_at(nova: Nova, manager: Any) -> None:
    nova.conf.set_override("state_max_age", 25.0, group="hostler")
    nova.add(1)
    nova.add(2, free_ram_mb=1000)
    group = anti_affinity(instance_uuid(7))
    for host in ("compute1", "compute2"):
        nova.host_manager._instance_info[host] = {"updated": True, "instances": {}}
    assert schedule(manager, [1, 2], instance_group=group) == ["compute1"]
    nova.host_manager._instance_info["compute1"]["instances"][instance_uuid(7)] = None
    manager.update_instance_info(None, "compute1", None)
    assert schedule(manager, [1, 2], instance_group=group) == ["compute2"]
    assert nova.looks == 1


def anti_affinity(*members: str) -> Versioned:
    return Versioned(uuid="group", policy="anti-affinity", _rules={}, members=list(members), hosts=["compute1"])


def test_state_is_never_so_old_that_services_seem_dead(nova: Nova, manager: Any) -> None:
    nova.conf.set_override("state_max_age", 3600.0, group="hostler")
    assert manager._max_age() == 30.0


def test_a_node_that_moved_to_another_service_is_as_alive_as_that_one(nova: Nova, manager: Any) -> None:
    row = nova.add(1, host="ironic1")
    nova.cells[0].services.append(service("ironic2"))
    assert schedule(manager, [1]) == ["ironic1"]
    row.host, row.updated_at = "ironic2", later(1)
    assert schedule(manager, [1]) == ["ironic2"]
    dead = nova.service("ironic1")
    dead.forced_down, dead.updated_at = True, later(2)
    assert schedule(manager, [1]) == ["ironic2"]
    assert nova.stock_calls == 0


def test_a_service_that_was_made_anew_outlives_its_deleted_row(nova: Nova, manager: Any) -> None:
    nova.add(1)
    schedule(manager, [1])
    old = nova.service("compute1")
    old.deleted, old.deleted_at = 1, later(1)
    nova.cells[0].services.insert(0, service("compute1", **stamps(NOW + datetime.timedelta(seconds=1))))
    assert schedule(manager, [1]) == ["compute1"]


def test_a_writer_whose_clock_is_ahead_hides_no_other(nova: Nova, manager: Any) -> None:
    nova.add(1)
    ahead = nova.add(2, free_ram_mb=1000)
    ahead.updated_at = later(40)
    nova.service("compute2").updated_at = later(40)
    assert schedule(manager, [1, 2]) == ["compute1"]
    off = nova.service("compute1")
    off.disabled, off.updated_at = True, later(1)
    assert schedule(manager, [1, 2]) == ["compute2"]


def test_a_compute_node_that_was_deleted_is_no_candidate(nova: Nova, manager: Any) -> None:
    row = nova.add(1)
    nova.add(2, free_ram_mb=10)
    assert schedule(manager, [1, 2]) == ["compute1"]
    row.deleted, row.deleted_at = 1, later(1)
    assert schedule(manager, [1, 2]) == ["compute2"]
    assert set(manager._state.kept.hosts) == {node_uuid(2)}


def test_what_a_failed_reading_found_is_read_in_by_the_next(
    nova: Nova, manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, other = nova.add(1), nova.add(2, free_ram_mb=1000)
    schedule(manager, [1, 2])
    row.deleted, row.deleted_at = 1, later(1)
    other.updated_at = later(1)
    down = nova.service("compute2")
    down.disabled, down.updated_at = True, later(1)
    read = manager._state._computes

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("lost connection")

    monkeypatch.setattr(manager._state, "_computes", fail)
    assert schedule(manager, [2]) == ["stock"]
    monkeypatch.setattr(manager._state, "_computes", read)
    nova.cells[0].nodes.pop(row.uuid)
    with pytest.raises(NoValidHost):
        schedule(manager, [1, 2])
    assert set(manager._state.kept.hosts) == {node_uuid(2)}


@pytest.mark.parametrize("what", ["down", "down_for_nodes"])
def test_a_cell_that_does_not_answer_has_no_hosts_and_fails_nothing(nova: Nova, manager: Any, what: str) -> None:
    nova.cells.append(CellDatabase(uuid=CELL_2))
    nova.add(1, cell=0, free_ram_mb=1000)
    row = nova.add(2, cell=1)
    assert schedule(manager, [1, 2]) == ["compute2"]
    setattr(nova.cells[1], what, True)
    row.updated_at = later(1)
    group = anti_affinity(instance_uuid(7))
    assert schedule(manager, [1, 2]) == ["compute1"]
    assert schedule(manager, [1, 2], instance_group=group) == ["compute1"]
    setattr(nova.cells[1], what, False)
    assert schedule(manager, [1, 2]) == ["compute2"]
    assert nova.stock_calls == 0


def test_a_node_that_came_to_another_cell_is_in_that_cell(nova: Nova, manager: Any) -> None:
    nova.cells.append(CellDatabase(uuid=CELL_2))
    row = nova.add(1)
    assert schedule(manager, [1]) == ["compute1"]
    row.deleted, row.deleted_at = 1, later(1)
    moved = nova.add(1, cell=1)
    moved.created_at = moved.updated_at = later(1)
    assert schedule(manager, [1]) == ["compute1"]
    assert nova.stock_calls == 0


# hosts that cannot be read


def test_a_host_that_cannot_be_read_leaves_only_requests_that_may_choose_it_to_nova(nova: Nova, manager: Any) -> None:
    nova.add(1)
    broken = nova.add(2, vcpus_total=-1)
    nova.add(3, cpu_allocation_ratio=None)
    assert schedule(manager, [1]) == ["compute1"]
    assert schedule(manager, [1, 2]) == schedule(manager, [1, 3]) == ["stock"]
    assert fallbacks(manager, "unreadable_host") == 2
    assert manager.metrics.value("hostler_hosts_unreadable") == 2
    broken.figures["vcpus_total"], broken.updated_at = 32, later(1)
    assert schedule(manager, [2]) == ["compute2"]
    assert manager.metrics.value("hostler_hosts_unreadable") == 1


def test_without_a_fallback_a_host_that_cannot_be_read_is_no_candidate(nova: Nova, manager: Any) -> None:
    nova.conf.set_override("fallback", "never", group="hostler")
    nova.add(1, free_ram_mb=1000)
    row = nova.add(2)
    assert schedule(manager, [1, 2]) == ["compute2"]
    row.figures["num_io_ops"], row.updated_at = -1, later(1)
    assert schedule(manager, [1, 2]) == ["compute1"]


def test_a_message_does_not_make_a_host_readable(nova: Nova, manager: Any) -> None:
    row = nova.add(1)
    assert schedule(manager, [1]) == ["compute1"]
    row.figures["num_io_ops"], row.updated_at = -1, later(1)
    nova.host_manager._instance_info["compute1"] = {"updated": True, "instances": {instance_uuid(9): None}}
    manager.update_instance_info(None, "compute1", None)
    assert schedule(manager, [1]) == schedule(manager, [1]) == ["stock"]


def test_two_nodes_of_one_name_fail_nothing(nova: Nova, manager: Any) -> None:
    nova.add(1, host="before", nodename="node")
    nova.add(2, host="renamed", nodename="node")
    nova.add(3, free_ram_mb=1000)
    assert schedule(manager, [2, 3]) == ["renamed"]
    assert nova.stock_calls == 0


# claims


def test_a_claim_that_placement_refuses_has_the_next_host_tried(nova: Nova, manager: Any) -> None:
    nova.add(1)
    nova.add(2, free_ram_mb=1000)
    nova.placement.refuses = {node_uuid(1)}
    assert schedule(manager, [1, 2]) == ["compute2"]
    assert nova.placement.tried == [node_uuid(1), node_uuid(2)]


def test_an_exception_of_a_claim_is_the_answer_and_no_failure_of_hostler(nova: Nova, manager: Any) -> None:
    nova.add(1)
    nova.placement.raises[instance_uuid(1)] = AllocationUpdateFailed("changed by another process")
    with pytest.raises(AllocationUpdateFailed, match="another process"):
        schedule(manager, [1])
    assert nova.stock_calls == 0
    assert not fallbacks(manager, "exception")


@pytest.mark.parametrize("fallback", ["always", "never"])
def test_claims_of_the_others_are_given_back_where_one_raises(nova: Nova, manager: Any, fallback: str) -> None:
    nova.conf.set_override("fallback", fallback, group="hostler")
    nova.add(1)
    nova.placement.raises[instance_uuid(3)] = AllocationUpdateFailed("changed by another process")
    with pytest.raises(AllocationUpdateFailed):
        schedule(manager, [1], count=3)
    assert nova.placement.claims == {}


def test_what_was_claimed_is_given_back_before_nova_decides(nova: Nova, manager: Any) -> None:
    nova.add(1)

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("after the claims")

    manager._selections = fail
    assert schedule(manager, [1], count=2) == ["stock"]
    assert len(nova.placement.tried) == 2
    assert nova.placement.claims == {}


def test_nova_does_not_choose_where_a_claim_could_not_be_given_back(nova: Nova, manager: Any) -> None:
    nova.add(1)
    nova.placement.reached = False

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("after the claims")

    manager._selections = fail
    with pytest.raises(NoValidHost, match="could not be given back"):
        schedule(manager, [1], count=2)
    assert nova.stock_calls == 0


def test_what_does_not_fit_whole_is_given_back_whole(nova: Nova, manager: Any) -> None:
    nova.add(1)
    nova.placement.refuses = set()
    nova.placement.on_claim = lambda: nova.placement.refuses.update({node_uuid(1)} if nova.placement.claims else ())
    with pytest.raises(NoValidHost, match="not enough hosts"):
        schedule(manager, [1], count=2)
    assert nova.placement.claims == {}


def test_an_evacuee_keeps_what_it_holds_where_the_answer_cannot_be_made(nova: Nova, manager: Any) -> None:
    nova.add(1)
    nova.placement.claims[instance_uuid(1)] = "the source"

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("no answer")

    manager._selections = fail
    assert schedule(manager, [1]) == ["stock"]
    assert nova.placement.claims == {instance_uuid(1): "the source"}


def test_a_restart_of_the_state_between_two_claims_changes_nothing(nova: Nova, manager: Any) -> None:
    nova.add(1)
    nova.add(2, free_ram_mb=1000)
    nova.placement.refuses = {node_uuid(1)}
    nova.placement.on_claim = manager.reset
    assert schedule(manager, [1, 2]) == ["compute2"]
    assert nova.stock_calls == 0


def test_a_filter_that_hostler_does_not_know_leaves_the_request_to_nova(nova: Nova, manager: Any) -> None:
    nova.conf.set_override("enabled_filters", ["NoSuchFilter"], group="filter_scheduler")
    nova.conf.set_override("fallback", "unsupported", group="hostler")
    nova.add(1)
    assert schedule(manager, [1]) == ["stock"]
    assert fallbacks(manager, "policy") == 1


def test_aggregates_that_a_message_changes_are_read(nova: Nova, manager: Any) -> None:
    nova.add(1)
    schedule(manager, [1])
    nova.host_manager.aggs_by_id[1] = aggregate(1, availability_zone="east")
    nova.host_manager.host_aggregates_map["compute1"] = {1}
    manager._state.tell_aggregates()
    answer = manager._schedule(
        Context(), request_spec(), [instance_uuid(1)], candidates(1), dict.fromkeys(candidates(1)), "1.36", True
    )
    assert answer[0][0].availability_zone == "east"


# beside Nova


def compared(manager: Any, result: str) -> float:
    return float(manager.metrics.value("hostler_shadow_comparisons_total", result=result))


@pytest.fixture
def shadow(nova: Nova, manager: Any) -> Any:
    """The manager in mode shadow, where Nova chooses the first of two hosts and Hostler the second."""
    nova.conf.set_override("mode", "shadow", group="hostler")
    nova.states = [host_state(1, free_ram_mb=1000), host_state(2)]
    return manager


def test_nova_s_answer_is_compared_on_the_state_that_nova_read(nova: Nova, shadow: Any) -> None:
    assert schedule(shadow, [1, 2]) == ["stock"]
    nova.states.reverse()
    assert schedule(shadow, [1, 2]) == ["stock"]
    shadow._shadow.close()
    assert (compared(shadow, "other"), compared(shadow, "same")) == (1, 1)
    assert nova.looks == 0


def test_nova_does_not_wait_for_a_comparison(nova: Nova, shadow: Any) -> None:
    schedule(shadow, [1, 2])
    with shadow._lock:
        assert in_a_thread(lambda: schedule(shadow, [1, 2]))
    shadow._shadow.close()
    assert (compared(shadow, "dropped"), compared(shadow, "other")) == (1, 1)


def test_a_host_that_cannot_be_read_leaves_out_only_comparisons_that_need_it(nova: Nova, shadow: Any) -> None:
    broken = host_state(3, vcpus_total=-1)
    schedule(shadow, [1, 2])
    nova.states.append(broken)
    schedule(shadow, [1, 2, 3])
    nova.states.remove(broken)
    schedule(shadow, [1, 2])
    shadow._shadow.close()
    assert compared(shadow, "other") == 2
    assert fallbacks(shadow, "unreadable_host") == 1
    assert not compared(shadow, "error")


@pytest.mark.parametrize("metric", [{"numa_membw_values": {"0": 10}}, {"value": None}])
def test_a_metric_that_is_no_number_is_left_out(nova: Nova, manager: Any, metric: dict[str, Any]) -> None:
    nova.add(1, metrics=[Versioned(name="numa.membw.current", **metric), Versioned(name="cpu.frequency", value=2)])
    assert schedule(manager, [1]) == ["compute1"]
    assert manager._state.kept.hosts[node_uuid(1)].host.metrics == {"cpu.frequency": 2}
