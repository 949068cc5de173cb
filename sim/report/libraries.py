"""Libraries that only reports need, imported when they are."""

from __future__ import annotations

import importlib
from typing import Any

from ...placement.types.errors import InvalidValue


def library(name: str) -> Any:
    """The module. InvalidValue where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        hint = "pip install 'hostler[report]'"
        raise InvalidValue(f"{name.partition('.')[0]} is not installed", field="report", hint=hint) from None
