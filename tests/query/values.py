"""Short ways to requests, aggregates and queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from hostler.placement.request.flavor_and_image import Wishes
from hostler.placement.request.placement_query import PlacementQuery, placement_query
from hostler.placement.request.resource_groups import Groups, groups_of
from hostler.placement.types.host import Aggregate
from hostler.placement.types.options import Options
from hostler.placement.types.request import Flavor, Image, Request, RequestSpec

NODES = {("h1", "n1", "c1"): "uuid-1", ("h2", "n2", "c1"): "uuid-2", ("h2", "n3", "c2"): "uuid-3"}


def lookup(host: str | None, node: str | None, cell_uuid: str | None) -> Sequence[str]:
    wanted = (host, node, cell_uuid)
    return [
        uuid for key, uuid in NODES.items() if all(want in (None, name) for want, name in zip(wanted, key, strict=True))
    ]


def request(
    extra_specs: Mapping[str, str] | None = None,
    properties: Mapping[str, Any] | None = None,
    *,
    flavor: Mapping[str, Any] | None = None,
    disk_format: str | None = "qcow2",
    project_id: str = "p1",
    **spec: Any,
) -> Request:
    """A request for a guest of 4 vCPUs, 2 GiB of memory and 10 GiB of disk, from an image."""
    sizes: dict[str, Any] = {"vcpus": 4, "memory_mb": 2048, "root_gb": 10} | dict(flavor or {})
    image = Image(disk_format=disk_format, properties=properties or {})
    parts: dict[str, Any] = {"flavor": Flavor(name="m1", extra_specs=extra_specs or {}, **sizes), "image": image}
    return Request(spec=RequestSpec(**(parts | spec)), project_id=project_id)


def wishes(extra_specs: Mapping[str, str] | None = None, properties: Mapping[str, Any] | None = None) -> Wishes:
    return Wishes.of(request(extra_specs, properties))


def groups(asked: Request) -> Groups:
    return groups_of(asked, Wishes.of(asked))


def aggregate(uuid: str, **metadata: str) -> Aggregate:
    return Aggregate(uuid=uuid, name=uuid, metadata={key.replace("__", ":"): value for key, value in metadata.items()})


def query(asked: Request, aggregates: Iterable[Aggregate] = (), **scheduler: Any) -> PlacementQuery:
    return placement_query(asked, aggregates, lookup, Options.from_mapping({"scheduler": scheduler}))


def params(asked: Request, aggregates: Iterable[Aggregate] = (), **scheduler: Any) -> list[tuple[str, str]]:
    """The first query string, parsed, but for what is in every one."""
    always = {("limit", "1000"), ("root_required", "!COMPUTE_STATUS_DISABLED")}
    return [pair for pair in parse_qsl(query(asked, aggregates, **scheduler).to_querystring()) if pair not in always]
