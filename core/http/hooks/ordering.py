"""What external schedulers of Nova, Cinder and Manila (SAP's) have in common: hosts and weights in, a list of the same
hosts out, best first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ....placement.types.validation import MAX_NESTING, is_deeper
from ..errors import HttpError
from .calling import Call


class Candidate(msgspec.Struct, frozen=True):
    """A host, or a storage pool, that passed the caller's own filters."""

    host: str


class Body(msgspec.Struct, frozen=True):
    """What the caller sends; keys that are not named here are not needed."""

    spec: dict[str, Any]
    hosts: list[Candidate]
    weights: dict[str, float]


class Sorted(msgspec.Struct, frozen=True):
    """The answer. Each name in it was in the request, as clients fail the whole request otherwise."""

    hosts: list[str]


def names_of(body: Body) -> list[str]:
    """The names in their order. HttpError 400 for a name that is there twice, a host without a weight, a weight without
    a host, or a spec that is nested too deeply."""
    if is_deeper(body.spec, MAX_NESTING):
        raise HttpError(400, f"the spec has values in more than {MAX_NESTING} levels")
    names = [each.host for each in body.hosts]
    if len(set(names)) != len(names):
        raise HttpError(400, "a host is named twice")
    if set(names) != set(body.weights):
        raise HttpError(400, "each host needs a weight, and each weight a host")
    return names


def merged(
    call: Call, best: Iterable[str], names: Sequence[str], weights: Mapping[str, float], unknown: Collection[str]
) -> list[str]:
    """Those that pass, best first; then, by the caller's weights, those that Hostler refuses (unless they are to be
    left out) and those that it does not know. HttpError 400 where none passes: an empty list would be believed, on 400
    the caller keeps its own order."""
    first = list(dict.fromkeys(name for name in best if name in weights))
    if not first:
        raise HttpError(400, "no host of the request is known and passes here: keep your own order")
    leading = set(first)
    rest = [name for name in names if name not in leading and (not call.config.refuse or name in unknown)]
    rest.sort(key=lambda name: -weights[name])  # stable: equal weights keep the caller's order
    return first + rest
