"""The type of the fixture ``run``: a command of the command line, run in this process against the test's daemon."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[..., tuple[int, str]]
