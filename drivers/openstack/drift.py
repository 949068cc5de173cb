"""``hostler drift``: what Placement and Nova keep, compared with a running service. Changes nothing on either side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from ...core.console.remote import LOCAL, Remote
from ...core.machine.provider_queries import ProviderDetail
from ...core.rpc.client import BlockingClient
from ...placement.fleet.inventories import INVENTORY_FIELDS, Inventory
from ...placement.types.errors import HostlerError
from .source.options import SourceOptions
from .source.values import NovaSource, PlacementSource, SourceConsumer, SourceProvider

app = cyclopts.App(
    name="drift", help="What Placement and Nova keep, compared with a service. Exit code 1: they differ."
)
DIFFERS: Final = 1
"""Exit code where they differ."""
PAGE: Final = 10_000
DETAILS: Final = 500
"""Providers asked for in one message."""
ABSENT: Final = "absent"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not the same. ``there``: in OpenStack, ``here``: in the service; None: absent. ``detail``: the
    resource class, trait or key that it is about."""

    kind: str
    name: str
    what: str
    detail: str = ""
    there: Any = None
    here: Any = None


@dataclass(slots=True)
class Served:
    """What a service has. Providers and consumers by uuid; aggregates: uuid -> (metadata, names of hosts)."""

    placement: PlacementSource = field(default_factory=PlacementSource)
    aggregates: dict[str, tuple[dict[str, str], set[str]]] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    """Uuids of compute hosts."""


@app.default
def drift(
    *,
    source: Annotated[SourceOptions | None, Parameter(name="*")] = None,
    limit: Annotated[int, Parameter(help="differences to print; with --json all are")] = 100,
    remote: Remote = LOCAL,
) -> int:
    """Compare providers, inventories, traits, aggregates and allocations that Placement keeps, and with --nova-api or
    --nova-cell the compute nodes and host aggregates that Nova keeps, with those of a running service. Exit code 1:
    they differ."""
    source = source if source is not None else SourceOptions()
    there = source.read_placement()
    nova = source.read_nova(time.time()) if source.nova_api or source.nova_cell else None
    with remote.client() as client:
        here = served(client)
    found = list(differences(there, nova, here, aggregates=source.nova_api is not None))
    if remote.as_json:
        remote.show(found)
    else:
        _show(found, limit, there)
    return DIFFERS if found else 0


def _show(found: list[Difference], limit: int, there: PlacementSource) -> None:
    for each in found[:limit]:
        about = f" {each.detail}" if each.detail else ""
        print(f"{each.kind} {each.name}: {each.what}{about}: {_text(each.there)} in OpenStack, {_text(each.here)} here")
    if len(found) > limit:
        print(f"and {len(found) - limit} more: --limit or --json shows them")
    compared = f"{len(there.providers)} providers and {len(there.consumers)} consumers compared"
    print(f"{compared}: {len(found)} differences" if found else f"{compared}: no difference")


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={value[key]}" for key in sorted(value)) or "nothing"
    return str(value)


# what the service has


def served(client: BlockingClient) -> Served:
    """All that a service has of what is compared. It is not one moment's state: what changes meanwhile may be seen
    half. HostlerError as the service's. O(providers + consumers)."""
    found, names = Served(), list[str]()
    after: str | None = None
    while True:
        lines = client.call("providers", {"limit": PAGE, "after": after})
        names += [line.name for line in lines]
        if len(lines) < PAGE:
            break
        after = lines[-1].name
    by_name: dict[str, str] = {}
    parents: dict[str, str] = {}
    for some in _parts(names, DETAILS):
        for _, detail in zip(some, client.batch([("provider", {"name": name}) for name in some]), strict=True):
            if isinstance(detail, HostlerError):
                continue  # it has gone meanwhile
            _take(found, msgspec.convert(detail, ProviderDetail), by_name, parents)
    for uuid, parent in parents.items():
        found.placement.providers[uuid].parent = by_name.get(parent, parent)
    for line in client.call("aggregates"):
        found.aggregates[line.uuid] = (dict(line.metadata), set(line.providers))
    _take_consumers(found, client, by_name)
    return found


def _parts(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _take(found: Served, detail: ProviderDetail, by_name: dict[str, str], parents: dict[str, str]) -> None:
    line = detail.line
    by_name[line.name] = line.uuid
    if line.parent is not None:
        parents[line.uuid] = line.parent
    if line.host:
        found.hosts.add(line.uuid)
    found.placement.providers[line.uuid] = SourceProvider(
        uuid=line.uuid,
        name=line.name,
        generation=line.generation,
        inventories=dict(detail.inventories),
        traits=set(detail.traits),
        aggregates=set(detail.aggregates),
    )


def _take_consumers(found: Served, client: BlockingClient, by_name: Mapping[str, str]) -> None:
    after: str | None = None
    while True:
        lines = client.call("allocations", {"limit": PAGE, "after": after})
        for line in lines:
            held = {by_name.get(name, name): dict(amounts) for name, amounts in line.allocations.items() if amounts}
            if held:
                found.placement.consumers[line.consumer] = SourceConsumer(
                    uuid=line.consumer, project_id=line.project_id, user_id=line.user_id, allocations=held
                )
        if len(lines) < PAGE:
            return
        after = lines[-1].consumer


# comparing


def differences(
    there: PlacementSource, nova: NovaSource | None, here: Served, *, aggregates: bool = True
) -> Iterator[Difference]:
    """What differs, by kind and uuid. ``aggregates``: Nova's host aggregates are known. O(providers + consumers)."""
    mine = here.placement
    for uuid in sorted(there.providers.keys() | mine.providers.keys()):
        yield from _of_providers(there.providers.get(uuid), mine.providers.get(uuid))
    for uuid in sorted(there.consumers.keys() | mine.consumers.keys()):
        yield from _of_consumers(uuid, there.consumers.get(uuid), mine.consumers.get(uuid))
    if nova is not None:
        yield from _of_hosts(nova, here)
        if aggregates:
            yield from _of_aggregates(nova, here)


def _of_providers(there: SourceProvider | None, here: SourceProvider | None) -> Iterator[Difference]:
    if there is None or here is None:
        known = there or here
        assert known is not None
        named = [each.name if each is not None else None for each in (there, here)]
        yield Difference(kind="provider", name=known.uuid, what="provider", there=named[0], here=named[1])
        return
    for what in ("name", "parent"):
        values = getattr(there, what), getattr(here, what)
        if values[0] != values[1]:
            yield Difference(kind="provider", name=there.uuid, what=what, there=values[0], here=values[1])
    for resource in sorted(there.inventories.keys() | here.inventories.keys()):
        yield from _of_inventories(
            there.name, resource, there.inventories.get(resource), here.inventories.get(resource)
        )
    for what in ("traits", "aggregates"):
        mine, its = getattr(here, what), getattr(there, what)
        for each in sorted(mine ^ its):
            held = ("present", None) if each in its else (None, "present")
            yield Difference(kind="provider", name=there.name, what=what[:-1], detail=each, there=held[0], here=held[1])


def _of_inventories(
    provider: str, resource: str, there: Inventory | None, here: Inventory | None
) -> Iterator[Difference]:
    if there is None or here is None:
        totals = [None if each is None else each.total for each in (there, here)]
        yield Difference(
            kind="inventory", name=provider, what="inventory", detail=resource, there=totals[0], here=totals[1]
        )
        return
    for figure in (*INVENTORY_FIELDS, "allocation_ratio"):
        values = getattr(there, figure), getattr(here, figure)
        if values[0] != values[1]:
            yield Difference(
                kind="inventory", name=provider, what=figure, detail=resource, there=values[0], here=values[1]
            )


def _of_consumers(uuid: str, there: SourceConsumer | None, here: SourceConsumer | None) -> Iterator[Difference]:
    its = {} if there is None else there.allocations
    mine = {} if here is None else here.allocations
    for provider in sorted(its.keys() | mine.keys()):
        if its.get(provider) != mine.get(provider):
            yield Difference(
                kind="consumer",
                name=uuid,
                what="allocation of",
                detail=provider,
                there=its.get(provider),
                here=mine.get(provider),
            )
    if there is not None and here is not None:
        for what in ("project_id", "user_id"):
            values = getattr(there, what), getattr(here, what)
            if values[0] != values[1]:
                yield Difference(kind="consumer", name=uuid, what=what, there=values[0], here=values[1])


def _of_hosts(nova: NovaSource, here: Served) -> Iterator[Difference]:
    """Compute nodes that the service has no host of, and its hosts that are no compute node."""
    names = {uuid: node.host.nodename for uuid, node in nova.nodes.items()}
    for uuid in sorted(names.keys() - here.hosts):
        yield Difference(kind="host", name=uuid, what="compute node", there=names[uuid])
    for uuid in sorted(here.hosts - names.keys()):
        name = here.placement.providers[uuid].name
        yield Difference(kind="host", name=uuid, what="compute node", here=name)


def _of_aggregates(nova: NovaSource, here: Served) -> Iterator[Difference]:
    """Host aggregates with their metadata and hosts. Those that only Placement knows have no metadata, and are compared
    with the providers."""
    nodes: dict[str, set[str]] = {}
    for node in nova.nodes.values():
        nodes.setdefault(node.host.host, set()).add(node.host.nodename)
    hosts = {here.placement.providers[uuid].name for uuid in here.hosts}
    for each in nova.aggregates:
        uuid, name = each.aggregate.uuid, each.aggregate.name
        its = set().union(*(nodes.get(host, set()) for host in each.hosts)) if each.hosts else set()
        if uuid not in here.aggregates:
            if its:
                yield Difference(kind="aggregate", name=uuid, what="aggregate", there=name)
            continue
        metadata, members = here.aggregates[uuid]
        for key in sorted(each.aggregate.metadata.keys() | metadata.keys()):
            values = each.aggregate.metadata.get(key), metadata.get(key)
            if values[0] != values[1]:
                yield Difference(
                    kind="aggregate", name=uuid, what="metadata", detail=key, there=values[0], here=values[1]
                )
        for host in sorted(its ^ (members & hosts)):
            held = ("present", None) if host in its else (None, "present")
            yield Difference(kind="aggregate", name=uuid, what="host", detail=host, there=held[0], here=held[1])


__all__ = ["Difference", "Served", "app", "differences", "drift", "served"]
