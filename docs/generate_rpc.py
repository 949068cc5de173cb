"""Writes the tables of docs/rpc.md from the types, between their marks.

python docs/generate_rpc.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from hostler.core.engine_commands import Asked
from hostler.core.etcd import errors as etcd_errors
from hostler.core.machine.event_log import Event
from hostler.core.rpc import client
from hostler.core.rpc.messages import Options
from hostler.core.rpc.methods import METHODS
from hostler.core.rpc.server import Limits
from hostler.core.tenancy import errors as tenancy_errors
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.request import RequestSpec

PAGE: Final = Path(__file__).with_name("rpc.md")
MARKED: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
MODULES: Final = (client, etcd_errors, tenancy_errors)
"""Imported so that all error classes that the service can return are defined."""


def methods_table() -> str:
    """A section for each method: its description, parameters and answer."""
    return "\n".join(_method(name) for name in METHODS)


def _method(name: str) -> str:
    method = METHODS[name]
    head = f"### {name}\n{method.about.replace('``', '`')}\n"
    takes = list(_fields(method.params))
    lines = ["", *_table(("parameter", "type", "default"), takes)] if takes else ["", "No parameters."]
    options = " Takes options." if method.journalled else ""
    return "\n".join([head.rstrip(), *lines, "", f"Answers {_words(method.result)}.{options}", ""])


def values_table() -> str:
    """A section for each structure in parameters or answers."""
    found: dict[str, Any] = {}
    for method in METHODS.values():
        for kind in (*get_type_hints(method.params, include_extras=True).values(), method.result):
            _collect(kind, found)
    for kind in (Options, Event, RequestSpec):
        _collect(kind, found)
    return "\n".join(_value(name, found[name]) for name in sorted(found))


def _collect(kind: Any, found: dict[str, Any]) -> None:
    for inner in get_args(kind):
        _collect(inner, found)
    if _is_structure(kind) and found.get(kind.__name__) is not kind:
        if kind.__name__ in found:
            raise ValueError(f"{kind} and {found[kind.__name__]} have one name")
        found[kind.__name__] = kind
        for inner in get_type_hints(kind, include_extras=True).values():
            _collect(inner, found)


def _is_structure(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind))


def _value(name: str, kind: Any) -> str:
    about = _about(kind)
    tag = getattr(getattr(kind, "__struct_config__", None), "tag", None)
    rows = list(_fields(kind))
    if tag is not None:
        rows.insert(0, ("`do`", f'"{tag}"', ""))
    return "\n".join([f"### {name}", about, "", *_table(("field", "type", "default"), rows), ""])


def _about(kind: type[Any]) -> str:
    return " ".join((inspect.getdoc(kind) or "").split()).replace("``", "`")


def _fields(kind: Any) -> Iterator[tuple[str, ...]]:
    hints = get_type_hints(kind, include_extras=True)
    for name, default in _defaults(kind):
        raw_spec = kind is Asked and name == "spec"
        yield f"`{name}`", _words(RequestSpec if raw_spec else hints[name]), default


def _defaults(kind: Any) -> Iterator[tuple[str, str]]:
    if issubclass(kind, msgspec.Struct):
        for each in msgspec.structs.fields(kind):
            yield each.name, _default(each.default, each.default_factory, msgspec.NODEFAULT)
    else:
        for item in dataclasses.fields(kind):
            yield item.name, _default(item.default, item.default_factory, dataclasses.MISSING)


def _default(value: Any, factory: Any, missing: Any) -> str:
    if value is missing and factory is missing:
        return "required"
    value = value if value is not missing else factory()
    if value is None:
        return "nil"
    if _is_structure(type(value)):
        return "its defaults"
    return f"`{str(value).lower() if isinstance(value, bool) else value!r}`" if value else _empty(value)


def _empty(value: Any) -> str:
    return "empty" if not isinstance(value, (int, float)) else f"`{str(value).lower()}`"


def _words(kind: Any) -> str:
    """A type in words."""
    plain = {int: "integer", float: "number", str: "text", bool: "bool", bytes: "bytes", NoneType: "nil", None: "nil"}
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return "anything"
    if kind in plain:
        return plain[kind]
    if kind is msgspec.Raw:
        return "anything"
    if _is_structure(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if origin is Annotated:
        return _words(inner[0]) + "".join(_limits(each) for each in inner[1:])
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_words, inner)))
    if origin in (dict, Mapping) or (inspect.isclass(origin) and issubclass(origin, Mapping)):
        return f"map of {_words(inner[0])} to {_words(inner[1])}"
    if origin is tuple and (len(inner) != 2 or inner[1] is not Ellipsis):
        return f"[{', '.join(map(_words, inner))}]"
    return f"list of {_words(inner[0])}" if inner else "list"


def _limits(meta: Any) -> str:
    if not isinstance(meta, msgspec.Meta):
        return ""
    said = {"≥": meta.ge, ">": meta.gt, "≤": meta.le, "at most": meta.max_length}
    parts = [f"{sign} {limit}" for sign, limit in said.items() if limit is not None]
    return f" ({', '.join(parts)})" if parts else ""


def errors_table() -> str:
    """Every error's code and meaning."""
    kinds = sorted(_below(HostlerError), key=lambda kind: kind.code)
    about = ((f"`{kind.code}`", _about(kind)) for kind in kinds)
    return "\n".join(_table(("code", "meaning"), [row for row in about if row[1]]))


def _below(kind: type[HostlerError]) -> Iterator[type[HostlerError]]:
    for each in kind.__subclasses__():
        served = each.__module__.startswith(("hostler.core", "hostler.placement.types.errors"))
        if served and not each.__module__.startswith(("hostler.core.http", "hostler.core.process.config")):
            yield each
        yield from _below(each)


def limits_table() -> str:
    """The limits of a peer, with their defaults."""
    source = inspect.getsource(Limits)
    found = re.findall(r'^    (\w+): \w+ = .*\n    """(.*?)"""', source, re.MULTILINE)
    rows = [(f"`{name}`", f"{getattr(Limits(), name):,}", about.replace("``", "`")) for name, about in found]
    return "\n".join(_table(("`[rpc.limits]`", "default", "what"), rows))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines]


TABLES: Final[dict[str, Callable[[], str]]] = {
    "methods": methods_table,
    "values": values_table,
    "errors": errors_table,
    "limits": limits_table,
}


def with_tables(page: str) -> str:
    """``page`` with every marked table as the types have it now."""
    return MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
