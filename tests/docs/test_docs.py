"""What the documents say is so: every Python block runs and prints the block behind it, every policy can be read."""

from __future__ import annotations

import doctest
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from hostler import Policy

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS: Final = [*PAGES, *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"^#+ (.*)$", re.MULTILINE)

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line where the text begins."""

    language: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 2) for found in FENCED.finditer(text)]


def with_output(found: list[Block]) -> Iterator[tuple[Block, str | None]]:
    """The Python blocks, each with the text block right behind it, which is what it prints."""
    for block, after in pairwise([*found, Block("", "", 0)]):
        if block.language == "python":
            yield block, after.text if after.language == "text" else None


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_python_blocks_run_in_order_and_print_what_is_shown(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for block, wanted in with_output(blocks(document)):
        code = compile("\n" * (block.line - 1) + block.text, str(document), "exec", dont_inherit=True)
        with redirect_stdout(StringIO()) as printed:
            exec(code, names)
        got = printed.getvalue()
        if wanted is not None:
            same = doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS)
            assert same, f"{document.name}:{block.line} prints\n{got}"
        else:
            assert not got, f"{document.name}:{block.line} prints what is not shown:\n{got}"


@every_document
def test_policies_can_be_read(document: Path) -> None:
    for block in blocks(document):
        if block.language == "toml" and not {"project", "rpc", "data"} & set(tomllib.loads(block.text)):
            Policy.from_toml(block.text)


@every_document
def test_links_lead_to_a_file_and_a_heading(document: Path) -> None:
    prose = FENCED.sub("", document.read_text(encoding="utf-8"))
    for target in LINK.findall(prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), f"{document.name} links to {target}"
        if anchor:
            headings = HEADING.findall(FENCED.sub("", found.read_text(encoding="utf-8")))
            assert anchor in map(slug, headings), f"{document.name} links to {target}"


def slug(heading: str) -> str:
    """A heading's anchor, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_policies_are_current() -> None:
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    assert generator().with_tables(page) == page, "run: python docs/generate.py"


def test_the_words_about_options_name_options_that_exist() -> None:
    module = generator()
    known = {group.group: group.option_names() for group in (*module.Options().groups(), module.HostlerOptions())}
    assert all(set(about) <= set(known[group]) for group, about in module.ABOUT.items())


def test_options_said_to_have_no_effect_are_read_nowhere() -> None:
    module = generator()
    groups = module.Options().groups()
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "placement").rglob("*.py") if path.name != "options.py"
    )
    named = {group.group.lower() for group in groups}
    for group in groups:
        for name in set(group.option_names()) - set(module.ABOUT.get(group.group, {})) - named:
            assert not re.search(rf"options(\.\w+)*\.{name}\b", source), name
