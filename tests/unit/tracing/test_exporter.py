"""What a collector gets by OTLP over HTTP: spans with names, parents, links and errors; and one that is absent."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.devservers.process import free_port
from app.domain.errors import SinkUnavailable
from app.domain.findings import Level
from app.tracing import exporter
from app.tracing.exporter import OtlpTracer, look, traces_endpoint
from tests.collector import Collector


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)


def tracer(endpoint: str, service: str | None = None) -> OtlpTracer:
    return OtlpTracer(endpoint=endpoint, service=service, version="1.2.3", instance="one")


async def test_spans_arrive_with_all_that_was_said_of_them() -> None:
    with Collector() as collector:
        traced = tracer(f"{collector.endpoint}/")
        read = traced.begin("read", {"changewire.watcher": "orders"}, at=1_700_000_000_000_000_000)
        read.end()
        other = traced.begin("read", {})
        other.end()
        publish = traced.begin("publish", {"messaging.batch.message_count": 7}, parent=read, links=(other,))
        publish.end(SinkUnavailable("nats://me:hunter2hunter2@host hung up"))
        publish.end()
        await traced.close()
    assert collector.paths == {"/v1/traces"}
    first, second, third = sorted(collector.spans, key=lambda span: (span.name == "publish", -span.seconds))
    assert (first.name, first.attributes["changewire.watcher"], first.parent) == ("read", "orders", "")
    assert third.name == "publish"
    assert (third.trace, third.parent, third.links) == (first.trace, first.id, [second.id])
    assert third.failed == "nats://***@host hung up"
    assert third.attributes == {"messaging.batch.message_count": 7, "error.type": "SinkUnavailable"}
    assert publish.traceparent.startswith(third.named_as)
    assert int(publish.traceparent[-2:], 16) & 1, "sampled"
    assert second.trace != first.trace
    resource = third.resource
    names = ("service.name", "service.version", "service.instance.id")
    assert [resource[name] for name in names] == ["changewire", "1.2.3", "one"]


async def test_the_services_name_is_the_settings_else_that_of_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs,team=data")
    for service, expected in ((None, "theirs"), ("ours", "ours")):
        with Collector() as collector:
            traced = tracer(collector.endpoint, service)
            traced.begin("open", {}).end()
            await traced.close()
        assert collector.spans[0].resource["service.name"] == expected
        assert collector.spans[0].resource["team"] == "data"


async def test_a_span_that_is_not_sampled_is_not_sent_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with Collector() as collector:
        traced = tracer(collector.endpoint)
        span = traced.begin("publish", {})
        assert not int(span.traceparent[-2:], 16) & 1
        assert len(span.traceparent) == 55
        span.end(SinkUnavailable("unheard"))
        await traced.close()
    assert collector.spans == []


async def test_a_collector_that_is_absent_does_not_keep_a_stop_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "CLOSE_SECONDS", 0.2)
    traced = tracer(f"http://127.0.0.1:{free_port()}")
    traced.begin("open", {}).end()
    await traced.close()


@pytest.mark.filterwarnings("error")
def test_a_collector_that_answers_after_the_end_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "CLOSE_SECONDS", 0.0)
    traced = tracer(f"http://127.0.0.1:{free_port()}")
    released = threading.Event()
    monkeypatch.setattr(traced._provider, "shutdown", released.wait)
    asyncio.run(traced.close())
    released.set()
    for thread in threading.enumerate():
        if thread.name == "spans":
            thread.join(10)


def test_a_variable_for_traces_alone_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traces_endpoint(None) is None
    assert traces_endpoint("http://h:4318/otlp/") == "http://h:4318/otlp/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other/v1/traces")
    assert traces_endpoint("http://h:4318") is None


def test_the_doctor_asks_the_collector() -> None:
    with Collector() as collector:
        assert look(collector.endpoint).level is Level.OK
        collector.status = 404
        refused = look(collector.endpoint)
    assert refused.level is Level.WARNING
    assert "/v1/traces answers 404: spans are lost" in refused.found
    absent = look(f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in absent.found
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in absent.advice


def test_a_collectors_password_is_not_told() -> None:
    found = look(f"http://me:hunter2hunter2@127.0.0.1:{free_port()}")
    assert "hunter2hunter2" not in f"{found.found}{found.advice}"
