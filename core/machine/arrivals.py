"""Guests that come with hosts: added with them, or told by a report. They are charged to their projects like others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from itertools import chain, compress
from typing import Final, TypeVar

from ...placement.load.bulk import all_or_nothing
from ...placement.load.replacement import shrink_tables
from ...placement.types.errors import InvalidValue
from ...placement.types.host import Host
from ...placement.types.steps import in_pieces
from .orders import CHARGING_REPORTED
from .state import ServiceState

Answer = TypeVar("Answer")
Charged = Generator[None, None, Answer]
COUNTED: Final = 400
"""Guests that are counted in one step."""


def unknown(state: ServiceState, hosts: Iterable[Host]) -> list[str]:
    """Uuids of the guests of hosts that the fleet does not know; none where a uuid is malformed, which is refused, or
    under rules that did not charge them. O(guests)."""
    if state.rules < CHARGING_REPORTED:
        return []
    uuids = list(chain.from_iterable(host.instances for host in hosts))
    try:
        return list(compress(uuids, (state.fleet._consumers.find(uuids) < 0).tolist())) if uuids else []
    except InvalidValue:
        return []


def charged(state: ServiceState, steps: Generator[None, None, Answer], uuids: Sequence[str]) -> Charged[Answer]:
    """What the steps return by which guests may come, once those that have come are counted, in steps too; all or
    none. O(guests)."""
    if not uuids:
        return (yield from steps)
    with all_or_nothing(state.fleet):
        answer = yield from steps
        held = yield from _held(state, uuids)
    shrink_tables(state.fleet)  # not while a version is kept for undoing
    for project, amounts in held.items():
        state.usage.add(state.tenants, project, amounts)
    return answer


def _held(state: ServiceState, uuids: Sequence[str]) -> Charged[dict[str, Counter[str]]]:
    """What those that are there hold, by project. A guest counts once, however its uuid is written."""
    held: dict[str, Counter[str]] = {}
    counted = set[int]()
    for some in in_pieces(uuids, COUNTED):
        ids = state.fleet._consumers.find(some).tolist()
        new = {consumer: uuid for uuid, consumer in zip(some, ids, strict=True) if consumer >= 0}
        for project, amounts in state.holdings([uuid for consumer, uuid in new.items() if consumer not in counted]):
            held.setdefault(project, Counter()).update(amounts)
        counted.update(new)
        yield
    return held


__all__ = ["charged", "unknown"]
