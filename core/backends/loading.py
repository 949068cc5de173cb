"""Finds installed drivers by their entry points, and reads their options. A driver is imported when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final, TypeVar

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.from_builtins import from_msgspec
from .protocol import OpenDriver

GROUP: Final = "hostler.drivers"
Options = TypeVar("Options", bound=msgspec.Struct)


def find_driver(name: str) -> OpenDriver:
    """The function that opens a driver. UnknownName if no such driver is installed, InvalidValue if a package that it
    needs is missing."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        raise UnknownName.among("driver", name, known, field="driver")
    try:
        found: OpenDriver = known[name].load()
    except ImportError as error:
        hint = f"install the extra of the driver: hostler[{name}]"
        raise InvalidValue(f"driver {name} cannot be imported: {error}", field="driver", hint=hint) from error
    return found


def read_options(options: Mapping[str, Any], kind: type[Options]) -> Options:
    """A driver's options as its Struct. InvalidValue, naming the option, if one is wrong, missing or unknown."""
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as error:
        raise from_msgspec(error, "options") from None
