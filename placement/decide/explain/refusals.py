"""Refusals: why nothing was placed, in one sentence, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...request.host_selection import names_hosts
from ...types.decision import Decision, Refusal, RefusalCode
from ...types.request import Request
from ..scan import Ranked, Scan
from ..signature import AGGREGATES, CANDIDATES, CELL, COMPUTE_STATUS, GROUP_FILTERS, SELECTION, TRAITS
from .counterfactuals import near_misses
from .empty import fits_empty

CLAIM: Final = "claim"
"""Stage of a refusal of hosts that pass."""
_STAGE_WORDS: Final = {
    CELL: "in another cell",
    COMPUTE_STATUS: "with a disabled compute service",
    TRAITS: "without the traits asked for",
    AGGREGATES: "outside the aggregates asked for",
    CANDIDATES: "without an allocation candidate",
    SELECTION: "not among the hosts named",
}


def refusal(request: Request, ranked: Ranked, placed: int) -> Refusal:
    """Why nothing was placed, with what would help; ``placed`` of several instances had found a host. O(stages *
    hosts)."""
    if len(ranked.rows):
        return _unclaimed(request, ranked, placed)
    assert ranked.scan is not None
    every = ranked.scan.considers_all
    return no_valid_host(ranked.scan, ranked.removed, len(ranked.considered), None if every else ranked.considered)


def no_valid_host(
    scan: Scan, removed: Mapping[str, int], considered: int, rows: NDArray[np.int32] | None = None
) -> Refusal:
    """Why no host passes, with what would help. ``removed``: how many of the ``considered`` hosts each stage removed;
    ``rows``: which hosts these are, None for all. O(stages * hosts) in the kernel."""
    scan.signature.refresh()  # it may have been compiled for the advice alone
    changes = near_misses(scan, rows)
    empty = fits_empty(scan, rows) if considered else None
    stage = main_stage(removed)
    first = changes[0] if changes else None
    amount = first if first is not None and first.resource is not None else None
    return Refusal(
        sentence=_sentence(removed, considered),
        stage=stage,
        hint=first.text if first is not None else _hint_without_hosts(considered),
        code="no_hosts" if considered == 0 else code_of(empty),
        removed=removed,
        resource=_resource(stage) if amount is None else amount.resource,
        asked=None if amount is None else amount.asked,
        nearest=None if amount is None else amount.nearest,
        host=None if first is None else first.host,
        cut=None if amount is None else amount.cut,
        fits_empty=empty,
    )


def refused(scan: Scan, removed: dict[str, int], considered: int) -> Decision:
    """The decision on a request that no host passes, whose counts are known. O(stages * hosts) in the kernel; O(stages)
    where the same was refused before and nothing has changed since."""
    context = scan.context
    return Decision(
        seed=context.decision_seed(),
        sequence=context.next_sequence(),
        request_id=scan.request.request_id,
        considered=considered,
        removed=removed,
        refusal=_known(scan, removed, considered),
    )


def _known(scan: Scan, removed: dict[str, int], considered: int) -> Refusal:
    """``no_valid_host`` for all hosts, worked out once for a spec while nothing changes."""
    fleet, request, signature = scan.fleet, scan.request, scan.signature
    selecting = any(stage.name not in GROUP_FILTERS for stage in signature.selections)
    if selecting or request.server_group is not None or names_hosts(request.spec) or scan.context.compiled.custom:
        return no_valid_host(scan, removed, considered)
    asker = request.project_id, request.user_id
    known = signature.refusals.find(fleet, asker, request.spec)
    if known is None or known.removed != removed:
        known = no_valid_host(scan, removed, considered)
        signature.refusals.keep(fleet, asker, request.spec, known)
    return msgspec.structs.replace(known, removed=removed)


def advised(scan: Scan, decision: Decision) -> Decision:
    """A refusal from the counts alone (``quick_refusal``), with what would help as the fleet is now. O(stages * hosts)
    in the kernel; O(stages) where the same was refused before and nothing has changed since."""
    refusal = _known(scan, dict(decision.removed), decision.considered)
    return msgspec.structs.replace(decision, refusal=refusal)


def code_of(empty: bool | None) -> RefusalCode:
    """The code of a refusal by hosts, by whether one would pass if it were empty."""
    return "refused" if empty is None else "full" if empty else "impossible"


def quick_refusal(removed: Mapping[str, int], considered: int) -> Refusal:
    """Why nothing was placed, from the counts alone. O(stages)."""
    stage = main_stage(removed)
    return Refusal(
        sentence=_sentence(removed, considered),
        stage=stage,
        hint="explain the request for every host's reason",
        code="refused" if considered else "no_hosts",
        removed=removed,
        resource=_resource(stage),
    )


def _resource(stage: str) -> str | None:
    """The resource class that a stage judges: such a stage has its name."""
    return stage if stage.isupper() else None


def _unclaimed(request: Request, ranked: Ranked, placed: int) -> Refusal:
    passing, wanted = len(ranked.rows), len(request.instance_uuids)
    hosts = f"{passing} host passes" if passing == 1 else f"{passing} hosts pass"
    if placed:
        hint = f"ask for {placed} {'instance' if placed == 1 else 'instances'}, or free capacity"
        sentence = f"{hosts}, but only {placed} of {wanted} instances fit"
        return Refusal(sentence=sentence, stage=CLAIM, hint=hint, code="too_few", removed=ranked.removed)
    candidates = ranked.scan.candidates if ranked.scan is not None else None
    claimable = candidates is None or any(candidates[int(row)] for row in ranked.rows)
    hint = "try again" if claimable else "give allocation requests for hosts that pass"
    sentence = f"{hosts}, but none could be claimed"
    return Refusal(sentence=sentence, stage=CLAIM, hint=hint, code="unclaimed", removed=ranked.removed)


def _hint_without_hosts(considered: int) -> str | None:
    return "add hosts" if considered == 0 else None


def main_stage(removed: Mapping[str, int]) -> str:
    """The stage that removed most hosts, the first of equals. O(stages)."""
    return max(removed, key=lambda name: removed[name], default=SELECTION)


def _sentence(removed: Mapping[str, int], considered: int) -> str:
    if considered == 0:
        return "No valid host was found: there are no hosts"
    parts = [_share(count, name) for name, count in removed.items() if count]
    return f"No valid host was found: of {considered} hosts, {', '.join(parts)}" if parts else "No valid host was found"


def _share(count: int, stage: str) -> str:
    """How many hosts a stage removed, in words."""
    if stage in _STAGE_WORDS:
        return f"{count} {_STAGE_WORDS[stage]}"
    return f"{count} without enough {stage}" if stage.isupper() else f"{count} refused by {stage}"
