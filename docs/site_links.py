"""A hook of the documentation site: links to files outside docs/ lead to the repository, where they are."""

from __future__ import annotations

import re
from typing import Any, Final

OUTSIDE: Final = re.compile(r"\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """The page with such links replaced."""
    return OUTSIDE.sub(rf"]({config['repo_url']}/blob/main/\1)", markdown)
