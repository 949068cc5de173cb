"""Guests placed among allocation candidates that came with the request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

import msgspec

from ...placement.decide.offered import LOOKED_AT
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError
from ...placement.types.steps import in_pieces
from ..engine_commands import PlaceCandidates
from ..errors import DEPENDS_ON_COMMAND, StateUnknown, checked_outcome
from ..tenancy.usage import INSTANCES
from .guest_claims import claimed_before
from .placing import unexpected
from .state import ServiceState


def place_candidates(state: ServiceState, command: PlaceCandidates, now: float) -> Generator[None, None, Decision]:
    """Place a request, within the quotas of its project: what the chosen candidates say is counted, whatever the flavor
    has. HostlerError, with nothing changed, if it is refused for another reason than that no host passes. In steps,
    between which nothing has changed."""
    asked, project = command.request, command.request.project_id
    known = claimed_before(state, asked) if asked.claim else None
    if known is not None:
        return known
    request = state.request(asked, now)
    candidates = yield from _plain(command)

    def check(decision: Decision) -> None:
        if decision.selections:
            state.usage.check(state.tenants, project, _held(decision))

    try:
        decision = yield from state.engine.place_candidates_in_steps(request, candidates, check)
    except (HostlerError, *DEPENDS_ON_COMMAND) as error:
        checked_outcome(error)
        if isinstance(error, HostlerError):
            raise
        raise unexpected() from None
    if decision.selections:
        uuids = [each.instance_uuid for each in decision.selections]
        try:
            state.usage.add(state.tenants, project, _held(decision))
            state.requests.keep(uuids, state.kept_spec(asked))
            state.requests.claim(uuids, asked.claim)
        except Exception as error:
            raise StateUnknown("guests were placed and not counted") from error
    return decision


def _plain(command: PlaceCandidates) -> Generator[None, None, dict[str, list[Any]]]:
    """The candidates as Placement's API gives them. O(candidates), in steps."""
    plain, made = dict[str, list[Any]](), 0
    for provider, given in command.candidates.items():
        each = plain[provider] = []
        for some in in_pieces(given, LOOKED_AT):
            if made + len(some) > LOOKED_AT:
                yield
                made = 0
            made += len(some)
            each += msgspec.to_builtins(some)
    return plain


def _held(decision: Decision) -> Counter[str]:
    """What the guests of a decision hold, with ``instances``."""
    held = Counter({INSTANCES: len(decision.selections)})
    for selection in decision.selections:
        for resources in selection.allocations.values():
            held.update(resources)
    return held


__all__ = ["place_candidates"]
