"""The hook of kube-scheduler (an HTTP extender): ``filter``, ``prioritize`` and ``preempt``, best with
``nodeCacheCapable``; ``bind`` is in pod_binding.

Where pods are bound here, ``prioritize`` holds the pod on the best node, under its uid, until it is bound.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec

from ....placement.types.errors import HostlerError, UnknownName
from ..errors import HttpError
from .calling import Call, decoded
from .pods import Meta, Pod, resources_of, spec_of

MOST: Final = 10
"""Greatest score of an extender."""
UNKNOWN: Final = "Hostler does not know this node"
STATIC: Final = frozenset(
    {
        *("cell", "traits", "aggregates", "AvailabilityZoneFilter", "ComputeCapabilitiesFilter"),
        *("ImagePropertiesFilter", "ResourcePoolFilter"),
    }
)
"""Stages that refuse a node whatever runs on it: evicting pods does not help."""
MOST_NODES: Final = 1_000
"""Nodes that one call of ``preempt`` tries."""


class Whole(msgspec.Struct, frozen=True):
    """A node or pod in full, of which name and uid are read."""

    metadata: Meta


class Nodes(msgspec.Struct, frozen=True):
    """Nodes in full, sent where the extender is not ``nodeCacheCapable``."""

    items: list[msgspec.Raw] = []


class Arguments(msgspec.Struct, frozen=True, rename="pascal"):
    """The request of ``filter`` and ``prioritize``."""

    pod: Pod
    nodes: Nodes | None = None
    node_names: list[str] | None = None


class Filtered(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of ``filter``."""

    nodes: dict[str, list[msgspec.Raw]] | None
    node_names: list[str] | None
    failed_nodes: dict[str, str]
    failed_and_unresolvable_nodes: dict[str, str] = {}
    error: str = ""


class HostScore(msgspec.Struct, frozen=True, rename="pascal"):
    """A line of the answer of ``prioritize``."""

    host: str
    score: int


class Victims(msgspec.Struct, frozen=True, rename="pascal"):
    """Pods that would be evicted from a node: their uids, or, where the extender is not ``nodeCacheCapable``, in
    full."""

    pods: list[msgspec.Raw] | None = None
    num_violations: int = msgspec.field(default=0, name="NumPDBViolations")


class Preemption(msgspec.Struct, frozen=True, rename="pascal"):
    """The request of ``preempt``."""

    pod: Pod
    node_name_to_meta_victims: dict[str, Victims] | None = None
    node_name_to_victims: dict[str, Victims] | None = None


class Uid(msgspec.Struct, frozen=True):
    """A victim by its uid."""

    uid: str = msgspec.field(default="", name="UID")


class MetaVictims(msgspec.Struct, frozen=True, rename="pascal"):
    """Victims by their uids."""

    pods: list[Uid]
    num_violations: int = msgspec.field(default=0, name="NumPDBViolations")


class Preempted(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of ``preempt``: the nodes that are left."""

    node_name_to_meta_victims: dict[str, MetaVictims]


async def filter_nodes(call: Call) -> Filtered:
    """The nodes that pass. An error that is not HTTP's is in the answer's ``Error``."""
    given, names = _read(call.body)
    try:
        await _forget(call, given.pod)
        spec = spec_of(given.pod, call.config)
        ranking = await call.asking.rank(spec, names)
    except HttpError:
        raise
    except HostlerError as error:
        return Filtered(nodes=None, node_names=None, failed_nodes={}, error=str(error))
    passed = {each.node for each in ranking.hosts} | {each.host for each in ranking.hosts}
    kept = [name for name in names if name in passed]
    unknown = set(ranking.unknown)
    failed, unresolvable, wanted = dict[str, str](), dict[str, str](), resources_of(spec)
    for name in names:
        if name in passed:
            continue
        stage = "" if name in unknown else ranking.refused.get(name, "")
        helpless = name in unknown or stage in STATIC or _is_too_small(call, name, stage, wanted)
        (unresolvable if helpless else failed)[name] = UNKNOWN if name in unknown else _reason(stage)
    if given.node_names is not None:
        return Filtered(None, kept, failed, unresolvable)
    assert given.nodes is not None
    items = [item for item, name in zip(given.nodes.items, names, strict=True) if name in passed]
    return Filtered({"items": items}, None, failed, unresolvable)


async def prioritize(call: Call) -> list[HostScore]:
    """A score for each node: MOST for the best, 0 for the worst and those that do not pass. Where pods are bound here,
    the pod is held on the best node."""
    given, names = _read(call.body)
    spec = spec_of(given.pod, call.config)
    await _forget(call, given.pod)
    ranking = await call.asking.rank(spec, names)
    if call.config.kubernetes_api and given.pod.metadata.uid and ranking.hosts:
        there = {**spec, "requested_destination": {"node": ranking.hosts[0].node}}
        with suppress(HostlerError):  # kube-scheduler chooses: bind says what is wrong with the hold
            await call.asking.hold(given.pod.metadata.uid, there, call.config.hold_seconds)
    weights = {each.node: each.weight for each in ranking.hosts} | {each.host: each.weight for each in ranking.hosts}
    most, least = max(weights.values(), default=0.0), min(weights.values(), default=0.0)
    scores = []
    for name in names:
        score = 0
        if name in weights:
            score = round(MOST * (weights[name] - least) / (most - least)) if most > least else MOST
        scores.append(HostScore(name, score))
    return scores


async def preempt(call: Call) -> Preempted:
    """Those of the nodes on which the pod could be placed if their victims were gone. HttpError 400."""
    given: Preemption = call.read(Preemption)
    named = given.node_name_to_meta_victims
    full = named is None
    victims = {
        node: MetaVictims([_uid(pod, full=full) for pod in each.pods or ()], each.num_violations)
        for node, each in ((given.node_name_to_victims if named is None else named) or {}).items()
    }
    if len(victims) > MOST_NODES:
        raise HttpError(400, f"more than {MOST_NODES} nodes are named")
    await _forget(call, given.pod)
    spec = spec_of(given.pod, call.config)
    uuids = {node: [pod.uid for pod in each.pods if _is_uuid(pod.uid)] for node, each in victims.items()}
    fits = await call.asking.place_after_release(spec, uuids)
    return Preempted({node: each for node, each in victims.items() if fits[node]})


async def _forget(call: Call, pod: Pod) -> None:
    """Release what is held for a pod: kube-scheduler asks again, and it is not to count against itself."""
    if pod.metadata.uid and call.asking.is_held(pod.metadata.uid):
        await call.asking.release(pod.metadata.uid)


def _is_too_small(call: Call, name: str, stage: str, wanted: Mapping[str, int]) -> bool:
    """True for a node that was refused for a resource of which it would have too little if nothing ran on it; also for
    one that was removed meanwhile."""
    try:
        return stage in wanted and call.asking.holds_at_most(name, stage) < wanted[stage]
    except UnknownName:
        return True


def _uid(raw: msgspec.Raw, *, full: bool) -> Uid:
    return Uid(decoded(raw, Whole).metadata.uid) if full else decoded(raw, Uid)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _reason(stage: str) -> str:
    return f"refused by {stage or 'Hostler'}"


def _read(raw: bytes) -> tuple[Arguments, list[str]]:
    """A request, and the names of its nodes in order. HttpError 400."""
    try:
        given = msgspec.json.decode(raw, type=Arguments)
        if given.node_names is not None:
            return given, given.node_names
        if given.nodes is not None:
            return given, [msgspec.json.decode(item, type=Whole).metadata.name for item in given.nodes.items]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HttpError(400, f"the request is malformed: {error}") from None
    raise HttpError(400, "the request names no nodes")
