"""Shadow mode: what stock chose beside Hostler's choice on the same state, counted up to ties and explained."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from hostler.drivers.openstack.agreement import compare
from hostler.drivers.openstack.failures import Failures
from hostler.drivers.openstack.metrics import Metrics
from hostler.drivers.openstack.nova.shadow import WAITING, Case, Shadow

from .nova_objects import candidates, host_state, node_uuid
from .test_kept_fleet import asked, kept_fleet

WEIGHTS = {"a": 2.0, "b": 2.0 - 1e-12, "c": 1.0}


@pytest.mark.parametrize(
    ("weights", "chosen", "result"),
    [
        (WEIGHTS, "a", "same"),
        (WEIGHTS, "b", "tie"),
        (WEIGHTS, "c", "other"),
        (WEIGHTS, "d", "refused_here"),
        (WEIGHTS, None, "refused_there"),
        ({}, None, "both_refused"),
        ({}, "a", "refused_here"),
    ],
)
def test_answers_are_equal_up_to_ties(weights: dict[str, float], chosen: str | None, result: str) -> None:
    compared = compare(weights, chosen)
    assert compared.result == result
    assert compared.agrees == (result in ("same", "tie", "both_refused"))


def test_a_choice_at_random_among_the_best_agrees_with_any_of_them() -> None:
    assert compare({"a": 3.0, "b": 2.0, "c": 1.0}, "b", among=2).agrees
    assert not compare({"a": 3.0, "b": 2.0, "c": 1.0}, "c", among=2).agrees
    assert compare({"a": 3.0}, "a", among=5).agrees


def case(chosen: int | None, *numbers: int) -> Case:
    kept = kept_fleet(host_state(1, free_ram_mb=1000), host_state(2), host_state(3, service={"disabled": True}))
    uuid = None if chosen is None else node_uuid(chosen)
    return Case(kept.engine.fork(), asked(), kept.candidates(kept.hosts, candidates(*numbers or (1, 2, 3))), uuid)


def shadow() -> tuple[Shadow, Metrics]:
    metrics = Metrics()
    return Shadow(threading.RLock(), metrics, Failures(metrics), log_differences=True), metrics


def count(metrics: Metrics, result: str) -> float:
    return metrics.value("hostler_shadow_comparisons_total", result=result)


def test_agreement_is_counted_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    compared, metrics = shadow()
    compared.submit(case(2))
    compared.close()
    assert count(metrics, "same") == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("chosen", "result", "said"),
    [
        (1, "other", ["stock chose compute1 of weight", "RAMWeigher", "Hostler chose compute2 of weight"]),
        (3, "refused_here", ["stock chose compute3, which ComputeFilter refuses here", "Hostler chose compute2"]),
        (None, "refused_there", ["stock found no host", "Hostler chose compute2"]),
        (9, "refused_here", ["which is no candidate here"]),
    ],
)
def test_a_difference_is_logged_with_both_reasons(
    chosen: int | None, result: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    compared, metrics = shadow()
    with caplog.at_level(logging.WARNING):
        compared.submit(case(chosen))
        compared.close()
    assert count(metrics, result) == 1
    (record,) = caplog.records
    for text in said:
        assert text in record.getMessage()


def test_the_state_is_that_of_the_moment_of_the_answer() -> None:
    kept = kept_fleet(host_state(1, free_ram_mb=1000), host_state(2))
    given = Case(kept.engine.fork(), asked(), kept.candidates(kept.hosts, candidates(1, 2)), node_uuid(2))
    kept.update([], gone=[node_uuid(2)])
    compared, metrics = shadow()
    compared.submit(given)
    compared.close()
    assert count(metrics, "same") == 1


def test_a_comparison_that_fails_is_counted_and_the_next_is_made() -> None:
    compared, metrics = shadow()
    broken: Any = Case(case(2).engine, None, {}, None)  # type: ignore[arg-type]  # what must not end the thread
    compared.submit(broken)
    compared.submit(case(2))
    compared.close()
    assert (count(metrics, "error"), count(metrics, "same")) == (1, 1)


def test_comparisons_that_would_wait_too_long_are_dropped() -> None:
    lock, metrics = threading.RLock(), Metrics()
    compared, one = Shadow(lock, metrics, Failures(metrics), log_differences=False), case(2)
    with lock:
        for _ in range(WAITING + 5):
            compared.submit(one)
    compared.close()
    dropped = count(metrics, "dropped")
    assert dropped >= 4
    assert dropped + count(metrics, "same") == WAITING + 5


def test_metrics_are_served_on_the_first_free_port() -> None:
    import socket
    import urllib.request

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        metrics = Metrics()
        metrics.fallbacks.labels("error").inc()
        server, thread = metrics.serve("127.0.0.1", taken.getsockname()[1])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
                assert 'hostler_fallbacks_total{reason="error"} 1.0' in answer.read().decode()
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
