"""Rules of the code base that a machine can check: docs/contributing.md states them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PRODUCT: Final = ("core", "drivers", "ext", "placement", "sim")
LONGEST_FUNCTION: Final = 70
LONGEST_FILE: Final = 500

LONG_FILES: Final[Mapping[str, str]] = {
    "ext/_tables.pyx": "one extension class, whose methods cannot be divided between modules",
    "ext/_fleet.pyx": "one extension class, whose methods cannot be divided between modules",
    "ext/ranking/host_index.h": "one structure with all that keeps it; the compiler has to see it whole to inline it",
    "ext/ranking/host_search_body.h": "one search, compiled once per instruction set",
}
"""Files that may be longer than ``LONGEST_FILE``, each with the reason."""

pytestmark = pytest.mark.usefixtures("no_collections")

PRIVATE_DIALECT: Final = re.compile(
    r"\b(so-manieth|whoever|heeds?|heeded|by chance|makes? no sense|nobody yet|he showed|no good|unforeseen|puzzle"
    r"|anew|verdicts?|somebody|anybody|nobody|spoilt|he|him|his)\b"
    r"|\b(told of|(?-i:that (is|are) none)|what is no|is no outcome|of ours)\b",
    re.IGNORECASE,
)
"""Words that the project's prose does not use: each has a standard term."""


@cache
def sources(*suffixes: str) -> tuple[Path, ...]:
    """Files of the product by suffix, in order."""
    found = (path for folder in PRODUCT for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)
    return tuple(sorted(path for path in found if "build" not in path.relative_to(ROOT).parts))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """Dotted name of a module without ``hostler``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Modules, and names in modules, that a file imports, without ``hostler``."""
    package = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("hostler.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join((*base, node.module or "")).strip(".")
            source = source.removeprefix("hostler.").removeprefix("hostler")
            yield source
            yield from (f"{source}.{alias.name}".strip(".") for alias in node.names)


def test_every_module_is_imported_or_an_entry_point() -> None:
    used = {found for path in sources(".py") for found in imported(path)}
    used |= {found for path in (ROOT / "src" / "hostler").glob("*.py") for found in faces(path)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project.get("scripts", {}), *project["entry-points"].values()]
    used |= {point.partition(":")[0].removeprefix("hostler.") for group in groups for point in group.values()}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    used |= {found for path in pages for found in faces(path)}
    texts = "".join(path.read_text(encoding="utf-8") for path in sources(".py", ".pyx"))
    dead = [
        name(path)
        for path in sources(".py")
        if path.name != "__init__.py"
        and module(path) not in used
        and not re.search(rf"import_module\([^)]*{re.escape(path.stem)}|\b{re.escape(path.stem)}\.so\b", texts)
        and f'"{path.stem}"' not in texts
        and '__name__ == "__main__"' not in path.read_text(encoding="utf-8")
    ]
    assert not dead


def faces(path: Path) -> Iterator[str]:
    """What the package's own modules import or name as text, for attributes that are loaded on access."""
    text = path.read_text(encoding="utf-8")
    yield from re.findall(r"hostler\.((?:core|placement|sim|ext)[\w.]+)", text)
    yield from re.findall(r"[\"' .]((?:core|placement|sim|ext)\.[\w.]+)", text)


def test_functions_are_short() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name} has {length} lines"
        for path in sources(".py")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long


def test_files_are_short() -> None:
    checked = sources(".py", ".pyx", ".pxd", ".c", ".h")
    lines = {name(path): path.read_text(encoding="utf-8").count("\n") for path in checked}
    assert not {path: count for path, count in lines.items() if count > LONGEST_FILE and path not in LONG_FILES}


def public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Public classes, functions, and methods of public classes, that are defined here."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            yield from public(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not is_setter(node):
            yield f"{prefix}{node.name}", node


def is_setter(node: ast.FunctionDef) -> bool:
    """True for the setter of a property, which its getter documents."""
    return any(isinstance(each, ast.Attribute) and each.attr == "setter" for each in node.decorator_list)


def test_public_functions_and_classes_of_the_library_are_documented() -> None:
    """What ``hostler`` exports: classes and functions at their definition, with their public methods."""
    face = (ROOT / "src" / "hostler" / "__init__.py").read_text(encoding="utf-8")
    exported = set(re.findall(r"\b[A-Za-z_]\w+\b", face))
    undocumented = [
        f"{name(path)} {which}"
        for path in sources(".py")
        for which, node in public(tree(path).body, "")
        if which.partition(".")[0] in exported
        and ast.get_docstring(node) is None
        and not overrides(node, which)
        and path.is_relative_to(ROOT / "placement")
    ]
    assert not undocumented


def overrides(node: ast.ClassDef | ast.FunctionDef, which: str) -> bool:
    """True for a method that the base class documents: rules repeat the names of their contract."""
    contract = {"applies", "fields", "key", "host_passes", "reason", "mask", "bounds", "selection", "raw", "column"}
    return "." in which and node.name in contract


def test_modules_open_with_a_docstring() -> None:
    assert not [name(path) for path in sources(".py") if ast.get_docstring(tree(path)) is None]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and docstrings with their line. Cython's tokens are Python's."""
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
            yield token.start[0], token.string


@pytest.mark.parametrize("folder", PRODUCT)
def test_prose_is_standard_english(folder: str) -> None:
    found = [
        f"{name(path)}:{line} {match[0]!r}"
        for path in sources(".py", ".pyx", ".pxd")
        if path.is_relative_to(ROOT / folder)
        for line, text in prose(path)
        if (match := PRIVATE_DIALECT.search(text))
    ]
    assert not found


def test_every_ignored_type_error_has_a_reason() -> None:
    ignored = re.compile(r"# type: ignore(\[[\w\-, ]+\])?(.*)")
    bare = [
        f"{name(path)}:{line}"
        for path in sources(".py")
        for line, text in prose(path)
        if (found := ignored.search(text)) and (not found[1] or len(found[2].strip(" #:-")) < 8)
    ]
    assert not bare


def test_no_guard_against_hanging_is_shorter_than_the_tests_patience() -> None:
    """``tests/patience.py``; those under a clock of their own may name any time."""
    guard = re.compile(r"fail_after\(\d{1,2}\b|communicate\(timeout=\d{1,2}\b|capture_output=True.*timeout=\d{1,2}\b")
    own_clock = re.compile(r"MockClock|on_trio_s_clock")
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    found = [
        f"{name(path)}:{number}"
        for path, text in texts.items()
        if path != Path(__file__).resolve() and not own_clock.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if guard.search(line)
    ]
    assert not found
