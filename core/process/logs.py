"""Structured logs on standard error through structlog: a line of JSON, or of readable text, per event. Includes
everything logged in the process; for libraries from level warning."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

HANDLER: Final = "hostler"


def configure(level: str = "info", form: str = "json") -> None:
    """Have everything logged written to standard error, Hostler's own from ``level`` on. May be called again."""
    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.name = HANDLER
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(each for each in root.handlers if each.name != HANDLER), handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("hostler").setLevel(level.upper())
