"""Who of a server group stands on which service host, as Nova counts: each instance once on every service host that it
is on, both ends of a move and hosts that both report it among them. It applies no policy.

Under the rules of old journals (``Consumers.counts_standing`` is False) members count where their consumers and the
migrations of these are, and instances stand where their consumers are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from typing import TYPE_CHECKING

from ...ext.constants import NOT_INSTANCE
from ...ext.tables import format_uuid
from .change_log import rows_array

if TYPE_CHECKING:
    from .consumers import Consumers
    from .fleet import Fleet


def kept_members(fleet: Fleet, kept: int, own: Collection[str] = ()) -> dict[int, int]:
    """Row -> members on its service host, of a group that the fleet keeps. ``own``: instances of the request, which
    are members wherever they stand already. The kernel's counts by row are right but where an instance stands on
    several rows. O(rows of the group + rows with instances that stand on another row too)."""
    rows: dict[int, int] = fleet._kernel.group(kept)[2]
    also = fleet._consumers.also_on if fleet._consumers.counts_standing else {}
    doubled = doubled_rows(fleet._consumers)
    if not also and not doubled and not fleet._shared_service_hosts:
        return rows
    members: dict[int, int] = {}
    for row in (*rows, *_rows_with(fleet, kept, also, own), *doubled):
        if row in members:
            continue
        siblings = fleet._rows_of_service_host(fleet._service_host(row))
        if also.keys().isdisjoint(siblings) and not any(sibling in doubled for sibling in siblings):
            count = sum(rows.get(sibling, 0) for sibling in siblings)
        else:
            count = len(set(uuids_of_kept(fleet, kept, siblings, own)))
        if count:
            members.update(dict.fromkeys(siblings, count))
    return members


def doubled_rows(consumers: Consumers) -> Set[int]:
    """Rows of hosts that consumers of other rows take of; none where these do not stand there. As ``hosts``."""
    return consumers.elsewhere.hosts() if consumers.counts_standing else frozenset()


def follow_standing(consumers: Consumers, *, counts: bool) -> None:
    """Change ``counts_standing``: all that was found with the other value is found again. O(rows that instances stand
    on beside their own)."""
    consumers.counts_standing = counts
    rows = sorted({*consumers.also_on, *(row for row, held in consumers.elsewhere.items() if held)})
    if rows:
        consumers._change_log.changed(rows_array(*rows))
        consumers._change_log.static_epoch += 1


def uuids_of_kept(fleet: Fleet, kept: int, rows: Iterable[int], own: Collection[str] = ()) -> Iterable[str]:
    """Members of a kept group that stand on ``rows``, some of them more than once. O(consumers on the rows)."""
    standing, elsewhere = fleet._consumers.counts_standing, fleet._consumers.elsewhere
    for row in rows:
        doubled = sorted(elsewhere.get(row, ())) if standing else ()
        for consumer in (*fleet._kernel.consumers_on(row), *doubled):
            high, low, _, _, _, _, group, flags, _ = fleet._kernel.consumer(consumer)
            if group == kept and not flags & NOT_INSTANCE:
                yield format_uuid(high, low)
        for uuid in fleet._consumers.also_on.get(row, ()) if standing else ():
            if uuid in own or _is_member(fleet, kept, uuid):
                yield uuid


def named_members(fleet: Fleet, uuids: frozenset[str]) -> dict[int, int]:
    """Row -> members on its service host, of a group that the caller keeps. O(uuids + instances that stand on two
    rows)."""
    standing: dict[int, set[str]] = {}
    for uuid in sorted(uuids):
        try:
            consumer = fleet._kernel.consumers.get(uuid)
        except ValueError:
            continue  # a member that is not a uuid is on no host of the fleet
        if consumer >= 0:
            for row in hosts_of(fleet, consumer):
                standing.setdefault(row, set()).add(uuid)
    if fleet._consumers.counts_standing:
        for row, held in fleet._consumers.also_on.items():
            if not uuids.isdisjoint(held):
                standing.setdefault(row, set()).update(uuids & held.keys())
    on_host: dict[int, set[str]] = {}
    for row, found in standing.items():
        for sibling in fleet._rows_of_service_host(fleet._service_host(row)):
            on_host.setdefault(sibling, set()).update(found)
    return {row: len(found) for row, found in on_host.items()}


def hosts_of(fleet: Fleet, consumer: int) -> list[int]:
    """Rows of the hosts that a consumer holds allocations on: its own, and that which an evacuation has given it beside
    that. O(its allocations)."""
    rows = [int(fleet._kernel.consumer(consumer)[2])]
    extras = fleet._extras.get(consumer)
    if extras is not None and extras.elsewhere and fleet._consumers.counts_standing:
        rows += sorted({row for row, _, _ in extras.elsewhere if fleet._host_class(row).is_host})
    return rows


def _rows_with(
    fleet: Fleet, kept: int, also: Mapping[int, Mapping[str, object]], own: Collection[str]
) -> Iterable[int]:
    """Rows that a member stands on beside that of its consumer."""
    for row, held in also.items():
        if any(uuid in own or _is_member(fleet, kept, uuid) for uuid in held):
            yield row


def _is_member(fleet: Fleet, kept: int, uuid: str) -> bool:
    consumer = fleet._kernel.consumers.get(uuid)
    return consumer >= 0 and bool(fleet._kernel.consumer(consumer)[6] == kept)


__all__ = ["doubled_rows", "follow_standing", "hosts_of", "kept_members", "named_members", "uuids_of_kept"]
