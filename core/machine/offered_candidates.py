"""Guests placed among allocation candidates that came with the request."""

from __future__ import annotations

import msgspec

from ...placement.types.decision import Decision
from ..engine_commands import PlaceCandidates
from ..errors import DEPENDS_ON_COMMAND
from .guest_claims import claimed_before
from .placing import unexpected
from .state import ServiceState


def place_candidates(state: ServiceState, command: PlaceCandidates, now: float) -> Decision:
    """Place a request, within the quotas of its project: what the chosen candidates say is counted, whatever the flavor
    has. HostlerError, with nothing changed, if it is refused for another reason than that no host passes."""
    asked, engine = command.request, state.engine
    known = claimed_before(state, asked) if asked.claim else None
    if known is not None:
        return known
    request = state.request(asked, now)
    history, sequence = state.fleet._history, engine.sequence
    start = history.hold()
    try:
        decision = engine.place_candidates(request, msgspec.to_builtins(command.candidates))
        uuids = [each.instance_uuid for each in decision.selections]
        held = state.holdings(uuids) if uuids else []
        for project, amounts in held:
            state.usage.check(state.tenants, project, amounts)
    except BaseException as error:
        history.go(start)
        engine.sequence = sequence
        if isinstance(error, DEPENDS_ON_COMMAND):
            raise unexpected() from None
        raise
    for project, amounts in held:
        state.usage.add(state.tenants, project, amounts)
    if uuids:
        state.requests.keep(uuids, state.kept_spec(asked))
        state.requests.claim(uuids, asked.claim)
    return decision


__all__ = ["place_candidates"]
