"""Checks of what ports, device profiles and PCI devices ask for: request groups, request-level parameters, networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ..types.errors import InvalidValue
from ..types.networks import NetworkMetadata
from ..types.request import RequestedNetwork, RequestGroup, RequestLevelParams, RequestSpec
from ..types.validation import shown, whole_number

MOST: Final = 2**31 - 1
"""Greatest amount that Placement takes."""
MOST_GROUPS: Final = 256
"""Request groups that one request may bring."""
LONGEST: Final = 255
_SUFFIX: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_requested(spec: RequestSpec) -> None:
    """Raise InvalidValue, naming the field, unless all of this is well-formed. O(groups)."""
    groups = _sequence(spec.requested_resources, "requested_resources")
    if len(groups) > MOST_GROUPS:
        raise InvalidValue(
            f"at most {MOST_GROUPS} request groups are taken, got {len(groups)}", field="requested_resources"
        )
    for position, group in enumerate(groups):
        _check_group(group, f"requested_resources[{position}]")
    if spec.request_level_params is not None:
        _check_params(spec.request_level_params)
    for position, network in enumerate(_sequence(spec.requested_networks, "requested_networks")):
        _check_network(network, f"requested_networks[{position}]")
    if spec.network_metadata is not None:
        check_network_metadata(spec.network_metadata, "network_metadata")


def check_network_metadata(value: object, field: str) -> None:
    """Raise InvalidValue unless ``value`` is a well-formed NetworkMetadata."""
    if not isinstance(value, NetworkMetadata):
        raise InvalidValue(f"{field} must be a NetworkMetadata, got {shown(value)}", field=field)
    _texts(value.physnets, f"{field}.physnets")
    _flag(value.tunneled, f"{field}.tunneled")


def _check_group(group: Any, field: str) -> None:
    if not isinstance(group, RequestGroup):
        raise InvalidValue(f"{field} must be a RequestGroup, got {shown(group)}", field=field)
    if not isinstance(group.resources, Mapping):
        raise InvalidValue(f"{field}.resources must be a mapping, got {shown(group.resources)}", field=field)
    for name, amount in group.resources.items():
        _text(name, f"{field}.resources")
        whole_number(amount, f"{field}.resources.{name}", most=MOST)
    for name in ("required_traits", "forbidden_traits", "forbidden_aggregates"):
        _texts(getattr(group, name), f"{field}.{name}")
    for aggregates in _sequence(group.aggregates, f"{field}.aggregates"):
        _texts(aggregates, f"{field}.aggregates")
    _optional_text(group.in_tree, f"{field}.in_tree")
    _flag(group.use_same_provider, f"{field}.use_same_provider")
    suffix = group.requester_id
    if suffix is not None and (not isinstance(suffix, str) or _SUFFIX.fullmatch(suffix) is None):
        raise InvalidValue(
            f"{field}.requester_id must be 1 to 64 of A-Z a-z 0-9 _ -, got {shown(suffix)}",
            field=f"{field}.requester_id",
        )


def _check_params(params: Any) -> None:
    field = "request_level_params"
    if not isinstance(params, RequestLevelParams):
        raise InvalidValue(f"{field} must be a RequestLevelParams, got {shown(params)}", field=field)
    _texts(params.root_required, f"{field}.root_required")
    _texts(params.root_forbidden, f"{field}.root_forbidden")
    for suffixes in _sequence(params.same_subtree, f"{field}.same_subtree"):
        for suffix in _sequence(suffixes, f"{field}.same_subtree"):
            _text(suffix, f"{field}.same_subtree")


def _check_network(network: Any, field: str) -> None:
    if not isinstance(network, RequestedNetwork):
        raise InvalidValue(f"{field} must be a RequestedNetwork, got {shown(network)}", field=field)
    for name in ("network_id", "port_id", "arq_uuid", "device_profile"):
        _optional_text(getattr(network, name), f"{field}.{name}")
    if network.segment_aggregates is not None:
        _texts(network.segment_aggregates, f"{field}.segment_aggregates")
    _flag(network.remote_managed, f"{field}.remote_managed")


def _sequence(value: Any, field: str) -> Any:
    if not isinstance(value, (tuple, list)):
        raise InvalidValue(f"{field} must be a tuple, got {shown(value)}", field=field)
    return value


def _texts(value: Any, field: str) -> None:
    if not isinstance(value, (frozenset, set)):
        raise InvalidValue(f"{field} must be a frozenset, got {shown(value)}", field=field)
    for text in value:
        _text(text, field)


def _text(value: object, field: str) -> None:
    if not isinstance(value, str) or len(value) > LONGEST:
        raise InvalidValue(f"{field} must be a text of at most {LONGEST} characters, got {shown(value)}", field=field)


def _optional_text(value: object, field: str) -> None:
    if value is not None:
        _text(value, field)


def _flag(value: object, field: str) -> None:
    if not isinstance(value, bool):
        raise InvalidValue(f"{field} must be true or false, got {shown(value)}", field=field)
