"""Storage pools as named arrays, and back, for the file of a fleet."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..storage.pools.columns import NAMES
from ..storage.pools.pools import Figures
from ..storage.pools.reports import Backend, BackendReport, PoolFacts, VolumeService, check_report, facts_of
from ..storage.pools.volumes import Volume
from ..types.errors import InvalidValue

if TYPE_CHECKING:
    from ..storage.pools.pools import Pools

Arrays = dict[str, NDArray[Any]]
_VALUES: Final = "pools/values"
_BLOCK: Final = "pools/figures"
_TEXT: Final = msgspec.json.Encoder(order="deterministic")
_EPOCH: Final = datetime.datetime(1970, 1, 1)


class Fact(msgspec.Struct, array_like=True):
    """One row: its backend, name and zone, and its reports (the one its capacities come from, and the latest) with
    times."""

    backend: str
    name: str
    zone: str
    reported: dict[str, Any]
    reported_at: float | None
    capabilities: dict[str, Any] | None
    capabilities_at: float | None


class Values(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything except capacities."""

    rows: int
    now: float
    default_ratio: str
    services: list[VolumeService]
    reports: list[tuple[str, BackendReport]]
    backends: list[tuple[str, Backend]]
    facts: list[tuple[int, Fact]]
    volumes: list[Volume]
    aggregates: dict[str, list[str]]
    absent: dict[str, Figures] = {}


def write_pools(pools: Pools) -> Arrays:
    """The arrays; none for a fleet without storage. InvalidValue for capabilities that are not JSON values. O(pools +
    volumes)."""
    if not pools.services and not pools.volumes and not pools.aggregates:
        return {}
    values = Values(
        rows=pools.columns.rows,
        now=pools.now,
        default_ratio=pools.default_ratio,
        services=list(pools.services.values()),
        reports=list(pools.reports.items()),
        backends=list(pools.backends.items()),
        facts=[(row, _fact(facts)) for row, facts in enumerate(pools.facts) if facts is not None],
        volumes=list(pools.volumes.values()),
        aggregates={host: sorted(uuids) for host, uuids in pools.aggregates.items()},
        absent=dict(pools.absent),
    )
    try:
        text = _TEXT.encode(values)
        fine = msgspec.json.decode(text, type=Values) == values
    except (TypeError, ValueError, msgspec.MsgspecError):
        fine = False
    if not fine:
        problem = "a storage backend reports capabilities that cannot be saved: only JSON values can"
        raise InvalidValue(problem, field="capabilities")
    block = pools.columns.block[: len(NAMES), : pools.columns.rows]
    return {_VALUES: np.frombuffer(text, np.uint8), _BLOCK: np.ascontiguousarray(block).reshape(-1)}


def _fact(facts: PoolFacts) -> Fact:
    reported, reported_at = _without_time(facts.reported)
    same = facts.capabilities is facts.reported
    capabilities, capabilities_at = (None, None) if same else _without_time(facts.capabilities)
    name, zone = facts.pool_name, facts.availability_zone
    return Fact(facts.backend_key, name, zone, reported, reported_at, capabilities, capabilities_at)


def _without_time(capabilities: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    """Capabilities without the time of their report, and the time."""
    plain = {name: value for name, value in capabilities.items() if name != "timestamp"}
    stamp = capabilities.get("timestamp")
    return plain, None if stamp is None else (stamp - _EPOCH).total_seconds()


def _with_time(capabilities: dict[str, Any], at: float | None) -> dict[str, Any]:
    return capabilities if at is None else {**capabilities, "timestamp": _EPOCH + datetime.timedelta(seconds=at)}


def read_pools(pools: Pools, arrays: Arrays) -> None:
    """Fill the pools of a new fleet from ``arrays``, consuming its part of them. ValueError or msgspec's errors for
    inconsistent input. O(pools + volumes)."""
    if _VALUES not in arrays:
        return
    values = msgspec.json.decode(arrays.pop(_VALUES).tobytes(), type=Values)
    block = arrays.pop(_BLOCK).reshape(len(NAMES), values.rows)
    if block.dtype != np.float64:
        raise ValueError("capacities of pools are malformed")
    pools.now, pools.default_ratio = values.now, values.default_ratio
    pools.services.update({service.host: service for service in values.services})
    pools.reports.update({key: check_report(report) for key, report in values.reports})
    for key, backend in values.backends:
        # The text has names in alphabetical order; the order of the pools is that of their rows.
        in_order = dict(sorted(backend.pools.items(), key=itemgetter(1)))
        pools.backends[key] = replace(backend, pools=in_order)
    pools.aggregates.update({host: frozenset(uuids) for host, uuids in values.aggregates.items()})
    pools.absent.update(values.absent)
    for volume in values.volumes:
        pools.volumes.check_new(volume.volume_id)
        pools.volumes.put(volume.volume_id, volume)
    facts: list[PoolFacts | None] = [None] * values.rows
    for row, fact in values.facts:
        if facts[row] is not None or row < 0:
            raise ValueError("two pools have one row")
        facts[row] = _read_fact(pools, fact)
    pools.restore(block, facts)
    try:
        pools.check()
    except AssertionError as error:
        raise ValueError(f"storage pools: {error}") from None


def _read_fact(pools: Pools, fact: Fact) -> PoolFacts:
    reported = _with_time(fact.reported, fact.reported_at)
    facts, _ = facts_of(fact.name, pools.backends[fact.backend], fact.zone, reported, pools.default_ratio)
    if fact.capabilities is None:
        return facts
    return facts.with_capabilities(_with_time(fact.capabilities, fact.capabilities_at))
