"""The decisions of a run in MessagePack, without a Decision for each: what they have in common is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...ext.draws import words
from ...ext.packed_decisions import pack_decisions
from ...ext.tables import format_many
from ..fleet.fleet import Fleet
from ..types.decision import Decision, PackedDecision, Selection
from .context import DecisionContext
from .run import Run

_encode: Final = msgspec.msgpack.Encoder().encode


def _map_of(kind: type[msgspec.Struct]) -> bytes:
    """What stands before the fields of a struct."""
    return bytes([0x80 | len(kind.__struct_fields__)])


def _defaults(kind: type[msgspec.Struct], first: str, last: str) -> bytes:
    """The fields from ``first`` to ``last`` with their defaults."""
    names, kept = kind.__struct_fields__, {}
    for field in msgspec.structs.fields(kind):
        kept[field.name] = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return _fields(**{name: kept[name] for name in names[names.index(first) : names.index(last) + 1]})


def _fields(**values: Any) -> bytes:
    """Fields in their order. O(size)."""
    return b"".join([_encode(each) for field in values.items() for each in field])


_LABELS: Final = (
    _map_of(Decision) + _encode("sequence"),
    _encode("host"),
    _encode("node"),
    _encode("provider_uuid"),
    _encode("allocations") + b"\x81",
)
_SELECTION: Final = _encode("selections") + b"\x91" + _map_of(Selection) + _encode("instance_uuid")
_REST: Final = _defaults(Selection, "parts", "limits") + _defaults(Decision, "refusal", "claims") + _encode("seed")
"""What stands between the allocations of a placement and its seed."""


def pack_run(context: DecisionContext, run: Run) -> Sequence[PackedDecision | None]:
    """The decisions of a run that placed a guest, None for the others. The fleet is as the run left it, but for
    placements. O(requests)."""
    count = len(run.rows)
    if count and run.rows.min() >= 0:
        return _pack(context, run, np.arange(count))
    found: list[PackedDecision | None] = [None] * count
    placed = np.flatnonzero(run.rows >= 0)
    if len(placed):
        for at, packed in zip(placed.tolist(), _pack(context, run, placed), strict=True):
            found[at] = packed
    return found


def _pack(context: DecisionContext, run: Run, placed: NDArray[np.int64]) -> list[PackedDecision]:
    """Those at the positions ``placed``, at least one."""
    fleet, rows, uuids = context.fleet, run.rows[placed], run.uuids[placed]
    store = fleet._change_log.store.row
    classes, sizes = store["class_of"].take(rows).tolist(), run.sizes[placed].tolist()
    places = {number: _place(context, fleet, number) for number in dict.fromkeys(classes)}
    names = fleet.resource_classes
    amounts = {size: _amounts(names, run.resources[size]) for size in dict.fromkeys(sizes)}
    hosts = fleet._service_hosts(rows)
    packed = pack_decisions(
        _LABELS,
        (placed + run.sequence).astype(np.uint64),
        _heads(run, placed),
        [places[number] for number in classes],
        [amounts[size] for size in sizes],
        hosts,
        list(map(fleet._providers.names.get, rows.tolist())),
        uuids,
        fleet._providers.words(rows),
        run.scores[placed],
        words(context.seed, run.sequence, len(run.rows))[placed],
    )
    return list(map(PackedDecision, packed, format_many(uuids), hosts))


def _heads(run: Run, placed: NDArray[np.int64]) -> list[bytes]:
    """What stands between the number and the instance's uuid: the request, and what the stages removed."""
    counts, rankings = run.counts[placed], run.rankings[placed]
    ids = [run.requests[at].request_id for at in placed.tolist()]
    if ids.count(None) == len(ids) and (counts == counts[0]).all() and (rankings == rankings[0]).all():
        return [_head(run, None, int(rankings[0]), counts[0].tolist())] * len(ids)
    known: dict[tuple[Any, ...], bytes] = {}
    heads = []
    for identifier, ranking, own in zip(ids, rankings.tolist(), counts.tolist(), strict=True):
        key = identifier, ranking, *own
        heads.append(known.get(key) or known.setdefault(key, _head(run, identifier, ranking, own)))
    return heads


def _head(run: Run, identifier: str | None, ranking: int, counts: Sequence[int]) -> bytes:
    stages = run.stage_names[ranking]
    mine = counts[: len(stages) + 1]
    removed = dict(zip(stages, mine[1:], strict=True))
    return _fields(request_id=identifier, considered=sum(mine), removed=removed) + _SELECTION


def _place(context: DecisionContext, fleet: Fleet, number: int) -> bytes:
    """What stands between the provider and the weight, for hosts of a class."""
    static = fleet._change_log.classes[number]
    return _fields(cell_uuid=static.cell_uuid, availability_zone=context.zone_of(static)) + _encode("weight")


def _amounts(names: Sequence[str], amounts: Mapping[int, int]) -> bytes:
    """What stands between the provider of the allocations and the seed."""
    return _encode({names[index]: amount for index, amount in amounts.items()}) + _REST
