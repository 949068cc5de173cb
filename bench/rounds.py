"""pytest-benchmark's call for work that must be prepared anew before every round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def in_rounds(
    benchmark: BenchmarkFixture,
    target: Callable[..., object],
    *arguments: object,
    setup: Callable[[], Arguments | None] | None = None,
    rounds: int = 10,
) -> None:
    """Time ``target`` once a round, with ``arguments`` or with what ``setup`` returns."""
    benchmark.pedantic(target, args=arguments, setup=setup, rounds=rounds)  # type: ignore[no-untyped-call]
