"""``hostler replay``: replays the journal under its own and another policy, and reports the differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError
from ..engine_commands import Placed, PlaceMany, SetPolicy
from ..journal.journal import Record
from ..machine.machine import ServiceMachine
from ..machine.orders import Order
from ..machine.replaying import begin, records
from ..machine.state import with_present_defaults
from ..tenancy.tenants import LOCAL as ITSELF
from .guests import read_policy
from .remote import LOCAL, Remote

replay = cyclopts.App(name="replay", help="Re-run a journal, also under another policy, and compare.")


class Difference(msgspec.Struct, frozen=True):
    """A guest with another host under the other policy; host None: refused."""

    sequence: int
    instance: str
    was: str | None
    would_be: str | None


class Comparison(msgspec.Struct, kw_only=True):
    """What a replay found: commands, guests placed, and of these how many elsewhere, only then, or only now."""

    first: int = 0
    last: int = 0
    commands: int = 0
    refused: int = 0
    placed_then: int = 0
    placed_now: int = 0
    elsewhere: int = 0
    only_then: int = 0
    only_now: int = 0
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
    print(f"guests placed: {found.placed_then}")
    if policy is not None:
        print(f"under {policy}: {found.placed_now} placed, {found.elsewhere} of them elsewhere, ", end="")
        print(f"{found.only_now} that were refused; {found.only_then} refused that were placed")
        if found.differences:
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
    async for read in records(folder, last):
        for record in read:
            _step(found, record, then, now if policy is not None else None, show)
    return found


def _step(found: Comparison, record: Record, then: ServiceMachine, now: ServiceMachine | None, show: int) -> None:
    order = then.decode(record.body)
    was = _outcome(then, order)
    found.last, found.commands = record.sequence, found.commands + 1
    found.refused += isinstance(was, HostlerError)
    before = dict(_guests(order, was))
    found.placed_then += sum(host is not None for host in before.values())
    if now is None or isinstance(order.command, SetPolicy):
        return
    after = dict(_guests(order, _outcome(now, order)))
    found.placed_now += sum(host is not None for host in after.values())
    for instance in {**before, **after}:
        old, new = before.get(instance), after.get(instance)
        if old == new:
            continue
        found.elsewhere += old is not None and new is not None
        found.only_then += new is None
        found.only_now += old is None
        if len(found.differences) < show:
            found.differences.append(Difference(record.sequence, instance, old, new))


def _outcome(machine: ServiceMachine, order: Order) -> Any:
    (outcome,) = machine.apply_batch([order])
    return outcome


def _guests(order: Order, outcome: Any) -> Iterator[tuple[str, str | None]]:
    """(instance, host) of a decision's guests; those that were refused by position."""
    if isinstance(outcome, Decision):
        for selection in outcome.selections:
            yield selection.instance_uuid, selection.host
    elif isinstance(outcome, Placed) and isinstance(order.command, PlaceMany):
        yield from zip(outcome.instance_uuids, outcome.hosts, strict=True)
