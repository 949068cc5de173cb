"""Reads configuration files of OpenStack's services by oslo.config, which they themselves read them by.

It does not say what an option means: values go to the groups of ``types.options`` as if written in a mapping.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, get_type_hints

from ..types.errors import InvalidValue
from ..types.extras import import_extra
from ..types.options import OptionGroup, Ratios, Words

ConfPath = str | os.PathLike[str]
Values = dict[str, dict[str, Any]]

REPEATED: Final = frozenset({("filter_scheduler", "available_filters"), ("pci", "alias")})
"""Options that may stand in a file several times, each with one value (oslo.config MultiOpt)."""
FORMER: Final = {("pci", "alias"): (("DEFAULT", "pci_alias"),)}
"""Option -> (section, name) under which it may stand too, of those that Nova 33 and 34 still read."""


class UnknownOption(UserWarning):
    """A section that Hostler reads has an option that the service does not have: a misspelt one, most likely."""


@dataclass(frozen=True)
class Conf:
    """``values``: group -> option -> value, of options that a file sets. ``unknown``: one sentence for each option that
    neither Hostler nor the service knows. ``ignored``: (section, option) that the service knows and no decision
    depends on."""

    values: Values
    unknown: tuple[str, ...]
    ignored: tuple[tuple[str, str], ...]


def read_conf(service: str, paths: Sequence[ConfPath], groups: Mapping[str, type[OptionGroup]]) -> Conf:
    """The options of ``groups`` (by section) in files of ``service``, ``nova`` or ``cinder``; of several
    files that set an option the last decides.

    A path that is a folder is read as by ``--config-dir``: its files ``*.conf`` in the order of their names. Sections
    other than those of ``groups`` are ignored, ``$option`` and ``${section.option}`` are replaced by what the files
    say. Raises InvalidValue if a file cannot be read, or a value is not of its option's type, and if oslo.config is
    not installed. O(size of the files).
    """
    cfg = import_extra("oslo_config.cfg", "service", field=service)
    sections = _sections(cfg, service, paths)
    try:
        conf = _parsed(cfg, paths, groups, sections)
        values = {name: _set(cfg, conf, name, group) for name, group in groups.items()}
    except (cfg.Error, ValueError) as error:
        raise InvalidValue(f"{service}.conf: {error}", field=service) from error
    known = _known_options(service)
    unknown, ignored = [], []
    for section, options in sections.items():
        name = _group_of(section, groups)
        if name is None:
            continue
        own, others = groups[name].option_names(), known.get(name, frozenset())
        for option in options:
            if option in others and option not in own:
                ignored.append((name, option))
            elif option not in own:
                unknown.append(_unknown(service, name, option, {*own, *others}))
    return Conf({name: found for name, found in values.items() if found}, tuple(unknown), tuple(ignored))


def _sections(cfg: Any, service: str, paths: Sequence[ConfPath]) -> dict[str, dict[str, list[str]]]:
    """Section -> option -> values as written, of all files."""
    if not paths:
        raise InvalidValue(f"no {service}.conf was named", field=service)
    found: dict[str, dict[str, list[str]]] = {}
    for path in map(Path, paths):
        for each in sorted(path.glob("*.conf")) if path.is_dir() else [path]:
            sections: dict[str, dict[str, list[str]]] = {}
            try:
                cfg.ConfigParser(str(each), sections).parse()
            except (OSError, ValueError, cfg.ParseError) as error:
                reason = " ".join(str(error).split())[:300]
                raise InvalidValue(
                    f"{str(each)[:200]!r} cannot be read as a {service}.conf: {reason}", field=service
                ) from error
            for section, options in sections.items():
                found.setdefault(section, {}).update(options)
    return found


def _parsed(cfg: Any, paths: Sequence[ConfPath], groups: Mapping[str, type[OptionGroup]], sections: Any) -> Any:
    conf = cfg.ConfigOpts()
    for name, group in groups.items():
        for option in group.option_names():
            conf.register_opt(_opt(cfg, name, group, option), group=None if name == "DEFAULT" else name)
    # What a value refers to must be registered too; as texts, whatever the service takes them for.
    for section, options in sections.items():
        for option in options:
            name = _group_of(section, groups) or section
            try:
                conf.register_opt(cfg.StrOpt(option), group=None if name == "DEFAULT" else name)
            except (cfg.DuplicateOptError, ValueError):
                continue
    arguments = [f"--config-{'dir' if Path(path).is_dir() else 'file'}={os.fspath(path)}" for path in paths]
    conf(arguments, project="hostler", default_config_files=[], default_config_dirs=[], use_env=False)
    return conf


def _opt(cfg: Any, section: str, group: type[OptionGroup], option: str) -> Any:
    """The option as the service registers it, without limits: those are checked where the value is read. It has its
    default, which a value of another option may refer to."""
    if (section, option) in REPEATED:
        former = [cfg.DeprecatedOpt(name, group=old) for old, name in FORMER.get((section, option), ())]
        return cfg.MultiStrOpt(option, deprecated_opts=former)
    kind = str(_types(group)[option])
    default = getattr(_defaults(group), option)
    if _types(group)[option] in (Words, Ratios):
        return cfg.ListOpt(option, default=None if default is None else [str(each) for each in default])
    for word, made in (("bool", cfg.BoolOpt), ("float", cfg.FloatOpt), ("int", cfg.IntOpt)):
        if re.search(rf"\b{word}\b", kind):
            return made(option, default=default)
    return cfg.StrOpt(option, default=None if default is None else str(default))


@functools.cache
def _defaults(group: type[OptionGroup]) -> OptionGroup:
    return group()


@functools.cache
def _types(group: type[OptionGroup]) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


def _set(cfg: Any, conf: Any, name: str, group: type[OptionGroup]) -> dict[str, Any]:
    """The options of a section that the files set. An option that is set to nothing has its default."""
    values = conf if name == "DEFAULT" else conf[name]
    found = {}
    for option in group.option_names():
        try:
            location = conf.get_location(option, group=None if name == "DEFAULT" else name)
            value = values[option] if location is not None and location.location is cfg.Locations.user else None
        except (cfg.Error, ValueError) as error:
            raise ValueError(f"[{name}] {option}: {error}") from error
        if isinstance(value, list) and (name, option) not in REPEATED:
            value = [word for word in value if word]
        if value is not None:
            found[option] = value
    return found


def _group_of(section: str, groups: Mapping[str, type[OptionGroup]]) -> str | None:
    """The group that a section is: oslo.config does not tell lower from upper case in names of sections."""
    return next((name for name in groups if name.lower() == section.lower()), None)


@functools.cache
def _known_options(service: str) -> Mapping[str, frozenset[str]]:
    """Names of the options that the releases of a service have, by section, of the sections that Hostler reads
    (written by ``python -m hostler.bench.option_names``)."""
    text = files(__package__).joinpath("known_options.json").read_text(encoding="utf-8")
    return {section: frozenset(names) for section, names in json.loads(text)[service].items()}


def _unknown(service: str, section: str, option: str, names: set[str]) -> str:
    near = difflib.get_close_matches(option, sorted(names), n=1)
    meant = f" (closest: {near[0]})" if near else ""
    return f"{service}.conf: unknown option [{section}] {option}{meant}; it is ignored"
