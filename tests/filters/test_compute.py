"""ComputeFilter."""

import pytest

from hostler.placement.filters.base import Bound
from hostler.placement.filters.compute import ComputeFilter
from hostler.placement.types.host import Service

from .values import NOW, build, host, request

TABLE = [
    (Service(), True),
    (Service(last_seen_up=NOW), True),
    (Service(disabled=True, last_seen_up=NOW), False),
    (Service(forced_down=True, last_seen_up=NOW), False),
    (Service(last_seen_up=NOW - 60), True),
    (Service(last_seen_up=NOW - 60.5), False),
    (Service(last_seen_up=NOW + 60), True),
    (Service(last_seen_up=NOW + 61), False),
    (Service(created_at=NOW - 10), True),
    (Service(created_at=NOW - 100), False),
    (Service(last_seen_up=NOW, created_at=NOW - 100), True),
    (Service(last_seen_up=0.0, created_at=NOW), False),
]


@pytest.mark.parametrize(("service", "passes"), TABLE)
def test_a_service_must_be_enabled_and_seen_within_a_minute(service: Service, passes: bool) -> None:
    assert build(ComputeFilter).host_passes(host(service=service), request()) is passes


def test_the_time_without_a_heartbeat_is_configured() -> None:
    late = host(service=Service(last_seen_up=NOW - 7200))
    assert build(ComputeFilter, DEFAULT={"service_down_time": 7200}).host_passes(late, request())


def test_without_a_time_no_heartbeat_is_judged() -> None:
    judge = build(ComputeFilter)
    assert judge.host_passes(host(service=Service(last_seen_up=0.0)), request(now=None))
    assert not judge.host_passes(host(service=Service(disabled=True)), request(now=None))


def test_the_column_form_is_the_fleets_judgement_of_the_service() -> None:
    assert build(ComputeFilter).bounds(request()) == (Bound("service_up", low=1),)


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (Service(disabled=True, disabled_reason="maintenance"), "service disabled: maintenance"),
        (Service(disabled=True), "service disabled: no reason given"),
        (Service(forced_down=True), "service forced down"),
        (
            Service(last_seen_up=NOW - 75),
            "service last seen 75 s from now, more than service_down_time 60 s",
        ),
    ],
)
def test_the_reason_names_what_is_wrong_with_the_service(service: Service, reason: str) -> None:
    assert build(ComputeFilter).reason(host(service=service), request()) == reason
