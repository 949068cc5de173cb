"""Catalogues of hosts that can be bought: a fleet file's ``[[hardware]]``, or a CSV file with a kind a line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName
from ..trace.csv_columns import read_columns, read_header
from .hardware import Hardware

_TEXTS: Final = ("name", "gpu_model")
_LISTS: Final = ("zones", "cells", "traits")


class _Catalogue(msgspec.Struct, forbid_unknown_fields=True):
    hardware: list[Hardware]
    name: str = ""
    currency: str = ""


def read_hardware(path: Path) -> tuple[tuple[Hardware, ...], str]:
    """The kinds of host of a file, in its order, none of which is there yet, and the currency of their prices ("" if it
    does not tell).

    TOML: ``currency`` and tables ``[[hardware]]`` as in a fleet file. CSV, gzipped or not: columns by the same keys,
    cells that are empty left out, lists as A|B. InvalidValue, UnknownName or DuplicateName name the file and what is at
    fault."""
    if path.suffix.lower() == ".toml":
        try:
            found = msgspec.convert(tomllib.loads(path.read_text()), _Catalogue)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise InvalidValue(f"{path}: {reason}", field="catalogue") from None
        kinds, currency = found.hardware, found.currency
    else:
        kinds, currency = _of_table(path)
    names = [kind.name for kind in kinds]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DuplicateName(f"{path}: hardware {twice} is there twice", field="catalogue")
    if not kinds:
        raise InvalidValue(f"{path}: no hardware", field="catalogue")
    return tuple(msgspec.structs.replace(kind, count=0) for kind in kinds), currency


def _of_table(path: Path) -> tuple[list[Hardware], str]:
    fields = (*Hardware.__struct_fields__, "currency")
    header = read_header(path, field="catalogue")
    for name in header:
        if name not in fields:
            raise UnknownName.among(f"{path}: column", name, fields, field="catalogue")
    columns = read_columns(path, dict.fromkeys(header, str.strip), field="catalogue")
    lines = [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]
    currencies = {line.pop("currency", "") for line in lines}
    if len(currencies) > 1:
        raise InvalidValue(f"{path}: prices in several currencies: {', '.join(sorted(currencies))}", field="catalogue")
    return [_kind(path, line) for line in lines], next(iter(currencies), "")


def _kind(path: Path, line: dict[str, str]) -> Hardware:
    told: dict[str, Any] = {}
    for name, text in line.items():
        if not text:
            continue
        if name in _LISTS:
            told[name] = [part.strip() for part in text.split("|") if part.strip()]
        elif name == "resources":
            parts = [part.partition("=") for part in text.split("|") if part.strip()]
            told[name] = {key.strip(): amount.strip() for key, _, amount in parts}
        else:
            told[name] = text if name in _TEXTS else text.replace("_", "")
    try:
        return msgspec.convert(told, Hardware, strict=False)
    except (msgspec.ValidationError, HostlerError) as error:
        raise InvalidValue(f"{path}: {line.get('name', '')}: {error}", field="catalogue") from None
