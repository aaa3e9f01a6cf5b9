"""Our spans, and the exporters that OpenTelemetry's variables name."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve_app.tracing import exporters, span


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """A process with a tracer, as Ray Serve sets one up."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def test_spans_are_children_of_the_current_one(finished: InMemorySpanExporter) -> None:
    with trace.get_tracer("ray").start_as_current_span("replica"), span("prepare", "id-1"):
        pass
    ours, rays = finished.get_finished_spans()
    assert (ours.name, rays.name) == ("prepare", "replica")
    assert ours.attributes == {"cosyserve.speech_id": "id-1"}
    assert ours.parent is not None and rays.context is not None and ours.parent.span_id == rays.context.span_id
    assert ours.status.is_ok


def test_an_error_is_noted_by_its_class_alone(finished: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError), span("speak", "id-2"):
        raise KeyError("what the user wrote")
    [ours] = finished.get_finished_spans()
    assert (ours.status.status_code, ours.status.description) == (trace.StatusCode.ERROR, "KeyError")
    assert not ours.events


def test_exporters_are_those_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    [processor] = exporters()
    processor.shutdown()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert exporters() == []
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeons")
    with pytest.raises(ValueError, match=r"'pigeons'.*console"):
        exporters()
