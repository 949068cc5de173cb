"""Garbage collections during a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hostler.sim.run.older_objects import spared


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """The tests have their own objects frozen."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if frozen:
        gc.freeze()


def test_older_objects_are_left_out_within_alone() -> None:
    with spared():
        assert gc.get_freeze_count() > 0
        with spared():
            pass
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_older_objects_are_collected_again_after_a_run_that_was_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt), spared():
        raise KeyboardInterrupt
    assert gc.get_freeze_count() == 0


def test_what_others_have_frozen_stays_so() -> None:
    gc.freeze()
    with spared():
        pass
    assert gc.get_freeze_count() > 0
