"""OpenTelemetry spans, where the extra ``telemetry`` is installed, and where they go; else nothing. Contexts follow
trio's tasks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points, version
from typing import Any, Final

from ..placement.types.errors import UnknownName
from ..placement.types.extras import unusable

EXPORTERS: Final = "opentelemetry_traces_exporter"
"""Group of the entry points of installed exporters."""

try:
    from opentelemetry import trace
except Exception:  # one that is broken is reported by ``export``, if spans are asked for
    _tracer: Any = None
else:
    _tracer = trace.get_tracer("hostler")


def span(name: str, **attributes: int | str) -> AbstractContextManager[Any]:
    """A span around the body of a with statement."""
    if _tracer is None:
        return nullcontext()
    found: AbstractContextManager[Any] = _tracer.start_as_current_span(name, attributes=attributes)
    return found


def export(exporter: str) -> None:
    """Have spans sent by the installed exporter of that name (``console``, ``otlp_proto_http``, ...), which is set up
    by its own environment variables. InvalidValue if the extra is not installed, UnknownName for an unknown
    exporter."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except Exception as error:
        raise unusable(error, "opentelemetry", "telemetry", field="operation.traces") from error
    known = {point.name: point for point in entry_points(group=EXPORTERS)}
    if exporter not in known:
        raise UnknownName.among("exporter of spans", exporter, known, field="operation.traces")
    provider = TracerProvider(
        resource=Resource.create({"service.name": "hostler", "service.version": version("hostler")})
    )
    provider.add_span_processor(BatchSpanProcessor(known[exporter].load()()))
    trace.set_tracer_provider(provider)
