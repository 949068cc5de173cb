"""OpenTelemetry: a batch makes a span for the journal and one for what it did."""

from __future__ import annotations

from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hostler.core.journal.journal import Journal
from hostler.core.writer.writer import open_writer

from .ledgers import Ledger, Pay


async def test_a_batch_makes_spans(tmp_path: Path) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    async with open_writer(Ledger(), Journal.in_folder(tmp_path)) as writer:
        await writer.submit(Pay("a", 1))
    found = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
    assert found == {"hostler.journal": {"commands": 1}, "hostler.apply": {"commands": 1}}
    provider.shutdown()
