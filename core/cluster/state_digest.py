"""A digest of a service's whole state: the same for two members that have carried out the same commands, whatever each
of them has loaded from a snapshot or interned in another order."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...placement.persist.arrays import write_arrays
from ..machine.state import ServiceState

_PREFIXES: Final = ("inventory/", "names/", "row/generation", "row/uuid", "host/num_instances", "host/last_seen_up")
_CONSUMERS: Final = ("consumers/uuid", "consumers/row", "consumers/generation")
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


def state_digest(state: ServiceState) -> bytes:
    """The digest, in hexadecimal digits. O(hosts * resource classes + guests)."""
    made = hashlib.blake2b(digest_size=16)
    kept = (
        *(state.engine.sequence, state.engine.seed, state.policy, state.rules, state.tenants, state.usage, state.pools),
        *(state.catalog, state.group_owners, state.requests.content(), state.holds.plain(), state.lives, state.volumes),
        state.region_claims,
        *((state.requests.doubled,) if state.requests.doubled else ()),
    )
    made.update(_encode(kept))
    arrays = write_arrays(state.fleet)
    there = _by_uuid(arrays["consumers/uuid"], arrays["consumers/row"])
    for name, array in sorted(arrays.items()):
        if name.startswith(_PREFIXES) or name in _CONSUMERS:
            made.update(name.encode())
            made.update((array[there] if name in _CONSUMERS else array).tobytes())
    return made.hexdigest().encode()


def _by_uuid(uuids: NDArray[np.uint64], rows: NDArray[np.int32]) -> NDArray[np.intp]:
    """Positions of the consumers that there are, in order of their uuids: what was tried on a fork may have left room
    between them. O(guests log guests)."""
    there = np.flatnonzero(rows >= 0)
    return there[np.lexsort((uuids[there, 1], uuids[there, 0]))]
