"""The policies that orders carry, as they were meant by the release that gave them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...placement.filters.resource_pools import ResourcePoolFilter
from ...placement.policy.policy import HostlerOptions, Policy
from ...placement.storage.pools.policy import VolumePolicy
from ...placement.types.errors import HostlerError, InvalidValue
from ...placement.types.options import NumaOptions

STORAGE: Final = "storage"

PolicyValues = dict[str, dict[str, Any]]
"""Group -> option -> value, as ``Policy.from_mapping`` reads it."""

FIRST_RELEASE: Final[Mapping[str, Mapping[str, Any]]] = {
    "hostler": {"prepare": False, "nova_release": "33", "forbid_disabled": False},
    "numa": {"fit": "exact"},
}
"""Options that commands of release 0.1 do not carry, and the values by which those were decided."""


def with_present_defaults(values: Mapping[str, Mapping[str, Any]]) -> PolicyValues:
    """A policy that names every option whose default is another than release 0.1 decided by: what a journal keeps, so
    that a replay decides the same whatever the defaults have become."""
    if not values:
        return {}
    own = HostlerOptions()
    present: dict[str, dict[str, Any]] = {
        "hostler": {
            "prepare": own.prepare,
            "nova_release": own.nova_release,
            "forbid_disabled": own.forbid_disabled,
        },
        "numa": {"fit": NumaOptions().fit},
    }
    return _under(values, present)


def _under(values: Mapping[str, Mapping[str, Any]], options: Mapping[str, Mapping[str, Any]]) -> PolicyValues:
    """``values``, with ``options`` for what they leave out. A value that should be a table but is not is refused by the
    reader of the policy, not here."""
    if not isinstance(values, Mapping):
        return values
    made: dict[str, Any] = dict(values)
    for name, group in options.items():
        given = made.get(name, {})
        made[name] = {**group, **given} if isinstance(given, Mapping) else given
    return made


def service_policy(values: Mapping[str, Mapping[str, Any]], rules: int = 1) -> Policy:
    """A policy with the filter that resource pools need, as a command has it. Without values nothing was configured,
    and the defaults of the release that wrote the order hold: release 0.1 for ``rules`` 0. Errors as
    ``Policy.from_mapping``'s."""
    if values or not rules:
        values = _under(values, FIRST_RELEASE)
    try:
        content = msgspec.json.encode(values, order="deterministic")
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidValue(f"the policy is not plain: {error}", field="policy") from None
    found: Policy = _policy(content)
    return found


@functools.lru_cache(maxsize=8)
def _policy(content: bytes) -> Policy:
    """Cached: finding installed rules is the slowest part."""
    return Policy.from_mapping(msgspec.json.decode(content), filters=(ResourcePoolFilter,))


def storage_policy(values: Mapping[str, Mapping[str, Any]]) -> VolumePolicy:
    """The policy that decides about volumes: the table ``storage``. Errors as ``VolumePolicy.from_mapping``'s."""
    return VolumePolicy.from_mapping({STORAGE: values[STORAGE]} if STORAGE in values else {})


def without_bad_storage(values: PolicyValues) -> PolicyValues:
    """A policy of a journal before volumes were part of the service, when its table ``storage`` was not read: without
    the table if it is malformed."""
    try:
        storage_policy(values)
    except HostlerError:
        return {name: group for name, group in values.items() if name != STORAGE}
    return values
