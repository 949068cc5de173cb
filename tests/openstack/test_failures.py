"""Failures of Hostler inside a stock scheduler: counted by class, each place logged with a traceback once."""

from __future__ import annotations

import logging

import pytest

from hostler.drivers.openstack.failures import PLACES, Failures
from hostler.drivers.openstack.metrics import Metrics


def raised(kind: type[Exception], text: str = "lost") -> Exception:
    try:
        raise kind(text)
    except Exception as error:
        return error


def elsewhere() -> Exception:
    try:
        raise KeyError("lost")
    except KeyError as error:
        return error


def tracebacks(log: pytest.LogCaptureFixture) -> int:
    return sum(record.exc_info is not None for record in log.records)


def test_failures_are_counted_by_class() -> None:
    metrics = Metrics()
    failures = Failures(metrics)
    for kind in (KeyError, KeyError, ValueError):
        assert failures.note(raised(kind), "choosing a host") == kind.__name__
    assert metrics.value("hostler_failures_total", error="KeyError") == 2
    assert metrics.value("hostler_failures_total", error="ValueError") == 1


def test_each_place_is_logged_with_a_traceback_once(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(Metrics())
    for _ in range(3):
        failures.note(raised(KeyError), "choosing a host")
    assert tracebacks(caplog) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING, logging.WARNING]
    assert "choosing a host failed again: KeyError: 'lost'" in caplog.text
    failures.note(raised(ValueError), "choosing a host")
    failures.note(elsewhere(), "choosing a host")
    assert tracebacks(caplog) == 3


def test_the_places_that_are_told_apart_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(Metrics())
    for number in range(PLACES + 10):
        failures.note(raised(type(f"Error{number}", (Exception,), {})), "choosing a host")
    assert tracebacks(caplog) == PLACES
