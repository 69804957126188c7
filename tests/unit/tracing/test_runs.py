"""A run on fake servers, traced: what is told of it, and that nothing else is different."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import OutcomeUnknown, SinkUnavailable
from app.domain.events import Change
from app.domain.lifecycle import State
from app.domain.watcher import StoredWatcher
from app.pipeline.dependencies import Dependencies
from app.tracing.runs import TracedRuns
from app.tracing.sink import HEADER, HEADER_BYTES, TracedSink
from app.tracing.source import TracedSource
from app.tracing.trail import Trail
from tests.fakes import FakeOplog, FakeSink, FakeSource, FakeStream, event_token
from tests.fakes.tracer import FakeSpan, FakeTracer
from tests.unit.deployment import ORDERS, Fakes, until, until_state


def batch(begin: int, end: int) -> list[Change]:
    return [Change(token, "insert", b"{}", 0.0, token) for token in map(event_token, range(begin, end))]


def sink_on(stream: FakeStream, tracer: FakeTracer, *, mark: bool = True) -> TracedSink:
    return TracedSink(FakeSink(stream, ORDERS), ORDERS, tracer, Trail(), mark=mark)


class TracedFakes(Fakes):
    """Fake servers whose runs are traced."""

    def __init__(self, tracer: FakeTracer, *, mark: bool) -> None:
        super().__init__(StoredWatcher(ORDERS))
        self.traced = TracedRuns(tracer, mark=mark)

    def dependencies(self, *arguments: Any, **tuning: Any) -> Dependencies:
        return replace(super().dependencies(*arguments, **tuning), tracing=self.traced)


@pytest.mark.parametrize("mark", [True, False])
async def test_each_batch_is_followed_from_its_read_to_its_position(mark: bool) -> None:
    tracer = FakeTracer()
    fakes = TracedFakes(tracer, mark=mark)
    registry = fakes.registry()
    registry.start()
    await until_state(registry, "orders", State.RUNNING)
    for _ in range(5):
        fakes.oplog.happen()
    stream = fakes.stream()
    await until(lambda: len(stream.messages) == 5)
    await until(lambda: any(span.parent is not None for span in tracer.named("checkpoint")))
    await registry.close()
    (opening,) = tracer.named("open")
    assert opening.ended
    assert opening.error is None
    publishes = tracer.named("publish")
    assert sum(int(span.attributes["messaging.batch.message_count"]) for span in publishes) == 5
    assert all(isinstance(span.parent, FakeSpan) and span.parent.name == "read" for span in publishes)
    followed = [each.parent for each in tracer.named("checkpoint") if each.parent is not None]
    assert all(isinstance(span, FakeSpan) and span.name == "publish" for span in followed)
    assert all(span.ended and span.error is None for span in tracer.spans)
    headers = [dict(message.change.headers) for message in stream.messages]
    named = {span.traceparent for span in publishes} if mark else {None}
    assert {each.get(HEADER) for each in headers} == named


async def test_a_publish_that_fails_says_so_and_the_error_is_unchanged() -> None:
    tracer, stream = FakeTracer(), FakeStream("ORDERS")
    sink = sink_on(stream, tracer)

    async def fail(changes: Sequence[Change], fence: int) -> int:
        raise OutcomeUnknown("no answer")

    sink._sink.publish = fail  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown, match="no answer"):
        await sink.publish(batch(1, 3), 0)
    (span,) = tracer.spans
    assert span.ended
    assert isinstance(span.error, OutcomeUnknown)


async def test_a_publish_that_is_cancelled_has_ended() -> None:
    tracer = FakeTracer()
    sink = sink_on(FakeStream("ORDERS"), tracer)
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(changes: Sequence[Change], fence: int) -> int:
        return await never

    sink._sink.publish = wait  # type: ignore[method-assign]
    task = asyncio.create_task(sink.publish(batch(1, 3), 0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tracer.spans[0].ended


async def test_the_changes_that_are_marked_are_copies() -> None:
    stream = FakeStream("ORDERS")
    sink = sink_on(stream, FakeTracer())
    changes = batch(1, 3)
    await sink.prepare(may_create=True)
    await sink.publish(changes, 0)
    assert [change.headers for change in changes] == [(), ()]
    assert all(len(f"{HEADER}: {dict(each.change.headers)[HEADER]}\r\n") == HEADER_BYTES for each in stream.messages)


async def test_an_opening_that_a_server_breaks_ends_with_its_error_and_one_given_up_is_not_told() -> None:
    tracer, trail, oplog = FakeTracer(), Trail(), FakeOplog()
    source = TracedSource(FakeSource(oplog), ORDERS, tracer, trail)
    sink = TracedSink(FakeSink(FakeStream("ORDERS"), ORDERS), ORDERS, tracer, trail, mark=False)

    async def refuse(*, may_create: bool) -> None:
        raise SinkUnavailable("NATS is down")

    sink._sink.prepare = refuse  # type: ignore[method-assign]
    await source.prepare()
    with pytest.raises(SinkUnavailable):
        await sink.prepare(may_create=True)
    await source.close()
    assert str(tracer.spans[0].error) == "NATS is down"
    await source.prepare()
    await source.close()
    assert not tracer.spans[1].ended


async def test_a_read_that_brings_nothing_is_no_span() -> None:
    tracer, oplog = FakeTracer(), FakeOplog()
    source = TracedSource(FakeSource(oplog), ORDERS, tracer, Trail())
    await source.prepare()
    first = oplog.happen()
    await source.open(first)
    await source.read()
    assert tracer.named("read") == []
    oplog.happen()
    while not (await source.read()).events:
        pass
    (read,) = tracer.named("read")
    assert read.ended
    assert read.attributes["changewire.events"] == 1
