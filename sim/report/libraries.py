"""Libraries that only reports need, imported when they are."""

from __future__ import annotations

from typing import Any

from ...placement.types.extras import import_extra


def library(name: str) -> Any:
    """The module. InvalidValue where it is not installed or cannot be imported."""
    return import_extra(name, "report", field="report")
