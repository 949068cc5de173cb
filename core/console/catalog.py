"""``hostler flavor`` and ``image``: what the service keeps for members to name."""

from __future__ import annotations

from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from .remote import LOCAL, Remote, pair

flavor = cyclopts.App(name="flavor", help="Flavors: sizes of guests that members name.")
image = cyclopts.App(name="image", help="Images, as far as the scheduler reads them, that members name.")

Least = Annotated[int, Parameter(validator=Number(gte=1))]
Some = Annotated[int, Parameter(validator=Number(gte=0))]
For = Annotated[list[str] | None, Parameter(name="--for", help="a project that may use it; repeatable", negative="")]
Pairs = Annotated[list[str] | None, Parameter(help="NAME=VALUE, repeatable", negative="")]


@flavor.command(name="list")
def list_flavors(*, project: str | None = None, remote: Remote = LOCAL) -> int:
    """Flavors that you may see, or that a PROJECT may use."""
    found = remote.ask("flavors", {"project": project})
    if remote.as_json:
        return remote.table(found)
    head = ["name", "vcpus", "memory MiB", "root GiB", "ephemeral GiB", "swap MiB", "extra specs", "for"]
    remote.lines(head, [_flavor(each) for each in found])
    return 0


@flavor.command(name="show")
def show_flavor(name: str, *, remote: Remote = LOCAL) -> int:
    """One flavor."""
    found = remote.ask("flavor", {"name": name})
    remote.show(found)
    return 0


@flavor.command(name="create")
def create_flavor(
    name: str,
    *,
    vcpus: Least,
    memory_mb: Least,
    root_gb: Some = 0,
    ephemeral_gb: Some = 0,
    swap: Some = 0,
    extra_spec: Pairs = None,
    projects: For = None,
    remote: Remote = LOCAL,
) -> int:
    """Store a flavor, for all projects, or for some and their descendants. Memory and SWAP in MiB, disks in GiB."""
    size = {"vcpus": vcpus, "memory_mb": memory_mb, "root_gb": root_gb, "ephemeral_gb": ephemeral_gb, "swap": swap}
    kept = {"name": name, **size, "extra_specs": dict(map(pair, extra_spec or ()))}
    return remote.do("create_flavor", {"flavor": kept, "projects": projects or []}, f"flavor {name} created")


@flavor.command(name="delete")
def delete_flavor(name: str, *, remote: Remote = LOCAL) -> int:
    """Delete a flavor. Guests that were placed with it are not changed."""
    return remote.do("delete_flavor", {"name": name}, f"flavor {name} deleted")


def _flavor(line: Any) -> list[Any]:
    size = line.flavor
    specs = [f"{key}={value}" for key, value in size.extra_specs.items()]
    amounts = [size.vcpus, size.memory_mb, size.root_gb, size.ephemeral_gb, size.swap]
    return [line.name, *amounts, specs, line.projects or "all"]


@image.command(name="list")
def list_images(*, project: str | None = None, remote: Remote = LOCAL) -> int:
    """Images that you may see, or that a PROJECT may use."""
    found = remote.ask("images", {"project": project})
    if remote.as_json:
        return remote.table(found)
    rows = []
    for each in found:
        properties = [f"{key}={value}" for key, value in each.image.properties.items()]
        rows.append([each.name, each.image.id, each.image.disk_format, properties, each.projects or "all"])
    remote.lines(["name", "id", "disk format", "properties", "for"], rows)
    return 0


@image.command(name="show")
def show_image(name: str, *, remote: Remote = LOCAL) -> int:
    """One image."""
    remote.show(remote.ask("image", {"name": name}))
    return 0


@image.command(name="create")
def create_image(
    name: str,
    *,
    image_id: Annotated[str | None, Parameter(name="--id")] = None,
    disk_format: str | None = None,
    image_property: Pairs = None,
    projects: For = None,
    remote: Remote = LOCAL,
) -> int:
    """Store an image, for all projects, or for some and their descendants."""
    kept = {"id": image_id, "disk_format": disk_format, "properties": dict(map(pair, image_property or ()))}
    values = {"name": name, "image": kept, "projects": projects or []}
    return remote.do("create_image", values, f"image {name} created")


@image.command(name="delete")
def delete_image(name: str, *, remote: Remote = LOCAL) -> int:
    """Delete an image. Guests that were placed with it are not changed."""
    return remote.do("delete_image", {"name": name}, f"image {name} deleted")
