"""What every tracer keeps: ids of the W3C's form, traces that go on from parents, ends that may come twice."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.domain.errors import SinkUnavailable
from app.ports.tracer import Tracer
from app.tracing.exporter import OtlpTracer
from tests.collector import Collector
from tests.fakes.tracer import FakeTracer

TRACEPARENT = re.compile(r"00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")


@pytest_asyncio.fixture(params=["fake", "opentelemetry"])
async def tracer(request: pytest.FixtureRequest) -> AsyncIterator[Tracer]:
    if request.param == "fake":
        yield FakeTracer()
        return
    with Collector() as collector:
        tracer = OtlpTracer(endpoint=collector.endpoint, service=None, version="1", instance="one")
        yield tracer
        await tracer.close()


def parts(traceparent: str) -> tuple[str, str]:
    found = TRACEPARENT.fullmatch(traceparent)
    assert found is not None, traceparent
    return found["trace"], found["span"]


async def test_a_span_without_a_parent_begins_a_trace_and_no_two_are_alike(tracer: Tracer) -> None:
    first, second = tracer.begin("read", {}), tracer.begin("read", {}, at=1_700_000_000_000_000_000)
    (trace, span), (other_trace, other_span) = parts(first.traceparent), parts(second.traceparent)
    assert trace != other_trace
    assert span != other_span
    assert int(trace, 16)
    assert int(span, 16)


async def test_a_parent_and_its_children_are_one_trace_though_the_parent_has_ended(tracer: Tracer) -> None:
    read, other = tracer.begin("read", {}), tracer.begin("read", {})
    read.end()
    publish = tracer.begin("publish", {"messaging.batch.message_count": 3}, parent=read, links=(other,))
    checkpoint = tracer.begin("checkpoint", {}, parent=publish)
    assert len({parts(each.traceparent)[0] for each in (read, publish, checkpoint)}) == 1
    assert len({parts(each.traceparent)[1] for each in (read, publish, checkpoint)}) == 3


async def test_an_end_may_come_twice_and_may_be_an_error(tracer: Tracer) -> None:
    span = tracer.begin("publish", {})
    before = span.traceparent
    span.end(SinkUnavailable("a half of a pair: \ud800"))
    span.end()
    assert span.traceparent == before
