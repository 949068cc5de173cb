"""OpenTelemetry spans, where the extra ``telemetry`` is installed; else nothing. Contexts follow trio's tasks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    from opentelemetry import trace
except ImportError:
    _tracer: Any = None
else:
    _tracer = trace.get_tracer("hostler")


def span(name: str, **attributes: int | str) -> AbstractContextManager[Any]:
    """A span around the body of a with statement."""
    if _tracer is None:
        return nullcontext()
    found: AbstractContextManager[Any] = _tracer.start_as_current_span(name, attributes=attributes)
    return found
