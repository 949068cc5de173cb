"""Policy files: a TOML file, or a nova.conf or cinder.conf, or a folder of such (``--config-dir``), as values of
options."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..oslo_conf.read import UnknownOption, read_conf
from ..storage.pools.options import STORAGE, StorageOptions
from ..storage.pools.policy import CINDER_CONF
from ..types.errors import InvalidValue
from ..types.options import OptionGroup
from .policy import SECTIONS


def policy_values(path: Path) -> dict[str, dict[str, Any]]:
    """The content of a policy file, as ``Policy.from_mapping`` reads it: of a folder, or a file whose name ends in
    ``.conf``, as ``Policy.from_nova_conf`` reads it (and warns), with the section ``[storage]``; else TOML. Raises
    InvalidValue if it cannot be read."""
    if _is_conf(path):
        return _conf_values("nova", path, SECTIONS)
    return _toml_values(path, "policy")


def storage_policy_values(path: Path) -> dict[str, dict[str, Any]]:
    """The content of a file that says only how volumes are placed, as ``VolumePolicy.from_mapping`` reads it: of a
    folder, or a file whose name ends in ``.conf``, as ``VolumePolicy.from_cinder_conf`` reads it (and warns); else TOML
    with the table ``[storage]`` alone. Raises InvalidValue if it cannot be read, or says anything else."""
    if _is_conf(path):
        values = _conf_values("cinder", path, CINDER_CONF)
        return {STORAGE: values.get("DEFAULT", {}) | values.get(STORAGE, {})}
    values = _toml_values(path, "storage_policy")
    for name in values:
        if name != STORAGE:
            problem = f"the storage policy {str(path)[:200]} has only the table [{STORAGE}], not {name[:60]}"
            raise InvalidValue(problem, field="storage_policy")
    return values


def _is_conf(path: Path) -> bool:
    return path.suffix == ".conf" or path.is_dir()


def _conf_values(service: str, path: Path, sections: Mapping[str, type[OptionGroup]]) -> dict[str, dict[str, Any]]:
    conf = read_conf(service, [path], {**sections, STORAGE: StorageOptions})
    for sentence in conf.unknown:
        warnings.warn(sentence, UnknownOption, stacklevel=3)
    return conf.values


def _toml_values(path: Path, field: str) -> dict[str, dict[str, Any]]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidValue(f"the policy {str(path)[:200]} cannot be read: {error}", field=field) from None
