"""The configuration of the service: a TOML file, environment variables on top of it, and everything checked at once.

A variable ``HOSTLER_SECTION__KEY`` overrides ``key`` of the table ``[section]``; further ``__`` address nested tables.
Errors name the file, line and key, or the variable.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect

from ...placement.policy.files import policy_values, storage_policy_values
from ...placement.policy.policy import Policy
from ...placement.storage.pools.options import STORAGE
from ...placement.storage.pools.policy import VolumePolicy
from ...placement.types.errors import InvalidValue
from ..machine.order_policies import PolicyValues
from ..reconcile.backend import BackendConfig
from ..regions.options import RegionOptions
from .settings import Config, KeyPath, problems_of

PREFIX: Final = "HOSTLER_"
SECRET: Final = re.compile(r"(^|_)(password|secret|token|sha256)$")
_STEP: Final = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


class Problem(NamedTuple):
    """Something wrong: ``where`` is FILE:LINE or a variable's name, ``key`` is dotted."""

    where: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class BadConfig(InvalidValue):
    """The configuration cannot be used; ``problems`` has all that is wrong with it."""

    code = "bad_config"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)), field=self.problems[0].key or "config")


@dataclass(frozen=True)
class Loaded:
    """The settings, their file (or None), and the source of each given key."""

    config: Config
    file: Path | None = None
    origins: Mapping[KeyPath, str] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> str:
        """FILE:LINE, a variable's name, ``command line`` or ``default``."""
        return self.origins.get(path, "default")

    @property
    def policy_file(self) -> Path | None:
        """The configured policy file, or None."""
        return self._beside(self.config.policy)

    @property
    def shadow_policy_file(self) -> Path | None:
        """The configured file of the shadow policy, or None."""
        return self._beside(self.config.shadow_policy)

    @property
    def storage_policy_file(self) -> Path | None:
        """The configured file of the storage policy, or None."""
        return self._beside(self.config.storage_policy)

    def policy_values(self) -> PolicyValues | None:
        """The checked content of the policy file, with that of the storage policy's as its table ``storage``; None if
        neither is configured. InvalidValue, UnknownName, DuplicateName."""
        values, storage = _policy_values(self.policy_file), self.storage_policy_values()
        if values is None or storage is None:
            return storage if values is None else values
        if values.get(STORAGE):
            problem = f"{self.policy_file} says how volumes are placed, and storage_policy names another file"
            raise InvalidValue(problem, field="storage_policy", hint=f"remove [{STORAGE}] from it")
        return values | storage

    def storage_policy_values(self) -> PolicyValues | None:
        """The checked content of the storage policy's file; None if none is configured. Errors as above."""
        path = self.storage_policy_file
        if path is None:
            return None
        values = storage_policy_values(path)
        VolumePolicy.from_mapping(values)
        return values

    def shadow_policy_values(self) -> PolicyValues | None:
        """The same of the shadow policy."""
        return _policy_values(self.shadow_policy_file)

    def _beside(self, name: str | None) -> Path | None:
        if name is None:
            return None
        return (self.file.parent if self.file is not None else Path()) / name


def _policy_values(path: Path | None) -> PolicyValues | None:
    if path is None:
        return None
    values = policy_values(path)
    Policy.from_mapping(values)
    return values


def load(
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[tuple[str, ...], Any] | None = None,
) -> Loaded:
    """The configuration: values of ``options`` over those of the environment over those of a file. Raises BadConfig,
    which names all that is wrong."""
    environment = os.environ if environment is None else environment
    path = Path(file) if file is not None else None
    text, values = _read(path) if path is not None else ("", {})
    source = _Source(path, text, values)
    source.override(environment)
    for key, value in (options or {}).items():
        source.set(key, value, "command line")
    config = source.convert()
    source.problems += [source.problem(key, problem) for key, problem in problems_of(config)]
    if source.problems:
        raise BadConfig(source.problems)
    return Loaded(config, path, source.origins())


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        line = re.search(r"line (\d+)", place)
        where = f"{path}:{line[1]}" if line else f"{path}:{len(text.splitlines())}"
        raise BadConfig([Problem(where, "", f"not TOML: {message}")]) from error
    except RecursionError as error:
        raise BadConfig([Problem(str(path), "", "not TOML: nested too deeply")]) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadConfig([Problem(str(path), "", f"cannot be read: {reason}")]) from error


class _Source:
    """Collected values and their sources."""

    def __init__(self, path: Path | None, text: str, values: dict[str, Any]) -> None:
        self._path, self._text, self.values = path, text, values
        self._above: dict[KeyPath, str] = {}
        self._lines: dict[KeyPath, int] | None = None
        self.problems: list[Problem] = []

    def override(self, environment: Mapping[str, str]) -> None:
        """Put the values of HOSTLER_SECTION__KEY variables over those of the file."""
        for name in sorted(environment):
            if not name.startswith(PREFIX) or "__" not in name:
                continue
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
            kind = _kind_at(path)
            if kind is None:
                self.problems.append(Problem(name, _dotted(path), _unknown(path[-1], _names(path[:-1]))))
            else:
                self.set(path, _from_variable(environment[name], kind), name)

    def set(self, path: KeyPath, value: Any, origin: str) -> None:
        """Set a value, replacing an existing one."""
        table = self.values
        for name in path[:-1]:
            below = table.get(str(name))
            if not isinstance(below, dict):
                below = table[str(name)] = {}
            table = below
        table[str(path[-1])] = value
        self._above[path] = origin

    def convert(self) -> Config:
        """The settings; values with the wrong type and unknown keys are omitted and reported as problems."""
        while True:
            above: KeyPath = ()
            try:
                for table, value, kind in self._named_tables():
                    above = table
                    msgspec.convert(value, kind)
                above = ()
                return msgspec.convert(self.values, Config)
            except msgspec.ValidationError as error:
                path = self._note(str(error), above)
                if not _drop(self.values, path):
                    return Config()

    def _named_tables(self) -> Iterator[tuple[KeyPath, Any, type[Any]]]:
        """The tables of back ends and regions with their types, which are checked one by one: msgspec does not say
        which key of a mapping is wrong."""
        for above, kind in (("backends", BackendConfig), ("regions", RegionOptions)):
            tables = self.values.get(above)
            if isinstance(tables, dict):
                for name, value in list(tables.items()):
                    yield (above, name), value, kind

    def _note(self, complaint: str, above: KeyPath) -> KeyPath:
        """Report a msgspec error, in the value at the path ``above``, as a problem; returns the path to remove so that
        the rest can be checked."""
        text, _, place = complaint.partition(" - at `$")
        path: KeyPath = (*above, *(int(index) if index else name for name, index in _STEP.findall(place)))
        if unknown := _UNKNOWN.fullmatch(text):
            path, text = (*path, unknown[1]), _unknown(unknown[1], _names(path))
        elif missing := _MISSING.fullmatch(text):
            if any(problem.key == _dotted((*path, missing[1])) for problem in self.problems):
                return path  # it was there, but wrong
            text = f"{missing[1]} is missing"
        elif text.startswith("Invalid enum") and isinstance(kind := _kind_at(path), inspect.LiteralType):
            text = f"{text}, there are: {', '.join(map(str, kind.values))}"
        self.problems.append(self.problem(path, text))
        return path

    def problem(self, path: KeyPath, text: str) -> Problem:
        """A problem with a key, with the place where it was given, or the table where it might have been."""
        shortened = path
        while shortened and shortened not in self._above and shortened not in self.lines:
            shortened = shortened[:-1]
        return Problem(self._where(shortened), _dotted(path), text)

    def _where(self, path: KeyPath) -> str:
        if path in self._above:
            return self._above[path]
        if self._path is None:
            return "default"
        return f"{self._path}:{self.lines[path]}" if path in self.lines else str(self._path)

    @property
    def lines(self) -> dict[KeyPath, int]:
        """The line at which each key of the file begins."""
        if self._lines is None:
            self._lines = key_lines(self._text)
        return self._lines

    def origins(self) -> dict[KeyPath, str]:
        return {**{path: f"{self._path}:{line}" for path, line in self.lines.items()}, **self._above}


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) at which each key of a TOML text, tables included, is first given. O(lines ** 2).

    A key is in the parsed value of a prefix of the text as soon as its statement is complete, in any notation.
    """
    found: dict[KeyPath, int] = {}
    lines = text.splitlines(keepends=True)
    start = 0
    for end in range(1, len(lines) + 1):
        try:
            value = tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        while start < end - 1 and (not lines[start].strip() or lines[start].lstrip().startswith("#")):
            start += 1
        for path in paths(value):
            found.setdefault(path, start + 1)
        start = end
    return found


def paths(value: Any, above: KeyPath = ()) -> Iterator[KeyPath]:
    """Paths to all parts of a plain value, in order, tables before their contents."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        yield (*above, name)
        yield from paths(item, (*above, name))


def _drop(values: Any, path: KeyPath) -> bool:
    """Remove what a path leads to; False if there is nothing to be removed."""
    if not path:
        return False
    for step in path[:-1]:
        values = values[step]
    del values[path[-1]]
    return True


# what the settings look like


def _kind_at(path: KeyPath) -> inspect.Type | None:
    """The type of the key that a path leads to; None if there is none."""
    kind: inspect.Type | None = inspect.type_info(Config)
    for step in path:
        if isinstance(kind, inspect.AnyType):
            return kind
        if isinstance(kind, inspect.DictType):
            kind = kind.value_type
            continue
        if not isinstance(kind, inspect.StructType):
            return None
        kind = next((_given(each.type) for each in kind.fields if each.encode_name == step), None)
    return kind


def _given(kind: inspect.Type) -> inspect.Type:
    """What a key's value is if it has one: the type without None."""
    if isinstance(kind, inspect.UnionType):
        (kind,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
    return kind


def _names(path: KeyPath) -> list[str]:
    kind: inspect.Type | None = inspect.type_info(Config)
    for step in path:
        if isinstance(step, int):
            kind = getattr(kind, "item_type", None)
        elif isinstance(kind, inspect.DictType):
            kind = kind.value_type
        elif isinstance(kind, inspect.StructType):
            kind = next((_given(each.type) for each in kind.fields if each.encode_name == step), None)
    return [each.encode_name for each in kind.fields] if isinstance(kind, inspect.StructType) else []


def _unknown(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"there is no such key, the closest is {close[0]}"
    return f"there is no such key, there are: {', '.join(names)}" if names else "there is no such key"


def _from_variable(text: str, kind: inspect.Type) -> Any:
    """A variable's text as a value: texts as they are, lists by commas or as TOML, all else as TOML."""
    if isinstance(kind, (inspect.StrType, inspect.LiteralType)):
        return text
    if isinstance(kind, (inspect.VarTupleType, inspect.ListType)) and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _dotted(path: KeyPath) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
