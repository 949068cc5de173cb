"""``hostler place``, ``release``, ``move``, ``resize``, ``explain``, ``what-if`` and ``fits``: guests, and why they are
where they are."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import msgspec
from cyclopts import Parameter

from ...placement.oslo_conf.read import UnknownOption
from ...placement.policy.files import policy_values
from ...placement.storage.with_guests import JointDecision, Locality
from ...placement.types.decision import Decision
from ...placement.types.errors import InvalidValue
from ...placement.types.moves import Expiry, MoveKind
from ..engine_commands import AllocationCandidate, Place, SetService
from ..errors import from_value
from ..storage_commands import AskedVolume
from .remote import LOCAL, REFUSED, SMALL, Asked, Remote

place = cyclopts.App(name="place", help="Choose a host for a guest, and charge it. Exit code 3: no host.")
release = cyclopts.App(name="release", help="Remove guests and give back what they took.")
move = cyclopts.App(name="move", help="Move a guest to another host. Exit code 3: no host.")
resize = cyclopts.App(name="resize", help="Give a guest another size, where it fits. Exit code 3: no host.")
explain = cyclopts.App(name="explain", help="Why each host would be refused, and what the best ones score.")
what_if = cyclopts.App(name="what-if", help="What would be answered, under another policy or without some hosts.")
fits = cyclopts.App(name="fits", help="How many more guests of a shape fit.")


@place.default
def place_guest(
    *,
    ask: Asked = SMALL,
    volume: Annotated[
        list[str] | None,
        Parameter(help="GIB or GIB:TYPE, repeatable: a volume that is placed with the guest, all or none", negative=""),
    ] = None,
    near: Annotated[Literal["host", "zone", "aggregate"] | None, Parameter(help="the volumes are on this, too")] = None,
    prefer_near: Annotated[bool, Parameter(help="where there is room, instead of always", negative="")] = False,
    candidates: Annotated[
        Path | None,
        Parameter(help="one of these is taken: a file with Placement's answer to GET /allocation_candidates"),
    ] = None,
    key: str | None = None,
    remote: Remote = LOCAL,
) -> int:
    """Place one request. KEY makes a repetition safe: the same key gets the first answer."""
    if volume is None:
        if near is not None or prefer_near:
            raise InvalidValue("nearness is that of volumes, and none is asked for", field="near", hint="--volume GIB")
        offered = {} if candidates is None else {"candidates": _candidates(candidates)}
        method = "place_candidates" if offered else "place"
        with remote.client() as client:
            return _decided(remote, client.call(method, {"request": ask.asked(), **offered}, key=key))
    if candidates is not None:
        raise InvalidValue("candidates are of a guest without volumes", field="candidates", hint="attach them later")
    if prefer_near and near is None:
        raise InvalidValue("prefer-near needs what the volumes are to be near on", field="near", hint="--near host")
    volumes = tuple(_volume(text, ask.project) for text in volume)
    locality = None if near is None else Locality(level=near, mode="weight" if prefer_near else "filter")
    values = {"request": ask.asked(), "volumes": volumes, "locality": locality}
    with remote.client() as client:
        return _decided_together(remote, client.call("place_together", values, key=key))


class _AllocationCandidates(msgspec.Struct):
    """The answer to GET /allocation_candidates, as far as it is read."""

    allocation_requests: tuple[AllocationCandidate, ...]


def _candidates(path: Path) -> dict[str, list[AllocationCandidate]]:
    """The candidates in a file, under each provider that they name, as Nova's scheduler sorts them. InvalidValue for
    another file."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=_AllocationCandidates)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        hint = "it is the answer in JSON, of microversion 1.12 or later"
        raise InvalidValue(f"{path} has no allocation candidates: {error}", field="candidates", hint=hint) from None
    found = dict[str, list[AllocationCandidate]]()
    for each in read.allocation_requests:
        for provider in each.allocations:
            found.setdefault(provider, []).append(each)
    return found


def _volume(text: str, project: str) -> AskedVolume:
    """A volume that is given as GIB or GIB:TYPE. InvalidValue for another text."""
    size, _, kind = text.partition(":")
    if not size.isdecimal() or not int(size) or (":" in text and not kind):
        raise InvalidValue(f"{text!r} is not GIB or GIB:TYPE", field="volume", hint="such as 100 or 100:gold")
    spec = {"size_gb": int(size), **({"volume_type": kind} if kind else {})}
    return AskedVolume(spec=msgspec.Raw(msgspec.msgpack.encode(spec)), project_id=project)


def _decided_together(remote: Remote, decision: JointDecision) -> int:
    if remote.as_json:
        remote.show(decision)
        return 0 if decision.refusal is None else REFUSED
    if decision.refusal is not None:
        print(decision.refusal.sentence + (f" ({decision.refusal.hint})" if decision.refusal.hint else ""))
        return REFUSED
    assert decision.guest is not None
    _decided(remote, decision.guest)
    rows = []
    for each, near in zip(decision.volumes, decision.near, strict=True):
        chosen = each.selected
        rows.append([chosen.volume_id, chosen.backend_id, chosen.availability_zone, chosen.charged_gb, near])
    remote.lines(["volume", "pool", "zone", "GiB charged", "near"], rows)
    return 0


@release.default
def release_guests(uuid: str, *more: str, remote: Remote = LOCAL) -> int:
    """Release instances, all or none."""
    return remote.do("release", {"uuids": (uuid, *more)}, f"{1 + len(more)} released")


@move.default
def move_guest(uuid: str, *, ask: Asked = SMALL, remote: Remote = LOCAL) -> int:
    """Place an instance again on another host, by what was asked when it was placed, but for the options that are
    given."""
    with remote.client() as client:
        return _decided(remote, client.call("move", {"uuid": uuid} | _changed(client, uuid, ask)))


@move.command(name="begin")
def begin_move(
    uuid: str,
    *,
    kind: MoveKind = "cold_migrate",
    expires_in: Annotated[float | None, Parameter(help="seconds after which the move ends by itself")] = None,
    on_expiry: Expiry = "revert",
    ask: Asked = SMALL,
    remote: Remote = LOCAL,
) -> int:
    """Claim a new place for an instance and keep the old one until ``confirm`` or ``revert``. The request is the one it
    was placed with, but for the options that are given; a resize names the new size, with its extra specs."""
    with remote.client() as client:
        values = {"uuid": uuid, "kind": kind, "expires_in": expires_in, "on_expiry": on_expiry}
        return _decided(remote, client.call("begin_move", values | _changed(client, uuid, ask)))


@move.command(name="confirm")
def confirm_move(uuid: str, *, remote: Remote = LOCAL) -> int:
    """An instance has moved: what it held before is given back."""
    return remote.do("confirm_move", {"uuid": uuid}, f"{uuid} has moved")


@move.command(name="revert")
def revert_move(uuid: str, *, remote: Remote = LOCAL) -> int:
    """An instance stays, or is back, where it was: its new place is given back."""
    return remote.do("revert_move", {"uuid": uuid}, f"{uuid} stays where it was")


@move.command(name="list")
def list_moves(*, remote: Remote = LOCAL) -> int:
    """Moves under way."""
    return remote.table(remote.ask("moves"))


@resize.default
def resize_guest(uuid: str, *, ask: Asked = SMALL, remote: Remote = LOCAL) -> int:
    """Place an instance again with another size, which has the extra specs given, on its host or another. All else is
    as it was asked with; omitted options of its size keep their values."""
    with remote.client() as client:
        guest = client.call("instance", {"uuid": uuid})
        values = {"uuid": uuid, "request": ask.asked(guest), "changes": ("flavor", *ask.changes)}
        return _decided(remote, client.call("resize", values))


def _changed(client: Any, uuid: str, ask: Asked) -> dict[str, Any]:
    """The request of a move, where options are given, and the fields of its spec that they change."""
    if ask == SMALL:
        return {}
    return {"request": ask.asked(client.call("instance", {"uuid": uuid})), "changes": ask.changes}


def _decided(remote: Remote, decision: Decision) -> int:
    if remote.as_json:
        remote.show(decision)
    elif decision.refusal is not None:
        print(decision.refusal.sentence + (f" ({decision.refusal.hint})" if decision.refusal.hint else ""))
    else:
        rows = [[each.instance_uuid, each.host, each.node, each.weight] for each in decision.selections]
        remote.lines(["instance", "host", "node", "weight"], rows)
    return 0 if decision.refusal is None else REFUSED


@explain.default
def explain_request(
    *,
    ask: Asked = SMALL,
    best: int = 5,
    refused: int = 20,
    assume_empty: Annotated[
        bool, Parameter(help="also say whether it would fit if there were no guests", negative="")
    ] = False,
    remote: Remote = LOCAL,
) -> int:
    """The BEST hosts with their scores, up to REFUSED others with reasons, and what would change the answer. Exit code
    3: there are no hosts."""
    found = remote.ask("explain", {"request": ask.asked(), "top": best, "assume_empty": assume_empty})
    if remote.as_json:
        remote.show(found)
        return 0 if found.considered else REFUSED
    if found.refusal is not None:
        print(found.refusal.sentence + (f" ({found.refusal.hint})" if found.refusal.hint else ""))
    rows = []
    for each in found.top:
        points = ", ".join(f"{part.weigher} {part.points:.3g}" for part in each.parts if part.points)
        rows.append([each.node, each.weight, points])
    if rows:
        remote.lines(["node", "weight", "points"], rows)
    if found.refused:
        remote.lines(["node", "refused by", "because"], [[r.node, r.stage, r.reason] for r in found.refused[:refused]])
        if len(found.refused) > refused:
            print(f"and {len(found.refused) - refused} more")
    for sentence in found.counterfactuals:
        print(sentence)
    if assume_empty:
        print("it would fit an empty fleet" if found.fits_empty else "it would not fit an empty fleet either")
    return 0 if found.considered else REFUSED


@what_if.default
def try_request(
    *,
    ask: Asked = SMALL,
    policy: Annotated[Path | None, Parameter(help="a policy file to decide by")] = None,
    without: Annotated[tuple[str, ...], Parameter(help="hosts that are to count as disabled", negative="")] = (),
    remote: Remote = LOCAL,
) -> int:
    """Where a guest would go; nothing is changed. Exit code 3: no host."""
    commands: list[Any] = [SetService(name=name, disabled=True) for name in without]
    commands.append(Place(request=ask.asked()))
    params = {"commands": commands, "policy": read_policy(policy)}
    tried = remote.ask("what_if", params)
    for each in tried:
        if each.error is not None:
            raise from_value(each.error)
    return _decided(remote, msgspec.convert(tried[-1].result, Decision))


def read_policy(path: Path | None) -> dict[str, Any] | None:
    """A policy file's values, or those of a nova.conf; says on standard error what is unknown in it."""
    if path is None:
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnknownOption)
        values = policy_values(path)
    for each in caught:
        print(f"warning: {each.message}", file=sys.stderr)
    return values


@fits.default
def count_fits(
    *,
    ask: Asked = SMALL,
    all_flavors: Annotated[
        bool, Parameter(help="of each flavor that the service keeps: alone, and with a fair share", negative="")
    ] = False,
    remote: Remote = LOCAL,
) -> int:
    """How many more guests of a shape fit, and on which hosts."""
    if all_flavors:
        return _fits_of_all_flavors(ask, remote)
    return remote.fitting(remote.ask("fits", {"request": ask.asked()}), "host", "guests", heading="node")


def _fits_of_all_flavors(ask: Asked, remote: Remote) -> int:
    """How many more guests of each kept flavor fit; all else is as asked."""
    with remote.client() as client:
        names = [line.name for line in client.call("flavors", {"project": ask.project})]
        asked = [replace(ask, flavor=name, vcpus=None, memory_mb=None, disk_gb=None).asked() for name in names]
        found = client.call("fits_many", {"requests": asked})
    if remote.as_json:
        remote.show(dict(zip(names, found, strict=True)))
        return 0
    rows = [[name, each.alone.count, each.shared.count] for name, each in zip(names, found, strict=True)]
    remote.lines(["flavor", "alone", "together"], rows)
    return 0
