"""Loads classes that entry points or dotted paths of a policy name. It knows no filters or weighers."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoints
from typing import Any

from .errors import HostlerError, RuleFailed, said


@functools.lru_cache(maxsize=16)
def installed(find: Callable[..., EntryPoints], path: tuple[str, ...], group: str) -> EntryPoints:
    """The entry points of a group, looked up once per import path: that reads the metadata of every package there."""
    return find(group=group)


def is_path(name: str) -> bool:
    """Whether a name is a path: ``package.module.Class``, or ``package.module:Class``."""
    return "." in name or ":" in name


def at_path(path: str) -> Any:
    """What a path names. Raises what importing it does."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def imported(load: Callable[[], Any], path: str, field: str) -> Any:
    """The result of ``load``. A third-party module may fail in any way: the error is reported for the policy that names
    it."""
    try:
        return load()
    except (HostlerError, MemoryError):
        raise
    except Exception as error:
        raise RuleFailed(f"{field}: {path[:200]} cannot be loaded ({said(error)})", field=field) from error
