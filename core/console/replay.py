"""``hostler replay``: replays the journal under its own and another policy, and reports the differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

from ...placement.storage.decision import VolumeDecision
from ...placement.storage.with_guests import JointDecision
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError
from ..engine_commands import Placed, PlaceMany, SetPolicy
from ..journal.journal import Record
from ..machine.machine import ServiceMachine
from ..machine.order_policies import with_present_defaults
from ..machine.orders import Order
from ..machine.replaying import begin, records
from ..storage_commands import GroupPlaced
from ..tenancy.tenants import LOCAL as ITSELF
from .guests import read_policy
from .remote import LOCAL, Remote

Places = Mapping[str, str | None]
replay = cyclopts.App(name="replay", help="Re-run a journal, also under another policy, and compare.")


class Difference(msgspec.Struct, frozen=True):
    """A guest with another host, or a volume on another pool, under the other policy; None: refused."""

    sequence: int
    instance: str
    was: str | None
    would_be: str | None


class Counts(msgspec.Struct, kw_only=True):
    """What was placed, and how much of it elsewhere, only then, or only now."""

    placed_then: int = 0
    placed_now: int = 0
    elsewhere: int = 0
    only_then: int = 0
    only_now: int = 0


class Comparison(Counts, kw_only=True):
    """What a replay found: commands, guests placed, and ``volumes`` likewise."""

    first: int = 0
    last: int = 0
    commands: int = 0
    refused: int = 0
    volumes: Counts = msgspec.field(default_factory=Counts)
    differences: list[Difference] = []


@replay.default
async def replay_journal(
    folder: Path,
    *,
    policy: Annotated[Path | None, Parameter(help="a policy file to decide by instead")] = None,
    show: Annotated[int, Parameter(help="differences to show")] = 20,
    remote: Remote = LOCAL,
) -> int:
    """Replay the journal in a data folder, from its first command if the history was kept, else from its oldest
    snapshot. The folder is not changed. Quotas and roles are enforced as in the original run."""
    found = await compare(folder, read_policy(policy), show)
    if remote.as_json:
        remote.show(found)
        return 0
    print(f"commands {found.first} to {found.last}: {found.commands}, of which {found.refused} were refused")
    parts: list[tuple[str, Counts]] = [("guests", found)]
    if found.volumes.placed_then or found.volumes.placed_now:
        parts.append(("volumes", found.volumes))
    for name, counts in parts:
        print(f"{name} placed: {counts.placed_then}")
        if policy is not None:
            print(f"under {policy}: {counts.placed_now} placed, {counts.elsewhere} of them elsewhere, ", end="")
            print(f"{counts.only_now} that were refused; {counts.only_then} refused that were placed")
    if policy is not None and found.differences:
        remote.lines(
            ["command", "instance", "was on", "would be on"],
            [[each.sequence, each.instance, each.was, each.would_be] for each in found.differences],
        )
    return 0


async def compare(folder: Path, policy: dict[str, Any] | None, show: int) -> Comparison:
    """Replay a folder's journal with and without another policy. InvalidValue, DataDamaged, StorageFailed."""
    then, now, found = ServiceMachine(), ServiceMachine(), Comparison()
    last = begin(folder, then, now)
    if policy is not None:
        now.apply(Order(0.0, ITSELF, SetPolicy(policy=with_present_defaults(policy))))
    found.first, found.last = last + 1, last
    async with aclosing(records(folder, last)) as parts:
        async for read in parts:
            for record in read:
                _step(found, record, then, now if policy is not None else None, show)
    return found


def _step(found: Comparison, record: Record, then: ServiceMachine, now: ServiceMachine | None, show: int) -> None:
    order = then.decode(record.body)
    was = _outcome(then, order)
    found.last, found.commands = record.sequence, found.commands + 1
    found.refused += isinstance(was, HostlerError)
    before = dict(_guests(order, was)), dict(_volumes(was))
    found.placed_then += sum(host is not None for host in before[0].values())
    found.volumes.placed_then += len(before[1])
    if now is None or isinstance(order.command, SetPolicy):
        return
    outcome = _outcome(now, order)
    after = dict(_guests(order, outcome)), dict(_volumes(outcome))
    found.placed_now += sum(host is not None for host in after[0].values())
    found.volumes.placed_now += len(after[1])
    for counts, old, new in zip((found, found.volumes), before, after, strict=True):
        for name, was_on, would_be in _differing(counts, old, new):
            if len(found.differences) < show:
                found.differences.append(Difference(record.sequence, name, was_on, would_be))


def _differing(counts: Counts, before: Places, after: Places) -> Iterator[tuple[str, str | None, str | None]]:
    """(name, place before, place after) of what is placed differently, counted."""
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old != new:
            counts.elsewhere += old is not None and new is not None
            counts.only_then += new is None
            counts.only_now += old is None
            yield name, old, new


def _outcome(machine: ServiceMachine, order: Order) -> Any:
    (outcome,) = machine.apply_batch([order])
    return outcome


def _guests(order: Order, outcome: Any) -> Iterator[tuple[str, str | None]]:
    """(instance, host) of a decision's guests; those that were refused by position."""
    if isinstance(outcome, JointDecision):
        outcome = outcome.guest
    if isinstance(outcome, Decision):
        for selection in outcome.selections:
            yield selection.instance_uuid, selection.host
    elif isinstance(outcome, Placed) and isinstance(order.command, PlaceMany):
        yield from zip(outcome.instance_uuids, outcome.hosts, strict=True)


def _volumes(outcome: Any) -> Iterator[tuple[str, str | None]]:
    """(volume, pool) of a decision's volumes that were placed, or judged again."""
    match outcome:
        case VolumeDecision(selection=selection):
            selections = [selection]
        case GroupPlaced(decision=decision):
            selections = list(decision.selections)
        case JointDecision(volumes=volumes):
            selections = [each.selection for each in volumes]
        case _:
            selections = []
    for chosen in selections:
        if chosen is not None:
            yield chosen.volume_id, chosen.backend_id
