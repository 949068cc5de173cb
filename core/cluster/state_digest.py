"""A digest of a service's whole state: the same for two members that have carried out the same commands, whatever each
of them has loaded from a snapshot or interned in another order."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

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
    for name, array in sorted(write_arrays(state.fleet).items()):
        if name.startswith(_PREFIXES) or name in _CONSUMERS:
            made.update(name.encode())
            made.update(array.tobytes())
    return made.hexdigest().encode()
