"""What guests of many shapes with GPUs have an engine keep by row: no more than its bounds, whatever the shapes."""

from __future__ import annotations

import gc
import random

import pytest

from hostler import Request
from hostler.placement.decide import signature_cache
from hostler.placement.fleet.derived_column import RowCache

from .values import engine, spec

MOST = 150
"""Bytes a row, in place of those of the constant."""


@pytest.mark.parametrize("often", [1, 6])
@pytest.mark.parametrize("weigher", ["GpuPackingWeigher", "RAMWeigher"])
def test_what_is_kept_by_row_is_bounded(monkeypatch: pytest.MonkeyPatch, weigher: str, often: int) -> None:
    monkeypatch.setattr(signature_cache, "ROWS_BYTES", 0)
    monkeypatch.setattr(signature_cache, "ROWS_BYTES_PER_HOST", MOST)
    trial = engine([(64, 2, "T4")] * 60, weigher)
    fleet, compiled = trial.fleet, trial._context.compiled
    chance = random.Random(often)
    for first in range(0, 240, 20):
        requests = [Request(spec=spec(1 + number % 5, 1 + number, 1)) for number in range(first, first + 20)]
        # Those that are asked often have a ranking made that judges by all rules, perhaps once they were dropped.
        requests = [each for each in requests for _ in range(often - chance.randrange(min(often, 2)))]
        chance.shuffle(requests)
        trial.release([each.instance_uuid for found in trial.place_many(requests) for each in found.selections])
    most = MOST * fleet._store.capacity
    assert most / 2 < compiled._bytes <= most
    owners = list(compiled.by_content.values())
    assert compiled._bytes == sum(owner.own_bytes for owner in owners)
    rankings = [owner._ranking for owner in owners if owner._ranking is not None]
    gc.collect()
    caches = [each for each in gc.get_objects() if isinstance(each, RowCache) and each.fleet is fleet]
    held = sum(cache.array.nbytes for cache in caches) + sum(each.nbytes for each in rankings if each.held)
    # Those of a few dozen shapes that were dropped lately are freed by and by.
    assert held <= 1.5 * most


def test_eight_shapes_in_turn_keep_what_is_known_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the bytes of a row allow, at 21 each."""
    monkeypatch.setattr(signature_cache, "ROWS_BYTES", 0)
    trial = engine([(640, 2, "T4")] * 316, "GpuPackingWeigher")
    requests, compiled = [Request(spec=spec(1, 100 + number, 1)) for number in range(8)], trial._context.compiled
    for _ in range(2):
        for each in requests:
            trial.place(each)
    owners = list(compiled.by_content.values())
    for each in requests:
        trial.place(each)
    assert all(one is other for one, other in zip(compiled.by_content.values(), owners, strict=True))
    assert compiled._bytes > 0.8 * signature_cache.ROWS_BYTES_PER_HOST * trial.fleet._store.capacity
