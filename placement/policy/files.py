"""Policy files: a TOML file, or a nova.conf, or a folder of such (``--config-dir``), as values of options."""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path
from typing import Any

from ..oslo_conf.read import UnknownOption, read_conf
from ..storage.pools.options import STORAGE, StorageOptions
from ..types.errors import InvalidValue
from .policy import SECTIONS


def policy_values(path: Path) -> dict[str, dict[str, Any]]:
    """The content of a policy file, as ``Policy.from_mapping`` reads it: of a folder, or a file whose name ends in
    ``.conf``, as ``Policy.from_nova_conf`` reads it (and warns), with the section ``[storage]``; else TOML. Raises
    InvalidValue if it cannot be read."""
    if path.suffix == ".conf" or path.is_dir():
        conf = read_conf("nova", [path], {**SECTIONS, STORAGE: StorageOptions})
        for sentence in conf.unknown:
            warnings.warn(sentence, UnknownOption, stacklevel=2)
        return conf.values
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidValue(f"the policy {str(path)[:200]} cannot be read: {error}", field="policy") from None
