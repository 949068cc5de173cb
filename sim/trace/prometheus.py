"""What guests use of their vCPUs, by their ids, from range results of Prometheus (``/api/v1/query_range``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ...placement.types.errors import InvalidValue
from .rows import read_text
from .terms import Usage

LABELS: Final = ("instance_uuid", "uuid", "server_id", "vm_id", "id", "domain", "vm", "guest", "name", "instance")
"""Labels that may name a guest, the best first."""


class _Series(msgspec.Struct):
    metric: dict[str, str] = {}
    values: list[tuple[float, str | float]] = []
    value: tuple[float, str | float] | None = None


class _Data(msgspec.Struct, frozen=True):
    result: list[_Series] = []


class _Answer(msgspec.Struct):
    status: str = "success"
    data: _Data = _Data()
    error: str = ""


def read_usage(path: Path) -> Mapping[str, Usage]:
    """The mean and the 95th percentile of each series, as shares of a guest's vCPUs: values up to 1.5 are shares,
    others percent. A series is of the guest that the first of LABELS names which all series have. InvalidValue for
    another file, or whose values cannot be shares."""
    try:
        answer = msgspec.json.decode(read_text(path, field="usage"), type=_Answer)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidValue(f"{path}: no range result of Prometheus: {error}", field="usage") from None
    if answer.status != "success":
        raise InvalidValue(f"{path}: {answer.status}: {answer.error}", field="usage")
    series = answer.data.result
    if not series:
        raise InvalidValue(f"{path}: no series", field="usage")
    label = next((each for each in LABELS if all(each in one.metric for one in series)), None)
    if label is None:
        hint = f"a label of {', '.join(LABELS)}"
        raise InvalidValue(f"{path}: no label that names a guest is in all series", field="usage", hint=hint)
    found = {one.metric[label]: _numbers(path, one) for one in series}
    if len(found) < len(series):
        raise InvalidValue(f"{path}: label {label} is in several series the same", field="usage", hint="sum by it")
    most = max((float(values.max(initial=0.0)) for values in found.values()), default=0.0)
    unit = 1.0 if most <= 1.5 else 0.01
    if most * unit > 100:
        raise InvalidValue(f"{path}: values up to {most:g} are neither shares nor percent of vCPUs", field="usage")
    return {name: _usage(values * unit) for name, values in found.items() if len(values)}


def _numbers(path: Path, one: _Series) -> Any:
    told = one.values or ([one.value] if one.value is not None else [])
    try:
        values = np.array([float(text) for _, text in told], np.float64)
    except ValueError as error:
        raise InvalidValue(f"{path}: {error}", field="usage") from None
    values = values[np.isfinite(values)]
    if np.any(values < 0):
        raise InvalidValue(f"{path}: usage is negative", field="usage", hint="a rate, not a counter that was reset")
    return values


def _usage(values: Any) -> Usage:
    mean = float(values.mean())
    rank = max(0, math.ceil(0.95 * len(values)) - 1)
    return Usage(mean=mean, p95=max(mean, float(np.sort(values)[rank])))
