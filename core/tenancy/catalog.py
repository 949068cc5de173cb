"""Flavors, images and volume types that the service keeps: made by cloud admins, named by members."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from ...placement.request.checks import check_spec
from ...placement.request.flavor_and_image import Wishes
from ...placement.request.placement_query import with_image
from ...placement.request.resource_groups import groups_of
from ...placement.storage.pools.request import VolumeType, check_volume_type
from ...placement.types.errors import DuplicateName, InUse, InvalidValue, NoValidHost, UnknownName
from ...placement.types.request import Flavor, Image, Request, RequestSpec
from ...placement.types.validation import whole_number
from .commands import CreateFlavor, CreateImage, CreateVolumeType, DeleteFlavor, DeleteImage, DeleteVolumeType
from .tenants import CLOUD, RANK, Tenants

_PROBE: Final = Flavor(name="probe", vcpus=1, memory_mb=1)


class KeptFlavor(msgspec.Struct, frozen=True):
    """A flavor, and the projects that may use it (empty: all)."""

    flavor: Flavor
    projects: tuple[str, ...] = ()


class KeptImage(msgspec.Struct, frozen=True):
    """An image, and the projects that may use it (empty: all)."""

    image: Image
    projects: tuple[str, ...] = ()


class KeptVolumeType(msgspec.Struct, frozen=True):
    """A volume type with its QoS specs, and the projects that may use it (empty: all)."""

    volume_type: VolumeType
    qos_specs: dict[str, str] | None = None
    projects: tuple[str, ...] = ()


class Catalog(msgspec.Struct):
    """Flavors, images and volume types by name. Every method that changes something raises HostlerError, with nothing
    changed, if it refuses."""

    flavors: dict[str, KeptFlavor] = {}
    images: dict[str, KeptImage] = {}
    volume_types: dict[str, KeptVolumeType] = {}

    def flavor(self, name: str) -> Flavor:
        """The flavor of a name; UnknownName, without suggestions, if none is kept. O(1)."""
        if name not in self.flavors:
            raise unknown("flavor", name)
        return self.flavors[name].flavor

    def image(self, name: str) -> Image:
        """The image of a name; UnknownName, without suggestions, if none is kept. O(1)."""
        if name not in self.images:
            raise unknown("image", name)
        return self.images[name].image

    def volume_type(self, name: str, field: str = "spec.volume_type") -> VolumeType:
        """The volume type of a name; UnknownName, without suggestions, if none is kept. O(1)."""
        if name not in self.volume_types:
            raise unknown("volume_type", name, field)
        return self.volume_types[name].volume_type

    def qos_specs(self, name: str) -> dict[str, Any] | None:
        """The QoS specs of the volume type of a name. O(1)."""
        found = self.volume_types[name].qos_specs
        return None if found is None else dict(found)

    # commands

    def create_flavor(self, tenants: Tenants, command: CreateFlavor) -> None:
        flavor = command.flavor
        check_size(flavor, "flavor")
        _check_name(flavor.name, "flavor.name")
        _check_request(RequestSpec(flavor=flavor))
        _check_projects(tenants, command.projects)
        if flavor.name in self.flavors:
            raise DuplicateName(f"flavor {flavor.name} exists", field="flavor.name")
        self.flavors[flavor.name] = KeptFlavor(flavor, command.projects)

    def delete_flavor(self, command: DeleteFlavor) -> None:
        if command.name not in self.flavors:
            raise UnknownName.among("flavor", command.name, self.flavors, field="name")
        del self.flavors[command.name]

    def create_image(self, tenants: Tenants, command: CreateImage) -> None:
        _check_name(command.name, "name")
        _check_request(RequestSpec(flavor=_PROBE, image=command.image))
        _check_projects(tenants, command.projects)
        if command.name in self.images:
            raise DuplicateName(f"image {command.name} exists", field="name")
        self.images[command.name] = KeptImage(command.image, command.projects)

    def delete_image(self, command: DeleteImage) -> None:
        if command.name not in self.images:
            raise UnknownName.among("image", command.name, self.images, field="name")
        del self.images[command.name]

    def create_volume_type(self, tenants: Tenants, command: CreateVolumeType) -> None:
        volume_type = check_volume_type(command.volume_type, "volume_type")
        _check_name(volume_type.name, "volume_type.name")
        _check_projects(tenants, command.projects)
        if volume_type.name in self.volume_types:
            raise DuplicateName(f"volume type {volume_type.name} exists", field="volume_type.name")
        self.volume_types[volume_type.name] = KeptVolumeType(volume_type, command.qos_specs, command.projects)

    def delete_volume_type(self, command: DeleteVolumeType, in_use: bool) -> None:
        if command.name not in self.volume_types:
            raise UnknownName.among("volume type", command.name, self.volume_types, field="name")
        if in_use:
            raise InUse(f"volume type {command.name} has volumes", field="name", hint="retype or delete them first")
        del self.volume_types[command.name]

    def forget_project(self, project: str) -> None:
        """Remove a deleted project from all access lists. What only it could use is left to cloud admins."""
        # An access list never becomes empty, which would stand for all projects.
        self.flavors = {name: _without(each, project) for name, each in self.flavors.items()}
        self.images = {name: _without(each, project) for name, each in self.images.items()}
        self.volume_types = {name: _without(each, project) for name, each in self.volume_types.items()}


NO_PROJECT: Final = "@none"
"""Entry of a list of projects that grants access to none. It cannot be the id of a project."""


_Kept = TypeVar("_Kept", KeptFlavor, KeptImage, KeptVolumeType)


def _without(kept: _Kept, project: str) -> _Kept:
    if project not in kept.projects:
        return kept
    left = tuple(other for other in kept.projects if other != project) or (NO_PROJECT,)
    return msgspec.structs.replace(kept, projects=left)


def may_use(tenants: Tenants, kept: KeptFlavor | KeptImage | KeptVolumeType, project: str) -> bool:
    """True if guests or volumes of a project may be of this flavor, image or type. O(depth of the project)."""
    if not kept.projects:
        return True
    allowed = {f"project:{name}" for name in kept.projects}
    return any(scope in allowed for scope in tenants.above(f"project:{project}"))


def visible(tenants: Tenants, user: str, kept: KeptFlavor | KeptImage | KeptVolumeType) -> bool:
    """True for what is for all, and for readers of a project that may use it."""
    if not kept.projects:
        return True
    return any(tenants.role(user, f"project:{name}") >= 0 or _below(tenants, user, name) for name in kept.projects)


def _below(tenants: Tenants, user: str, project: str) -> list[str]:
    """Projects below this one that a user has a role in. O(roles)."""
    known = tenants.users.get(user)
    scopes = dict.fromkeys(scope for _, scope in known.roles) if known is not None else {}
    below = [scope for scope in scopes if scope.startswith("project:") and f"project:{project}" in tenants.above(scope)]
    return [scope.partition(":")[2] for scope in below]


def shown_projects(tenants: Tenants, user: str, kept: KeptFlavor | KeptImage | KeptVolumeType) -> list[str]:
    """Projects that may use what is kept, as far as a user may know: all for readers of the cloud, for others those
    that they have a role in, of one above theirs in its place these. Empty: all projects."""
    if tenants.role(user, CLOUD) >= RANK["reader"]:
        return list(kept.projects)
    shown: dict[str, None] = {}
    for name in kept.projects:
        mine = tenants.role(user, f"project:{name}") >= 0
        shown |= dict.fromkeys([name] if mine else _below(tenants, user, name))
    return list(shown)


def unknown(kind: str, name: str, field: str | None = None) -> UnknownName:
    """The same error for an object that does not exist and for one that the caller may not use."""
    words = kind.replace("_", " ")
    return UnknownName(f"there is no {words} {name[:200]!r} for this project", field=field or f"spec.{kind}")


def check_size(flavor: Flavor, field: str) -> None:
    """InvalidValue unless a flavor has at least one virtual CPU and one MiB, as Nova requires of flavors."""
    whole_number(flavor.vcpus, f"{field}.vcpus", least=1)
    whole_number(flavor.memory_mb, f"{field}.memory_mb", least=1)


def _check_name(name: str, field: str) -> None:
    if not name or len(name) > 255 or not name.isprintable():
        raise InvalidValue(f"{field} has 1 to 255 printable characters", field=field)


def _check_request(spec: RequestSpec) -> None:
    """InvalidValue or UnknownName for extra specs and properties that no request could have."""
    check_spec(spec)
    request = with_image(Request(spec=spec))
    try:
        groups_of(request, Wishes.of(request))
    except NoValidHost as error:
        raise InvalidValue(str(error.args[0]), field="flavor.extra_specs", hint=error.hint) from None


def _check_projects(tenants: Tenants, projects: tuple[str, ...]) -> None:
    for project in projects:
        tenants.check_scope(f"project:{project}")
