"""Answers to commands as tenants get them: with the places of what is theirs, and no other host or pool by name."""

from __future__ import annotations

from typing import Any

import msgspec

from ...placement.storage.decision import VolumeDecision, VolumeGroupDecision
from ...placement.storage.pools.backend_names import backend_part
from ...placement.storage.with_guests import JointDecision
from ...placement.types.decision import Decision, Refusal
from ..region_commands import on_behalf_of
from ..storage_commands import GroupPlaced, SnapshotPlaced
from ..tenancy.tenants import CLOUD, LOCAL, RANK, Tenants, is_internal
from .orders import OWN_PLACES, Order


def as_told(tenants: Tenants, order: Order, answer: Any) -> Any:
    """An answer as the user who gave the order, or for whom a parent of regions recorded it, gets it. O(answer)."""
    user = on_behalf_of(order.command, order.user)
    if user == LOCAL or order.rules < OWN_PLACES or is_internal(user):
        return answer
    return answer if tenants.role(user, CLOUD) >= RANK["reader"] else as_tenants_see(answer)


def as_tenants_see(answer: Any) -> Any:
    """An answer without the host or pool that a refusal names as the nearest one, and without the pools of other
    backends in the order for a volume group. O(pools in it)."""
    match answer:
        case Decision() | VolumeDecision():
            return _decision(answer)
        case SnapshotPlaced(decision=decision):
            return _with(answer, decision=_decision(decision))
        case GroupPlaced(decision=decision):
            mine = tuple(each for each in decision.order if backend_part(each[0]) == decision.backend)
            return _with(answer, decision=_with(_decision(decision), order=mine))
        case JointDecision(guest=guest, refusal=refusal):
            return _with(
                answer,
                guest=None if guest is None else _decision(guest),
                refusal=None if refusal is None else without_places(refusal),
            )
    return answer


def _decision(decision: Decision | VolumeDecision | VolumeGroupDecision) -> Any:
    if decision.refusal is None or decision.refusal.host is None:
        return decision
    return _with(decision, refusal=without_places(decision.refusal))


def without_places(refusal: Refusal) -> Refusal:
    """A refusal without the host or pool that came nearest, and without a hint that names it."""
    if refusal.host is None:
        return refusal
    hint = None if refusal.hint is None or refusal.host in refusal.hint else refusal.hint
    return msgspec.structs.replace(refusal, host=None, hint=hint)


def _with(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)
