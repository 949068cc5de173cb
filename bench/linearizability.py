"""Whether a history of concurrent calls is linearizable: could they have been carried out one after the other, each at
some moment between its call and its answer? The search of Wing and Gong with Lowe's memory, as Porcupine does it, for
keys that are there or not; keys are independent, so each is checked alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

NEVER = float("inf")


class Operation(NamedTuple):
    """A call on one key. ``create`` is done where the key is absent, else refused; ``remove`` the other way round;
    ``read`` answers whether it is there. ``result``: done or refused, or what was read; None where there was no answer:
    it may have been carried out at any time since, or never (``ended`` is NEVER then)."""

    kind: Literal["create", "remove", "read"]
    began: float
    ended: float
    result: bool | None


def after(there: bool, operation: Operation) -> set[bool]:
    """Whether the key may be there after an operation; empty where the operation cannot have had its result."""
    kind, result = operation.kind, operation.result
    if kind == "read":
        return {there} if result is None or result == there else set()
    done = there == (kind == "remove")
    if result is not None and result != done:
        return set()
    return {(kind == "create") if done else there}


def linearizable(history: Sequence[Operation], *, there: bool = False) -> set[bool]:
    """Whether the key may be there at the end of a history that began with ``there``; empty if no order of its
    operations explains their results. Exponential in concurrent operations, linear in others."""
    operations = sorted(history, key=lambda each: each.began)
    count = len(operations)
    ends: set[bool] = set()
    seen = {(0, 0, there)}
    waiting = [(0, 0, there)]
    while waiting:
        first, taken, state = waiting.pop()
        # ``first``: all before it are taken; ``taken``: bits of those from it on
        earliest, position, rest_unknown = NEVER, first, True
        while position < count:
            operation = operations[position]
            if operation.began > earliest:
                rest_unknown = False
                break
            bit = 1 << (position - first)
            if not taken & bit:
                earliest = min(earliest, operation.ended)
                rest_unknown = rest_unknown and operation.ended == NEVER
                for next_state in after(state, operation):
                    new_first, new_taken = first, taken | bit
                    while new_taken & 1:
                        new_first, new_taken = new_first + 1, new_taken >> 1
                    found = (new_first, new_taken, next_state)
                    if found not in seen:
                        seen.add(found)
                        waiting.append(found)
            position += 1
        if rest_unknown:
            ends.add(state)  # what is left had no answer, and need not have happened
    return ends
