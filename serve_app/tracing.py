"""OpenTelemetry: our spans inside Ray Serve's, and where they go.

Ray Serve makes spans of its own (proxy, router, replicas) and carries their context between replicas, once its
`tracing_config` (or RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH) names an exporter: `serve_app.tracing:exporters`. Ours are
children of these. Without it every span here is a no-op.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

_GROUP = "opentelemetry_traces_exporter"
"""The entry points under which OpenTelemetry's packages offer exporters: `otlp`, `console`, ..."""


@contextmanager
def span(name: str, speech_id: str) -> Iterator[trace.Span]:
    """A span while the block runs, a child of Ray's; of an exception that leaves it, the class is noted.

    speech_id: the request's id, as in the log. It is not made the current span: an asynchronous generator may end in
    another context than the one it began in.
    """
    started = trace.get_tracer("serve_app").start_span(name, attributes={"cosyserve.speech_id": speech_id})
    try:
        yield started
    except BaseException as error:
        started.set_status(trace.StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        started.end()


def exporters() -> list[SpanProcessor]:
    """What Ray Serve adds to every process's tracer, by OpenTelemetry's own variables.

    OTEL_TRACES_EXPORTER: names separated by commas; `otlp` if unset, which needs the extra `tracing` and reads
    OTEL_EXPORTER_OTLP_ENDPOINT and its kin; `none` exports nothing. Raises ValueError for a name that nobody offers.
    """
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    return [BatchSpanProcessor(_exporter(name)) for name in names if name not in ("", "none")]


def _exporter(name: str) -> SpanExporter:
    offered = {found.name: found for found in entry_points(group=_GROUP)}
    if name not in offered:
        raise ValueError(f"no exporter of traces is called {name!r}; installed are {sorted(offered)}")
    exporter: SpanExporter = offered[name].load()()
    return exporter
