"""Checks of single values: each returns the value in its plain type, or raises InvalidValue or UnknownName that names
the field."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import os_resource_classes
import os_traits
from numpy.typing import NDArray

from ...ext.tables import parse_uuid
from .errors import InvalidValue, UnknownName
from .limits import MAX_AMOUNT

LONGEST_NAME: Final = 200
"""Characters of a provider's or service host's name (Placement's limit)."""
LONGEST_CUSTOM: Final = 255
"""Characters of a trait's or resource class's name (Placement's limit)."""
MOST_RATIO: Final = 3.40282e38
"""Maximum allocation ratio (Placement: a single-precision database column)."""
MAX_NESTING: Final = 32
"""Levels of lists and mappings in each other within a request or report: more than has a meaning, and few enough for
the interpreter's limit wherever they are read or stored."""
STANDARD_CLASSES: Final = frozenset(os_resource_classes.STANDARDS)
_MOST_DIGITS: Final = 300
_CUSTOM: Final = re.compile("CUSTOM_[A-Z0-9_]+")


def shown(value: object) -> str:
    """``repr`` of a value, truncated for a message."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= 80 else text[:77] + "..."


def is_deeper(value: object, levels: int) -> bool:
    """True if lists and mappings lie in each other more than ``levels`` deep. O(size)."""
    level = [value]
    for _ in range(levels):
        inner = (each for each in level if isinstance(each, (Mapping, list, tuple, set, frozenset)))
        level = [part for each in inner for part in ((*each, *each.values()) if isinstance(each, Mapping) else each)]
        if not level:
            return False
    return True


def cut(text: object) -> str:
    """A received string, truncated for a message."""
    return str(text)[:200]


def whole_number(value: object, field: str, *, least: int = 0, most: int = MAX_AMOUNT) -> int:
    """``value`` as an int within [least, most]; InvalidValue otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidValue(f"{field} must be a whole number, got {shown(value)}", field=field)
    if not least <= value <= most:
        raise InvalidValue(f"{field} must be between {least} and {most}, got {shown(value)}", field=field)
    return int(value)


def counted(text: str, most: int) -> int | None:
    """The number that decimal digits are, if it is at most ``most``; None otherwise, also for more digits than Python
    converts."""
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        return None
    number = int(text)
    return number if number <= most else None


def finite(value: object, field: str) -> float:
    """``value`` as a finite float; InvalidValue otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidValue(f"{field} must be a number, got {shown(value)}", field=field)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidValue(f"{field} must be a finite number, got {shown(value)}", field=field)
    return number


def ratio(value: object, field: str) -> float:
    """``value`` as a finite float >= 0 within the range of a single-precision database column; InvalidValue
    otherwise."""
    number = finite(value, field)
    if not 0 <= number <= MOST_RATIO:
        raise InvalidValue(f"{field} must not be negative nor above {MOST_RATIO}, got {shown(value)}", field=field)
    return number


def uuid_words(text: object, field: str) -> tuple[int, int]:
    """The high and low 64 bits of a uuid; InvalidValue if ``text`` is not a uuid."""
    if not isinstance(text, str):
        raise InvalidValue(f"{field} must be a uuid, got {shown(text)}", field=field)
    try:
        return parse_uuid(text)
    except ValueError:
        raise InvalidValue(f"{field} must be a uuid, got {shown(text)}", field=field) from None


def check_name(name: object, field: str) -> str:
    """``name`` if it is a valid provider name: 1 to 200 characters, no control characters; InvalidValue otherwise."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidValue(f"{field} must be 1 to {LONGEST_NAME} printable characters, got {shown(name)}", field=field)
    return name


def check_provider_name(name: object, field: str) -> str:
    """``name`` if Placement's API accepts it as a provider name: any 1 to 200 characters; InvalidValue otherwise."""
    if not 0 < len(check_text(name, field)) <= LONGEST_NAME:
        raise InvalidValue(f"{field} must be 1 to {LONGEST_NAME} characters, got {shown(name)}", field=field)
    return str(name)


def check_text(value: object, field: str) -> str:
    """``value`` if it is a string that UTF-8 can encode; InvalidValue otherwise."""
    if not isinstance(value, str) or not (value.isascii() or value.encode(errors="replace").decode() == value):
        raise InvalidValue(f"{field} must be a string, got {shown(value)}", field=field)
    return value


def check_array(value: object, field: str, shape: tuple[int, ...], kinds: str, what: str) -> NDArray[Any]:
    """``value`` as an array of this shape and one of these kinds of dtype; InvalidValue that describes the expected
    value with ``what``."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        array = np.empty((), object)
    if array.shape != shape or array.dtype.kind not in kinds:
        raise InvalidValue(f"{field} must be {what}, got {shown(value)}", field=field)
    return array


@functools.cache
def standard_traits() -> frozenset[str]:
    """All traits of os-traits."""
    return frozenset(os_traits.get_traits())


def check_trait(name: object) -> str:
    """``name`` if it is a standard or a CUSTOM_ trait; UnknownName otherwise. O(1)."""
    if isinstance(name, str) and (name in standard_traits() or is_custom(name)):
        return name
    raise UnknownName.among("trait", name if isinstance(name, str) else shown(name), standard_traits())


def check_traits(names: object) -> frozenset[str]:
    """A set of traits for a host class; UnknownName for an unknown trait, InvalidValue for anything but several
    strings. O(traits)."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidValue(f"traits must be several strings, got {shown(names)}", field="traits")
    return frozenset(map(check_trait, names))


def check_resource_class(name: object) -> str:
    """``name`` if it is a standard or a CUSTOM_ resource class; UnknownName otherwise. O(1)."""
    if isinstance(name, str) and (name in STANDARD_CLASSES or is_custom(name)):
        return name
    raise UnknownName.among("resource class", name if isinstance(name, str) else shown(name), STANDARD_CLASSES)


def is_custom(name: str) -> bool:
    """True if ``name`` is a valid name of a custom trait or resource class. O(1)."""
    return len(name) <= LONGEST_CUSTOM and _CUSTOM.fullmatch(name) is not None
