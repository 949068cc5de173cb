"""docs/storage.md shows volumes in the service as a session of a shell: its commands run, and print what is shown."""

from __future__ import annotations

from pathlib import Path

from hostler.core.rpc.methods import METHODS

from .sessions import DOCS, check_session


def test_the_session_of_the_page_goes_as_it_is_shown(tmp_path: Path) -> None:
    check_session(DOCS / "storage.md", tmp_path)


def test_the_methods_that_the_page_names_are_there() -> None:
    text = (DOCS / "storage.md").read_text(encoding="utf-8")
    table = text.partition("| commands over RPC |")[2].partition("\n\n")[0]
    named = [word for row in table.splitlines()[2:] for word in row.split("|")[1].replace("`", "").split(", ")]
    assert {word.strip() for word in named} <= set(METHODS)
