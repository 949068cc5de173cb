"""Modules of optional dependencies: imported where they are used, and reported with the extra that installs them."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import InvalidValue


def import_extra(name: str, extra: str, *, field: str) -> Any:
    """The module ``name`` of the optional dependency ``extra``. InvalidValue, with the cause, where it is not installed
    or cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise unusable(error, name, extra, field=field) from error


def unusable(error: Exception, name: str, extra: str, *, field: str | None = None) -> InvalidValue:
    """The error for a module of an extra whose import raised ``error``."""
    library = name.partition(".")[0]
    hint = f"pip install 'hostler[{extra}]'"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == library:
        return InvalidValue(f"{library} of the extra {extra!r} is not installed", field=field, hint=hint)
    cause = f"{type(error).__name__}: {error}"
    text = f"{library} of the extra {extra!r} is installed, but cannot be imported: {' '.join(cause.split())}"
    return InvalidValue(text, field=field)
