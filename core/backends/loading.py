"""Finds installed drivers by their entry points, and reads their options. A driver is imported when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final, TypeVar

import msgspec

from ...placement.types.errors import UnknownName
from ...placement.types.extras import not_importable
from ...placement.types.from_builtins import from_msgspec
from .protocol import OpenDriver

GROUP: Final = "hostler.drivers"
Options = TypeVar("Options", bound=msgspec.Struct)


def find_driver(name: str) -> OpenDriver:
    """The function that opens a driver. UnknownName if no such driver is installed, InvalidValue if a package that it
    needs is missing, or cannot be imported."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        raise UnknownName.among("driver", name, known, field="driver")
    try:
        found: OpenDriver = known[name].load()
    except Exception as error:
        raise not_importable(error, f"driver {name}", extra=name, field="driver") from error
    return found


def read_options(options: Mapping[str, Any], kind: type[Options]) -> Options:
    """A driver's options as its Struct. InvalidValue, naming the option, if one is wrong, missing or unknown."""
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as error:
        raise from_msgspec(error, "options") from None
