"""Spans by OpenTelemetry: made by its SDK, sent to a collector by OTLP over HTTP, in a thread of its own.

The one file that imports OpenTelemetry. The SDK reads most of its variables by itself (`OTEL_EXPORTER_OTLP_HEADERS`,
`OTEL_TRACES_SAMPLER`, `OTEL_BSP_*` and so on). The provider is no global one: a library's spans do not come here. A
collector that is absent costs spans, which the SDK drops and logs, and nothing else.
"""

import asyncio
import contextlib
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from app.config.logging import redact
from app.domain.findings import Finding, Level
from app.domain.text import is_text
from app.ports.tracer import Span, SpanName

CLOSE_SECONDS = 3.0
"""How long a stop waits for the last spans to be taken."""
LOOK_SECONDS = 2.0
_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_TEXT_BYTES = 500
"""Of an error's words in a span."""
_KINDS: Mapping[SpanName, SpanKind] = {
    "open": SpanKind.INTERNAL,
    "read": SpanKind.CLIENT,
    "publish": SpanKind.PRODUCER,
    "checkpoint": SpanKind.CLIENT,
}


class OtlpSpan:
    """`Span`."""

    __slots__ = ("span",)

    def __init__(self, span: trace.Span) -> None:
        self.span = span

    @property
    def traceparent(self) -> str:
        context = self.span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, error: BaseException | None = None) -> None:
        if error is not None and self.span.is_recording():
            self.span.set_attribute("error.type", type(error).__name__)
            said = redact(str(error)) or type(error).__name__
            self.span.set_status(Status(StatusCode.ERROR, said[:_TEXT_BYTES] if is_text(said) else None))
        self.span.end()


class OtlpTracer:
    """`Tracer`. Make it where the event loop runs."""

    def __init__(self, *, endpoint: str | None, service: str | None, version: str, instance: str) -> None:
        """`endpoint` is the collector's base address, `service` the name on the spans; None: what the SDK finds in the
        environment, or this machine and `changewire`."""
        resource = Resource.create({"service.version": version, "service.instance.id": instance})
        if service is not None or str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": service or "changewire"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=traces_endpoint(endpoint))))
        self._tracer = self._provider.get_tracer("changewire", version)

    def begin(
        self,
        name: SpanName,
        attributes: Mapping[str, str | int],
        *,
        parent: Span | None = None,
        links: Sequence[Span] = (),
        at: int | None = None,
    ) -> Span:
        context = None if parent is None else trace.set_span_in_context(_of(parent))
        linked = [trace.Link(_of(each).get_span_context()) for each in links]
        # An empty context, not the current one: spans are told what they belong to.
        started = self._tracer.start_span(
            name, context or Context(), _KINDS[name], attributes, linked or None, start_time=at
        )
        return OtlpSpan(started)

    async def close(self) -> None:
        """Send what has ended, for some seconds at most: the SDK would try a collector that is absent for longer."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            try:
                self._provider.shutdown()
            finally:
                with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                    loop.call_soon_threadsafe(done.set)

        threading.Thread(target=stop, name="spans", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), CLOSE_SECONDS)
        except TimeoutError:
            return


def traces_endpoint(base: str | None) -> str | None:
    """Where spans go, as the exporter takes it; None: it finds out by itself. A variable for traces alone wins."""
    if base is None or os.environ.get(_TRACES_ENDPOINT):
        return None
    return f"{base.rstrip('/')}/v1/traces"


def look(base: str | None) -> Finding:
    """Send a collector no spans, and say what it answers. Blocks for some seconds at most."""
    where = traces_endpoint(base) or os.environ.get(_TRACES_ENDPOINT) or "http://localhost:4318/v1/traces"
    shown = redact(where)
    request = urllib.request.Request(where, b"", {"Content-Type": "application/x-protobuf"})
    try:
        with urllib.request.urlopen(request, timeout=LOOK_SECONDS):
            return Finding("tracing", "collector", Level.OK, f"{shown} takes spans")
    except urllib.error.HTTPError as error:
        said = f"{shown} answers {error.code}: spans are lost"
    except (OSError, ValueError) as error:
        said = f"{shown} cannot be reached ({getattr(error, 'reason', error)}): spans are lost"
    advice = "set OTEL_EXPORTER_OTLP_ENDPOINT to the OTLP/HTTP address of a collector, usually port 4318"
    return Finding("tracing", "collector", Level.WARNING, said, advice)


def _of(span: Span) -> trace.Span:
    assert isinstance(span, OtlpSpan), "a tracer is given its own spans"
    return span.span
