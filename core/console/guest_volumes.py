"""Volumes of guests as they are written on the command line."""

from __future__ import annotations

from typing import Final

from ...placement.types.errors import InvalidValue
from ..lifecycle_commands import GuestVolume, guest_volume

NAMES: Final = ("size", "type", "image", "name", "zone", "uuid", "keep")


def read_volume(text: str, project: str = "", user: str = "") -> GuestVolume:
    """A volume from ``20`` or ``size=20,type=gold,...``. InvalidValue for anything else."""
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "size", part
        if name not in NAMES or not value or name in given:
            problem = f"{part!r} is not NAME=VALUE with one of {', '.join(NAMES)}, each once"
            raise InvalidValue(problem, field="volume")
        given[name] = value
    size, keep = given.get("size", ""), given.get("keep", "no")
    if not size.isascii() or not size.isdigit() or int(size) < 1:
        raise InvalidValue(f"{text!r} has no size: a whole number of GiB, at least 1", field="volume")
    if keep not in ("yes", "no"):
        raise InvalidValue(f"keep must be yes or no, got {keep!r}", field="volume")
    return guest_volume(
        int(size),
        volume_type=given.get("type"),
        zone=given.get("zone"),
        image=given.get("image", ""),
        name=given.get("name", ""),
        keep=keep == "yes",
        uuid=given.get("uuid"),
        project_id=project,
        user_id=user,
    )
