"""What instances were asked with, as one array of a fleet's file: each spec once, in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..types.request import RequestSpec

REQUESTS: Final = "requests"
"""Name of the array."""


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    """``of``: instance uuid -> position in ``specs``."""

    specs: list[RequestSpec]
    of: dict[str, int]


def write_requests(requests: Mapping[str, RequestSpec]) -> NDArray[np.uint8]:
    """The array of requests by instance uuid. O(requests)."""
    numbers: dict[RequestSpec, int] = {}
    of = {uuid: numbers.setdefault(spec, len(numbers)) for uuid, spec in requests.items()}
    return np.frombuffer(msgspec.json.encode(_Kept(list(numbers), of)), np.uint8)


def read_requests(array: NDArray[Any]) -> dict[str, RequestSpec]:
    """The requests of an array. ValidationError or IndexError if it is malformed. O(requests)."""
    kept = msgspec.json.decode(array.tobytes(), type=_Kept)
    return {uuid: kept.specs[index] for uuid, index in kept.of.items()}
