"""Questions about the flavors and images that the service keeps, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TypeVar

import msgspec

from ...placement.types.errors import UnknownName
from ...placement.types.request import Flavor, Image
from ..tenancy.catalog import KeptFlavor, KeptImage, may_use, shown_projects, visible
from ..tenancy.rights import project_scope
from ..tenancy.tenants import CLOUD, RANK
from .question import Query
from .state import ServiceState

KeptThing = TypeVar("KeptThing", KeptFlavor, KeptImage)


class Flavors(Query, frozen=True):
    """Flavors that the service keeps, by name: all for readers of the cloud; for others those that are for all, or for
    their projects. ``project``: those that it may use."""

    project: str | None = None


class ShowFlavor(Query, frozen=True):
    """One flavor that the service keeps. As for flavors."""

    name: str


class Images(Query, frozen=True):
    """Images that the service keeps, by name. As for flavors."""

    project: str | None = None


class ShowImage(Query, frozen=True):
    """One image that the service keeps. As for flavors."""

    name: str


class FlavorLine(msgspec.Struct, frozen=True):
    """A flavor that the service keeps, and the projects that may use it (empty: all), of which one
    without a role in the cloud sees their own."""

    name: str
    flavor: Flavor
    projects: list[str]


class ImageLine(msgspec.Struct, frozen=True):
    """An image that the service keeps, and the projects that may use it (empty: all), of which one
    without a role in the cloud sees their own."""

    name: str
    image: Image
    projects: list[str]


def flavors(state: ServiceState, user: str, query: Flavors) -> list[FlavorLine]:
    kept = _shown(state, user, state.catalog.flavors, query.project)
    return [FlavorLine(name, each.flavor, shown_projects(state.tenants, user, each)) for name, each in kept]


def images(state: ServiceState, user: str, query: Images) -> list[ImageLine]:
    kept = _shown(state, user, state.catalog.images, query.project)
    return [ImageLine(name, each.image, shown_projects(state.tenants, user, each)) for name, each in kept]


def flavor(state: ServiceState, user: str, query: ShowFlavor) -> FlavorLine:
    each = _named(state, user, "flavor", query.name, state.catalog.flavors)
    return FlavorLine(query.name, each.flavor, shown_projects(state.tenants, user, each))


def image(state: ServiceState, user: str, query: ShowImage) -> ImageLine:
    each = _named(state, user, "image", query.name, state.catalog.images)
    return ImageLine(query.name, each.image, shown_projects(state.tenants, user, each))


def _shown(
    state: ServiceState, user: str, kept: Mapping[str, KeptThing], project: str | None
) -> list[tuple[str, KeptThing]]:
    """Stored flavors or images that a user may see, by name; for a project, those that it may use."""
    tenants = state.tenants
    if project is not None:
        tenants.require(user, "reader", project_scope(project))
        return sorted(
            ((name, each) for name, each in kept.items() if may_use(tenants, each, project)), key=itemgetter(0)
        )
    everything = tenants.role(user, CLOUD) >= RANK["reader"]
    return sorted(
        ((name, each) for name, each in kept.items() if everything or visible(tenants, user, each)),
        key=itemgetter(0),
    )


def _named(state: ServiceState, user: str, kind: str, name: str, kept: Mapping[str, KeptThing]) -> KeptThing:
    """One that the user may see. UnknownName, which suggests only names that the user may see, alike for those that
    are not there and those that they may not see. O(1) where there is one, else O(kept)."""
    found, tenants = kept.get(name), state.tenants
    if found is not None and (tenants.role(user, CLOUD) >= RANK["reader"] or visible(tenants, user, found)):
        return found
    raise UnknownName.among(kind, name, (each for each, _ in _shown(state, user, kept, None)), field="name")
