"""Tests of Nova's and Cinder's own pass with Hostler's classes in them, in environments made from PyPI."""

from __future__ import annotations

import pytest

from hostler.bench import cinder_life, cinder_unit, nova_functional
from hostler.bench.environments import ServiceUnavailable, kept, ready

pytestmark = pytest.mark.soak
STOCK_INSIDE = {
    "test_aggregates.TestAggregateMultiTenancyIsolationFilter.test_aggregate_multitenancy_isolation_filter",
    "test_server_group.ServerGroupTestV264.test_failed_count_with_affinity_violation",
    "test_server_group.ServerGroupTestV264.test_failed_count_with_anti_affinity_violation",
}
"""Tests that replace or read methods of the stock scheduler, which Hostler does not call."""


@pytest.mark.parametrize("release", ["33.0.2", "34.0.0"])
@pytest.mark.parametrize("name", ["smoke", "groups", "aggregates", "moves"])
def test_nova_s_functional_tests_pass_without_a_fallback(release: str, name: str) -> None:
    try:
        python = nova_functional.environment_of(release, None)
    except ServiceUnavailable as error:
        pytest.skip(str(error))
    tests = [nova_functional.TESTS + module for module in nova_functional.SETS[name]]
    outcome = nova_functional.run(python, name, "live", "never", tests)
    assert {test.removeprefix(nova_functional.TESTS) for test in outcome.failed} <= STOCK_INSIDE
    assert not any("decided_by=nova" in metric for metric in outcome.metrics)


def test_cinder_s_scheduler_tests_pass_without_a_fallback() -> None:
    try:
        python = ready(kept("cinder-unit-29.0.0"), ["cinder==29.0.0", *cinder_unit.PACKAGES])
    except ServiceUnavailable as error:
        pytest.skip(str(error))
    tests = [cinder_unit.TESTS + test for test in cinder_unit.DEFAULT]
    outcome = nova_functional.run(python, "scheduler", "live", "never", tests, driver=cinder_unit.DRIVER)
    assert not outcome.failed
    assert not any("decided_by=cinder" in metric for metric in outcome.metrics)


def test_a_cinder_scheduler_answers_with_hostler_s_class_as_with_its_own() -> None:
    ended = cinder_life.command(creates=30)
    if ended == 3:
        pytest.skip("there is no RabbitMQ, PostgreSQL or PyPI")
    assert ended == 0
