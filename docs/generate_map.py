"""Writes the map of rooms at the top of docs/architecture.md from the imports of the code.

    python docs/generate_map.py

A room is a package, or a module beside packages, of ``placement``, ``core`` or ``sim``. Imports that are made inside
functions and for type checkers only count as well.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = Path(__file__).with_name("architecture.md")
FOLDERS: Final = ("bench", "core", "drivers", "ext", "placement", "sim")
MAPPED: Final = {
    "placement": "The engine",
    "core": "The service",
    "sim": "Capacity planning",
}
MARKED: Final = re.compile(r"(<!-- generated: map -->\n).*?(<!-- end of map -->)", re.DOTALL)
POOLS: Final = ("placement", "storage", "pools")
"""A room of its own: the fleet holds it, and the rest of its package decides on it."""


@cache
def modules() -> dict[str, Path]:
    """Every module of Hostler by dotted name, without ``hostler.``."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> dict[str, set[str]]:
    """The modules that each module imports, anywhere in it."""
    known = modules()
    return {name: set(_targets(name, path, known)) for name, path in known.items()}


def _targets(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name[8:] for alias in node.names if alias.name[8:] in known)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            absolute = [*base, *(node.module or "").split(".")] if node.module else base
            parent = ".".join(absolute).removeprefix("hostler.")
            for alias in node.names:
                child = f"{parent}.{alias.name}"
                target = child if child in known else parent
                if target in known and target != name:
                    yield target


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of more than one node that reach each other (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def room_of(module: str) -> str:
    """The room that a module is in."""
    parts = module.split(".")
    return ".".join(parts[:3] if tuple(parts[:3]) == POOLS else parts[:2])


@cache
def rooms() -> dict[str, set[str]]:
    """The rooms that each room imports from, by name."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module, targets in imports().items():
        if "." not in module:
            continue
        graph[room_of(module)] |= {room_of(target) for target in targets if "." in target} - {room_of(module)}
    return dict(graph)


def levels(graph: Mapping[str, set[str]], folder: str) -> dict[str, int]:
    """Height of each room of a folder above the ground: one more than the highest room that it imports from."""
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            below = [height(other) for other in graph[room] if other.startswith(f"{folder}.")]
            heights[room] = 1 + max(below, default=0)
        return heights[room]

    for room in graph:
        if room.startswith(f"{folder}."):
            height(room)
    return heights


def about(room: str) -> str:
    """The first sentence of a room's docstring."""
    text = ast.get_docstring(ast.parse(modules()[room].read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.:;]) ", " ".join(text.split()))[0].rstrip(".:;")


def table(folder: str) -> str:
    """The rooms of a folder, the highest first."""
    graph = rooms()
    heights = levels(graph, folder)
    lines = [
        f"### {MAPPED[folder]}: `{folder}/`",
        "",
        "| level | room | what it is | imports from |",
        "|---|---|---|---|",
    ]
    for room in sorted(heights, key=lambda each: (-heights[each], each)):
        own = sorted(other for other in graph[room] if other.startswith(f"{folder}."))
        name = "/".join(room.split(".")[1:]) + ("/" if modules()[room].name == "__init__.py" else ".py")
        below = ", ".join(f"`{'/'.join(other.split('.')[1:])}`" for other in own) or "none"
        lines.append(f"| {heights[room]} | `{name}` | {about(room)} | {below} |")
    return "\n".join(lines)


def with_map(page: str) -> str:
    """The page with the map as the code has it now."""
    whole = "\n\n".join(table(folder) for folder in MAPPED)
    return MARKED.sub(lambda found: f"{found[1]}\n{whole}\n\n{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
