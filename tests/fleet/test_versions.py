"""Whatever is done to a fleet, its invariants hold, and every version that is held can be returned to, bit for bit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.fleet import Fleet

from .commands import Commands
from .dump import dump

NAMES = sorted(
    name
    for name in vars(Commands)
    if not name.startswith("_") and name not in {"do", "name", "guest", "known", "extras"}
)
COMMAND = st.tuples(st.sampled_from(NAMES), *[st.integers(0, 60)] * 3)


@pytest.mark.property
@given(st.lists(COMMAND, max_size=25))
@settings(max_examples=80, deadline=None)
def test_invariants_hold_after_every_command(history: list[tuple[str, int, int, int]]) -> None:
    fleet = Fleet(seed=1)
    commands = Commands(fleet)
    for command in history:
        commands.do(command)
        fleet.check()


@pytest.mark.property
@given(st.lists(st.one_of(COMMAND, st.just("hold"), st.integers(0, 9)), max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_every_held_version_is_returned_to_exactly(history: list[object], shuffle: object) -> None:
    fleet = Fleet(seed=1)
    commands = Commands(fleet)
    held = []
    for step in history:
        if isinstance(step, tuple):
            commands.do(step)
        elif step == "hold":
            held.append((fleet.history.hold(), dump(fleet)))
        elif held:
            version, known = held[int(str(step)) % len(held)]
            fleet.history.go(version)
            assert _differences(fleet, known) == []
    for version, known in (*held, *reversed(held)):
        fleet.history.go(version)
        assert _differences(fleet, known) == []
        fleet.check()


def _differences(fleet: Fleet, known: dict[str, object]) -> list[str]:
    """What differs from a dump. The time is an engine's own, and with it which services are up."""
    now = dump(fleet)
    return [key for key in known if key not in ("now", "columns") and now[key] != known[key]]
