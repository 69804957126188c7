"""Several sends under way: what a failure means for all of them, and what waits until nothing is under way."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import (
    FenceLost,
    NotAuthorised,
    OutcomeUnknown,
    PositionUndecidable,
    SeenBefore,
    SinkUnavailable,
    StreamFull,
    StreamRefused,
)
from app.domain.events import Change
from app.pipeline.in_flight import Sent, what_failed
from tests.fakes import FakeOplog, FakeSink, FakeStream, PipelinedMode, event_token
from tests.properties.test_capture_properties import Writer, _first_start
from tests.unit.deployment import until

MODES: list[PipelinedMode] = ["fast_ingest", "atomic"]


def change(moment: int) -> Change:
    token = event_token(moment)
    return Change(token, "insert", b"{}", 0.0, token)


def sent(*outcomes: Exception | None, size: int = 3) -> list[Sent]:
    """Sends of `size` changes each, after sequence 10, and how each has ended."""
    made = []
    for index, outcome in enumerate(outcomes):
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        fence = 10 + index * size
        if outcome is None:
            future.set_result(fence + size)
        else:
            future.set_exception(outcome)
        changes = [change(1 + index * size + n) for n in range(size)]
        made.append(Sent(changes, fence, future, 0.0, 0.0, None))
    return made


@pytest.mark.parametrize("error", [FenceLost("a"), SeenBefore("b"), StreamFull("c"), OutcomeUnknown("d")])
async def test_a_failure_stays_what_it_is_where_all_behind_it_was_refused(error: OutcomeUnknown | StreamFull) -> None:
    assert what_failed(sent(error)) is error
    assert what_failed(sent(error, FenceLost(), FenceLost())) is error
    assert getattr(error, "unsettled", ()) == ()


@pytest.mark.parametrize("error", [FenceLost("a"), SeenBefore("b"), StreamFull("c"), StreamRefused("sealed")])
@pytest.mark.parametrize("behind", [None, OutcomeUnknown("no answer")])
async def test_a_refusal_before_what_is_or_may_be_stored_leaves_the_place_between_unsettled(
    error: OutcomeUnknown | StreamRefused, behind: Exception | None
) -> None:
    if isinstance(error, OutcomeUnknown | StreamFull):
        error.stored, error.sequence = 2, 12
    unknown = what_failed(sent(error, behind))
    assert type(unknown) is OutcomeUnknown
    assert unknown.unsettled == ((13, event_token(3)),)
    assert unknown.__cause__ is error
    assert str(error) in str(unknown)
    if isinstance(error, OutcomeUnknown | StreamFull):
        assert (unknown.stored, unknown.sequence) == (2, 12)


async def test_an_unknown_outcome_before_what_is_stored_names_the_place_as_well() -> None:
    error = OutcomeUnknown("no answer")
    assert what_failed(sent(error, None)) is error
    assert error.unsettled == ((13, event_token(3)),)


async def test_two_unknown_outcomes_leave_no_place_to_look_at() -> None:
    error = OutcomeUnknown("no answer")
    assert what_failed(sent(error, OutcomeUnknown())) is error
    assert error.unsettled == ()


@pytest.mark.parametrize("error", [NotAuthorised("no"), SinkUnavailable("away"), StreamRefused("sealed")])
async def test_what_is_neither_full_nor_unknown_ends_the_attempt(error: Exception) -> None:
    with pytest.raises(type(error)):
        what_failed(sent(error, FenceLost()))


class Traced(FakeSink):
    """Notes what is sent and published, in order, and what was under way then."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.deeds: list[tuple[str, int, int]] = TRACE

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]:
        self.deeds.append(("send", len(changes), sum(not one.done() for one in self._under_way)))
        return super().send(changes, fence, more=more)

    async def publish_singly(self, change: Change, fence: int) -> int:
        self.deeds.append(("singly", 1, sum(not one.done() for one in self._under_way)))
        return await super().publish_singly(change, fence)

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        self.deeds.append(("pointer", 1, sum(not one.done() for one in self._under_way)))
        return await super().claim_check(change, pointer)


TRACE: list[tuple[str, int, int]] = []


@pytest.fixture(params=MODES)
async def writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A watcher that has begun, in each mode that has several sends under way, and reads two changes at a time."""
    monkeypatch.setattr("app.pipeline.batch_queue.TOGETHER_BYTES", 0)
    monkeypatch.setattr("tests.properties.test_capture_properties.FakeSink", Traced)
    writer = Writer(FakeOplog(), FakeStream(mode=request.param), {}, 2)
    await _first_start(writer)
    TRACE.clear()
    return writer


async def drained(writer: Writer) -> None:
    """Publish all that has happened, and stop in good order."""
    capture = writer.capture()
    task = asyncio.create_task(capture.run(lambda: None))
    await until(lambda: task.done() or writer.stream.published()[-1:] == writer.oplog.tokens[-1:])
    capture.stop()
    await task


async def test_several_sends_are_under_way_and_the_checkpoint_is_that_of_the_last(writer: Writer) -> None:
    for _ in range(40):
        writer.oplog.happen()
    await drained(writer)
    assert writer.stream.published() == writer.oplog.tokens
    assert max(under_way for _, _, under_way in TRACE) >= 1
    assert writer.place["newest"].token >= writer.oplog.tokens[-1]


async def test_a_pointer_waits_until_nothing_is_under_way(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Traced, "too_large", lambda self, change: len(change.body) > 5_000)
    for number in range(20):
        writer.oplog.happen(text="x" * (10_000 if number == 11 else 1))
    await drained(writer)
    assert writer.stream.published() == writer.oplog.tokens
    assert [deed for deed in TRACE if deed[0] == "pointer"] == [("pointer", 1, 0)]
    assert any(under_way for kind, _, under_way in TRACE if kind == "send")


async def test_a_dead_letter_waits_and_what_follows_it_is_sent_again(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.properties.test_capture_properties as properties

    aside = replace(properties.WATCHER, sink=replace(properties.WATCHER.sink, oversize="dead_letter"))
    monkeypatch.setattr(properties, "WATCHER", aside)
    monkeypatch.setattr(Traced, "too_large", lambda self, change: len(change.body) > 5_000)
    for number in range(20):
        writer.oplog.happen(text="x" * (10_000 if number == 11 else 1))
    await drained(writer)
    tokens = writer.oplog.tokens
    assert writer.stream.published() == tokens[:11] + tokens[12:]
    assert len(writer.box.letters) == 1


@pytest.mark.parametrize("deed", ["ack_lost", "timeout", "torn", "late"])
@pytest.mark.parametrize("at", [0, 1, 3])
async def test_after_a_failure_what_was_not_sent_yet_follows_what_is_found(writer: Writer, deed: Any, at: int) -> None:
    for _ in range(30):
        writer.oplog.happen()
    writer.stream.faults.extend(["ok"] * at)
    writer.stream.faults.append(deed)
    await drained(writer)
    assert writer.stream.published() == writer.oplog.tokens
    assert writer.place["newest"].token >= writer.oplog.tokens[-1]


async def test_changes_that_are_counted_are_passed_over_and_not_sent(writer: Writer) -> None:
    for _ in range(6):
        writer.oplog.happen()
    await drained(writer)
    lag = replace(writer.place["newest"], token=writer.oplog.tokens[1], sequence=2, own=None)
    writer.place["newest"] = lag
    writer.stream.consume(6)
    writer.die()
    TRACE.clear()
    for _ in range(4):
        writer.oplog.happen()
    await drained(writer)
    assert writer.stream.published() == writer.oplog.tokens
    assert sum(size for kind, size, _ in TRACE if kind == "send") <= 4


@pytest.mark.parametrize("ours", [True, False])
async def test_a_batch_that_passed_though_the_one_before_was_refused_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    """Exactly as many messages as the first batch has took its place: those of a rival with the same changes are in
    order, those of somebody else leave a hole, behind which nothing goes on."""
    monkeypatch.setattr("app.pipeline.batch_queue.TOGETHER_BYTES", 0)
    monkeypatch.setattr("tests.properties.test_capture_properties.FakeSink", Traced)
    writer = Writer(FakeOplog(), stream := FakeStream(mode="atomic"), {}, 2)
    await _first_start(writer)
    TRACE.clear()
    for _ in range(40):
        writer.oplog.happen()
    real, tokens = FakeStream.store, writer.oplog.tokens
    calls, overtaken = 0, ""

    def disturbed(self: FakeStream, batch: Any, *args: Any, **options: Any) -> int:
        nonlocal calls, overtaken
        calls += 1
        if not overtaken and len(TRACE) > calls:  # the next one is under way
            overtaken = batch[0][1].token
            for subject, one in batch:
                if ours:
                    real(self, [(subject, one)], self.last_sequence, "ORDERS.*")
                else:
                    self.neighbour(subject)
            self.ids.clear()
            raise FenceLost("10071")
        return real(self, batch, *args, **options)

    monkeypatch.setattr(FakeStream, "store", disturbed)
    if ours:
        await drained(writer)
        assert overtaken
        assert stream.published() == tokens
        return
    with pytest.raises(PositionUndecidable):
        await drained(writer)
    assert overtaken
    assert overtaken not in stream.published()
    for _ in range(2):  # nor does another attempt, or another process
        writer.die()
        with pytest.raises(PositionUndecidable):
            await drained(writer)
