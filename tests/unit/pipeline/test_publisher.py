"""Messages that are counted because they are gone: where the count may not be trusted, and what is done then."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest

from app.domain.counted import SLACK_SECONDS
from app.domain.errors import Fenced, PositionUndecidable
from app.domain.position import Tail
from app.domain.watcher import Watcher
from app.formats.extended_json import encode
from tests.fakes import FakeSink, FakeStream
from tests.properties.test_capture_properties import WATCHER, Writer, _first_start
from tests.unit.deployment import Fakes, until

HOUR = 3600


class Watched(FakeSink):
    """Lets something happen before the stream's end is read: `then[n]` before the n-th time."""

    then: ClassVar[dict[int, Callable[[], object]]] = {}
    looks = 0

    async def tail(self, since: int = 0) -> Tail:
        Watched.looks += 1
        Watched.then.pop(Watched.looks, lambda: None)()
        return await super().tail(since)


@pytest.fixture
async def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A watcher that has begun on a stream of its own."""
    fakes = Fakes()
    writer = Writer(fakes.oplog, FakeStream(), {}, 10)
    await _first_start(writer)
    monkeypatch.setattr("tests.properties.test_capture_properties.FakeSink", Watched)
    monkeypatch.setattr(Watched, "then", {})
    monkeypatch.setattr(Watched, "looks", 0)
    return writer


def publish(writer: Writer, *tokens: str) -> None:
    """Have another instance publish."""
    for token, raw in writer.oplog.events:
        if token in tokens:
            writer.stream.store([("ORDERS.insert", encode(raw))], writer.stream.last_sequence, WATCHER.space)


async def publish_all(writer: Writer) -> None:
    """Publish what has happened, and stop."""
    capture = writer.capture()
    opened = asyncio.Event()
    task = asyncio.create_task(capture.run(opened.set))
    await until(lambda: opened.is_set() or task.done())
    await until(lambda: task.done() or writer.stream.published()[-1:] == writer.oplog.tokens[-1:])
    capture.stop()
    await task


async def test_changes_behind_messages_of_others_are_not_passed_over_when_the_stream_becomes_its_own(
    writer: Writer,
) -> None:
    writer.stream.subjects = ["ORDERS.*", "OTHERS"]
    writer.oplog.happen()
    await publish_all(writer)
    writer.stream.neighbour("OTHERS", 5)
    writer.stream.subjects = ["ORDERS.*"]
    del writer.stream.messages[1:]
    for _ in range(3):
        writer.oplog.happen()
    writer.die()
    await publish_all(writer)
    assert writer.stream.published() == writer.oplog.tokens


async def test_that_others_may_publish_is_stored_when_a_watcher_opens(writer: Writer) -> None:
    writer.oplog.happen()
    await publish_all(writer)
    writer.stream.subjects = ["ORDERS.*", "OTHERS"]
    await publish_all(writer)
    assert writer.place["newest"].counted is False
    writer.stream.neighbour("OTHERS", 5)
    writer.stream.subjects = ["ORDERS.*"]
    del writer.stream.messages[1:]
    for _ in range(3):
        writer.oplog.happen()
    writer.die()
    await publish_all(writer)
    assert writer.stream.published() == writer.oplog.tokens


async def test_another_instance_may_publish_while_the_stream_is_looked_at(writer: Writer) -> None:
    def others() -> None:
        publish(writer, *[writer.oplog.happen() for _ in range(3)])
        writer.stream.consume(3)

    Watched.then[1] = others
    task = asyncio.create_task(writer.capture().run(lambda: None))
    await until(lambda: writer.statistics.skipped == 3 or task.done())
    writer.oplog.happen()
    await until(lambda: writer.done() or task.done())
    task.cancel()
    assert writer.stream.published() == writer.oplog.tokens


async def test_a_position_taken_over_among_counted_changes_keeps_its_own_sequence(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the messages between would be counted again, behind that position."""
    aside: Watcher = replace(WATCHER, sink=replace(WATCHER.sink, oversize="dead_letter"))
    monkeypatch.setattr("tests.properties.test_capture_properties.WATCHER", aside)
    monkeypatch.setattr(Watched, "too_large", lambda self, change: len(change.body) > 5_000)
    writer.oplog.happen(text="x" * 10_000)
    publish(writer, *[writer.oplog.happen() for _ in range(3)])
    writer.stream.consume(3)
    last = writer.oplog.happen()
    Watched.then[2] = lambda: publish(writer, last)
    capture = writer.capture()
    task = asyncio.create_task(capture.run(lambda: None))
    await until(lambda: writer.place["newest"].token >= last or task.done())
    capture.stop()
    await task
    assert writer.place["newest"].sequence == 4
    assert writer.stream.published() == writer.oplog.tokens[1:]


async def test_what_is_gone_behind_a_message_that_is_left_is_counted_after_a_lost_acknowledgement(
    writer: Writer,
) -> None:
    for _ in range(5):
        writer.oplog.happen()
    writer.stream.faults.append("ack_lost")
    gone: list[str] = []

    def consume() -> None:
        gone.extend(message.change.token for message in writer.stream.messages[1:])
        del writer.stream.messages[1:]
        writer.stream.forget_ids()

    Watched.then[2] = consume
    capture = writer.capture()
    task = asyncio.create_task(capture.run(lambda: None))
    await until(lambda: writer.place["newest"].token == writer.oplog.tokens[-1] or task.done())
    capture.stop()
    await task
    assert [*writer.stream.published(), *gone] == writer.oplog.tokens


async def test_whoever_finds_that_somebody_else_published_what_is_gone_stands_by(writer: Writer) -> None:
    opened = asyncio.Event()
    task = asyncio.create_task(writer.capture().run(opened.set))
    await until(lambda: opened.is_set() or task.done())
    token = writer.oplog.happen()
    publish(writer, token)
    writer.stream.consume(1)
    await asyncio.wait([task])
    assert isinstance(task.exception(), Fenced)
    assert writer.stream.published() == [token]


async def test_a_stream_purged_beyond_its_end_makes_no_change_disappear(writer: Writer) -> None:
    writer.oplog.happen()
    await publish_all(writer)
    writer.stream.last_sequence += 1_000
    writer.stream.quiet = HOUR
    writer.oplog.moment += HOUR
    for _ in range(3):
        writer.oplog.happen()
    writer.die()
    await publish_all(writer)
    assert writer.stream.published() == writer.oplog.tokens


async def test_a_count_that_goes_too_far_fails_with_the_position_before_all_that_was_passed_over(
    writer: Writer,
) -> None:
    first = writer.oplog.happen()
    await publish_all(writer)
    before = writer.place["newest"].token
    writer.stream.last_sequence += 1_000
    for _ in range(3):
        writer.oplog.happen()
    for _ in range(2):  # the second time as the first, in this process and the next
        task = asyncio.create_task(writer.capture().run(lambda: None))
        await until(lambda: (reached := writer.run_state.reached) is not None and reached.token > before)
        writer.oplog.moment += 2 * SLACK_SECONDS
        writer.oplog.happen()
        await until(task.done)
        assert isinstance(task.exception(), PositionUndecidable)
        assert f"Changes after {before} may" in str(task.exception())
        assert writer.place["newest"].token == before >= first
        writer.die()


async def test_a_count_that_no_change_answers_to_is_given_up_when_its_time_is_over(writer: Writer) -> None:
    writer.oplog.happen()
    await publish_all(writer)
    writer.stream.last_sequence += 1
    capture = writer.capture()
    opened = asyncio.Event()
    task = asyncio.create_task(capture.run(opened.set))
    await until(lambda: opened.is_set() or task.done())
    writer.oplog.moment += 2 * SLACK_SECONDS
    await until(lambda: (writer.run_state.reached is not None and not writer.run_state.reached.counted) or task.done())
    writer.oplog.happen()
    await until(lambda: writer.done() or task.done())
    capture.stop()
    await task
    assert writer.stream.published() == writer.oplog.tokens
