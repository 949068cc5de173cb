"""Modules of optional dependencies: imported where they are used, and reported with the extra that installs them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

from .errors import InvalidValue

EXTRAS: Final = {
    "bokeh": "report",
    "botocore": "ec2",
    "defusedxml": "imports",
    "distributed": "cluster",
    "h11": "service",
    "httpx": "service",
    "jsonschema": "service",
    "libvirt": "libvirt",
    "matplotlib": "report",
    "openpyxl": "imports",
    "opentelemetry": "telemetry",
    "oslo_config": "service",
    "oslo_messaging": "openstack",
    "oslo_policy": "service",
    "prometheus_client": "service",
    "psycopg": "openstack",
    "pyVim": "vsphere",
    "pyVmomi": "vsphere",
    "pyarrow": "report",
    "pymysql": "openstack",
    "pytest": "conformance",
    "pytest_trio": "conformance",
    "scipy": "planning",
    "sqlalchemy": "openstack",
    "structlog": "service",
    "zhmcclient": "zhmc",
    "zstandard": "imports",
}
"""Modules of optional dependencies, each with an extra that installs it."""


def import_extra(name: str, extra: str, *, field: str) -> Any:
    """The module ``name`` of the optional dependency ``extra``. InvalidValue, with the cause, where it is not installed
    or cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise unusable(error, name, extra, field=field) from error


def library_at_fault(error: Exception) -> str | None:
    """The module of an extra that is not installed, or that ``error`` was raised in while it was imported; None where
    the error has another cause."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name in EXTRAS:
        return name
    import traceback

    importing = (
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    )
    return next((each for each in importing if each in EXTRAS), None)


def not_importable(error: Exception, what: str, *, extra: str, field: str) -> InvalidValue:
    """The error for a part of Hostler, or of another package, whose import raised ``error``; ``extra`` installs what it
    needs, if that is the cause."""
    library = library_at_fault(error)
    if library is not None:
        return unusable(error, library, extra, field=field)
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    return InvalidValue(f"{what} cannot be imported: {cause}", field=field)


def require_extra(name: str, extra: str, *, field: str) -> None:
    """InvalidValue where the module ``name`` of the optional dependency ``extra``, which is imported when it is first
    used, is not installed."""
    if importlib.util.find_spec(name) is None:
        raise unusable(ModuleNotFoundError(name=name), name, extra, field=field)


def unusable(error: Exception, name: str, extra: str, *, field: str | None = None) -> InvalidValue:
    """The error for a module of an extra whose import raised ``error``."""
    library = name.partition(".")[0]
    hint = f"pip install 'hostler[{extra}]'"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == library:
        return InvalidValue(f"{library} of the extra {extra!r} is not installed", field=field, hint=hint)
    cause = f"{type(error).__name__}: {error}"
    text = f"{library} of the extra {extra!r} is installed, but cannot be imported: {' '.join(cause.split())}"
    return InvalidValue(text, field=field)
