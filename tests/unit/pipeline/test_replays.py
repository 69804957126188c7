"""Dead letters over fake servers: set aside once, replayed once, whatever the servers answer and whatever dies when."""

import asyncio
from collections import deque
from dataclasses import replace

import bson
import pytest

from app.control.watcher_task import WatcherTask
from app.domain.dead_letters import (
    LONGEST_NAME,
    Following,
    Receipt,
    Replayed,
    judge,
    letter_subject,
    letters_of,
    letters_space,
    name_of,
)
from app.domain.errors import (
    ChangewireError,
    Conflict,
    EventNotEncodable,
    NotFound,
    SinkUnavailable,
    StreamRefused,
    Unavailable,
)
from app.domain.lifecycle import State
from app.domain.subjects import covers
from app.domain.tokens import MessageId, RowPlace, parse_message_id
from app.domain.watcher import Sink, StoredWatcher, Watcher
from app.formats.extended_json import encode, identify
from tests.fakes import Deed, FakeBox, FakeOplog, FakeSource, FakeStream, event_token, mark_token, raw_event
from tests.letters import spoilt_event
from tests.unit.deployment import Fakes, capture, kill, outrun, until, watcher

TOKEN = event_token(5)
RECEIPT = Receipt(TOKEN, 2, 10, "2026")
REPLAY = MessageId(event_token(8), 2, TOKEN)


# Decisions


@pytest.mark.parametrize(
    ("following", "epoch", "found"),
    [
        (Following("2026", 11, REPLAY, there=True, moved=True), 2, Replayed.THERE),
        (Following("2026", 13, REPLAY, there=True, moved=True, whole=False), 2, Replayed.THERE),
        (Following("2026"), 2, Replayed.OPEN),
        (Following("2026", 11, MessageId(event_token(9), 2), there=True, moved=True), 2, Replayed.MISSED),
        (Following("2026", 11, None, there=True, moved=True), 2, Replayed.MISSED),
        (Following("2026", 13, MessageId(event_token(9), 2), there=True, moved=True, whole=False), 2, Replayed.UNKNOWN),
        (Following("2026", moved=True, whole=False), 2, Replayed.UNKNOWN),
        (Following("2026", 11, replace(REPLAY, epoch=1), there=True, moved=True), 2, Replayed.MISSED),
        (Following("2026", 11, REPLAY, there=True, moved=True), 3, Replayed.MISSED),
        (Following("2027", 11, REPLAY, there=True, moved=True), 2, Replayed.MISSED),
    ],
)
def test_what_became_of_a_replay(following: Following, epoch: int, found: Replayed) -> None:
    assert judge(RECEIPT, following, epoch) is found


def test_subjects_of_letters_are_covered_and_bounded() -> None:
    long = TOKEN * 40
    assert letters_of("ORDERS") == "ORDERS-DLQ"
    for token in (TOKEN, long):
        for kind in ("event", "replay"):
            assert covers(letters_space("ORDERS"), letter_subject("ORDERS", "shop.orders *", token, kind))
    assert covers(letter_subject("ORDERS", "a.b", "*"), letter_subject("ORDERS", "a.b", TOKEN))
    assert not covers(letter_subject("ORDERS", "a", "*"), letter_subject("ORDERS", "b", TOKEN))
    assert name_of(TOKEN) == TOKEN
    assert len(name_of(long)) < LONGEST_NAME < len(long)
    assert name_of(long) != name_of(long + "00")


def test_an_event_that_cannot_be_encoded_is_identified() -> None:
    raw = spoilt_event(raw_event(5))
    with pytest.raises(EventNotEncodable):
        encode(raw)
    assert identify(raw) == (TOKEN, "insert", '{"_id":5}')
    for hopeless in (b"", b"\x05\x00\x00\x00\x00", raw[:-1]):
        with pytest.raises(EventNotEncodable):
            identify(hopeless)


def test_a_key_that_cannot_be_read_is_left_out() -> None:
    assert identify(spoilt_key()) == (TOKEN, "insert", None)


def spoilt_key() -> bytes:
    from tests.letters import spoilt

    return bytes(bson.encode(bson.decode(raw_event(5)) | {"documentKey": spoilt({"_id": 5})}))


# Watchers


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    monkeypatch.setattr("app.domain.backoff.LIMIT_SECONDS", 0.001)
    monkeypatch.setattr("app.pipeline.standby.LOOK_SECONDS", 0.001)
    return Fakes()


def task(fakes: Fakes, oversize: str = "claim_check", **tuning: float) -> WatcherTask:
    """A watcher of an instance of its own."""
    one = watcher("orders")
    one = replace(one, sink=replace(one.sink, oversize=oversize))  # type: ignore[arg-type]
    return fakes.task(StoredWatcher(one), **tuning)


def box(fakes: Fakes) -> FakeBox:
    return fakes.nats.boxes.setdefault("ORDERS", FakeBox())


def happen(oplog: FakeOplog, *spoil: int, count: int) -> list[str]:
    """Let changes happen, of which those at the named places cannot be encoded; return the tokens of the others."""
    fine = []
    for index in range(count):
        token = oplog.happen()
        if index in spoil:
            oplog.events[-1] = (token, spoilt_event(oplog.events[-1][1]))
        else:
            fine.append(token)
    return fine


async def started(fakes: Fakes) -> None:
    """Have the watcher's start stored: what happens from here on is to be published."""
    one = task(fakes)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    await one.stop(2)


async def killed_after(one: WatcherTask, steps: int) -> None:
    one.start()
    for _ in range(steps):
        await asyncio.sleep(0)
    await kill()


@pytest.mark.parametrize("deed", ["ok", "timeout", "ack_lost", "late", "torn", "unavailable", "refused"])
@pytest.mark.parametrize(
    "trouble", [None, SinkUnavailable("no answer"), StreamRefused("maximum bytes exceeded")], ids=["ok", "gone", "full"]
)
async def test_set_aside_in_its_place_whatever_publishing_and_storing_come_to(
    fakes: Fakes, deed: Deed, trouble: ChangewireError | None
) -> None:
    await started(fakes)
    fine = happen(fakes.oplog, 0, 3, 4, 9, count=10)
    fakes.stream().faults = deque([deed, "ok", deed])
    box(fakes).faults = deque([trouble, None, trouble])
    one = task(fakes)
    one.start()
    await until(lambda: len(box(fakes).letters) == 4 and len(fakes.stream().messages) == 6)
    await one.stop(2)
    fakes.stream().arrive_late()
    assert fakes.stream().published() == fine
    assert box(fakes).tokens() == [token for token in fakes.oplog.tokens if token not in fine]
    assert fakes.observers[-1].skips["not_encodable"] == 4
    assert fakes.mongo.places["resume-tokens.orders"]["newest"].token >= fakes.oplog.tokens[-1]


async def test_set_aside_once_though_the_process_dies_at_any_step(fakes: Fakes) -> None:
    await started(fakes)
    place = fakes.mongo.places["resume-tokens.orders"]
    checkpoint, met = place["newest"], set()
    fine = happen(fakes.oplog, 1, 2, 4, count=6)
    for steps in range(90):
        fakes.stream().purge()
        fakes.stream().forget_ids()
        fakes.stream().last_sequence, place["newest"] = 0, checkpoint
        box(fakes).letters.clear()
        await killed_after(task(fakes), steps)
        met.add((len(fakes.stream().messages), len(box(fakes).letters)))
        fakes.stream().forget_ids()
        one = task(fakes)
        one.start()
        await until(lambda: len(box(fakes).letters) == 3 and len(fakes.stream().messages) == 3)
        await one.stop(2)
        assert fakes.stream().published() == fine
        assert len(set(box(fakes).tokens())) == len(box(fakes).letters) == 3
    assert met == {(0, 0), (1, 0), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)}, "killed between any two of its steps"


async def test_two_instances_set_a_change_aside_once(fakes: Fakes) -> None:
    await started(fakes)
    pair = [task(fakes), task(fakes)]
    for one in pair:
        one.start()
    fine = happen(fakes.oplog, 1, 3, 6, count=8)
    await until(lambda: len(box(fakes).letters) == 3 and len(fakes.stream().messages) == 5)
    for one in pair:
        await one.stop(2)
    assert fakes.stream().published() == fine
    assert len(set(box(fakes).tokens())) == 3


async def test_a_standby_reads_a_change_that_cannot_be_encoded(fakes: Fakes) -> None:
    await started(fakes)
    one = task(fakes, losses=1, silence_seconds=0.01)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    outrun(fakes)
    happen(fakes.oplog, 1, count=2)
    await until(lambda: box(fakes).letters)
    assert State.FENCED in fakes.observers[-1].states
    await one.stop(2)


# Replays


async def replayable(fakes: Fakes) -> tuple[list[str], str, int]:
    """Set one change of three aside that can be published by now; return the others' tokens, its own and its letter."""
    await started(fakes)
    fine = happen(fakes.oplog, 1, count=3)
    one = task(fakes)
    one.start()
    await until(lambda: box(fakes).letters and len(fakes.stream().messages) == 2)
    await one.stop(2)
    ((sequence, (name, letter)),) = box(fakes).letters.items()
    box(fakes).letters[sequence] = name, replace(letter, raw=raw_event(2))
    return fine, letter.token, sequence


def originals(fakes: Fakes) -> list[str | None]:
    ids = [parse_message_id(message.change.id) for message in fakes.stream().messages]
    return [id_.original or id_.position for id_ in ids if id_ is not None]


async def goes_on(fakes: Fakes, one: WatcherTask, expected: list[str]) -> None:
    """One more change happens, and then all of the stream is as expected."""
    await until(lambda: one.state is State.RUNNING)
    after = fakes.oplog.happen()
    await until(lambda: originals(fakes)[-1:] == [after])
    await one.stop(2)
    assert originals(fakes) == [*expected, after]


async def ask(one: WatcherTask, sequence: int) -> None:
    """Ask for a replay until it is there, as a user does who gets no answer."""
    async with asyncio.timeout(10):
        while True:
            await until(lambda: one.state is State.RUNNING)
            try:
                await one.replay(sequence)
            except NotFound:
                return
            except (Unavailable, Conflict):
                await asyncio.sleep(0)
            else:
                return


@pytest.mark.parametrize("deed", ["ok", "timeout", "ack_lost", "late", "torn", "unavailable", "refused"])
@pytest.mark.parametrize("trouble", range(4))
@pytest.mark.parametrize("window", [True, False])
async def test_replayed_once_whatever_publishing_and_storing_come_to(
    fakes: Fakes, deed: Deed, trouble: int, window: bool
) -> None:
    fine, token, sequence = await replayable(fakes)
    stream = fakes.stream()
    stream.faults = deque([deed, deed])
    box(fakes).faults = deque([SinkUnavailable("no answer") if at == trouble else None for at in range(4)])
    if not window:
        stream.before_publish = stream.forget_ids
    one = task(fakes)
    one.start()
    await ask(one, sequence)
    assert box(fakes).tokens() == []
    await goes_on(fakes, one, [*fine, token])
    stream.arrive_late()
    assert originals(fakes).count(token) == 1


async def test_replayed_once_though_the_process_dies_at_any_step(fakes: Fakes) -> None:
    fine, token, sequence = await replayable(fakes)
    stream, oplog = fakes.stream(), fakes.oplog
    letters, messages, last = dict(box(fakes).letters), list(stream.messages), stream.last_sequence
    events, moment, place = list(oplog.events), oplog.moment, fakes.mongo.places["resume-tokens.orders"]
    checkpoint, met = place["newest"], set()
    for steps in range(40):
        box(fakes).letters, box(fakes).receipts = dict(letters), {}
        stream.messages, stream.last_sequence, place["newest"] = list(messages), last, checkpoint
        oplog.events, oplog.moment = list(events), moment
        stream.forget_ids()
        one = task(fakes)
        one.start()
        await until(lambda: one.state is State.RUNNING)  # noqa: B023 - awaited in the same round
        asking = asyncio.create_task(one.replay(sequence))
        for _ in range(steps):
            await asyncio.sleep(0)
        await kill()
        await asyncio.wait([asking])
        assert asking.exception() is None or isinstance(asking.exception(), Unavailable | Conflict)
        met.add((len(box(fakes).receipts), len(stream.messages), len(box(fakes).letters)))
        stream.forget_ids()
        another = task(fakes)
        another.start()
        await ask(another, sequence)
        assert box(fakes).tokens() == []
        await goes_on(fakes, another, [*fine, token])
    assert met == {(0, 2, 1), (1, 2, 1), (1, 3, 1), (1, 3, 0)}, "every step between asking and the end"


@pytest.mark.parametrize("later", [0, 1, 2, 3, 4, 5, 6, 8, 10, 12])
async def test_two_instances_replay_once(fakes: Fakes, later: int) -> None:
    fine, token, sequence = await replayable(fakes)
    pair = [task(fakes), task(fakes)]
    for one in pair:
        one.start()
    for one in pair:
        await until(lambda: one.state is State.RUNNING)  # noqa: B023 - awaited in the same round
    first = asyncio.create_task(ask(pair[0], sequence))
    for _ in range(later):
        await asyncio.sleep(0)
    await ask(pair[1], sequence)
    await first
    await pair[1].stop(2)
    await goes_on(fakes, pair[0], [*fine, token])


async def test_a_letter_that_is_stored_late_is_not_replayed_again(fakes: Fakes) -> None:
    """A frozen writer stores its letter after another one's was replayed: the receipt tells."""
    fine, token, sequence = await replayable(fakes)
    name, letter = box(fakes).letters[sequence]
    one = task(fakes)
    one.start()
    await ask(one, sequence)
    box(fakes).letters[99] = name, replace(letter, sequence=99)
    await ask(one, 99)
    assert box(fakes).tokens() == []
    await goes_on(fakes, one, [*fine, token])


async def test_where_nobody_can_tell_whether_it_was_replayed_the_letter_stays(fakes: Fakes) -> None:
    _, token, sequence = await replayable(fakes)
    name, letter = box(fakes).letters[sequence]
    one = task(fakes)
    one.start()
    await ask(one, sequence)
    box(fakes).letters[sequence] = name, letter
    del fakes.stream().messages[-1]
    with pytest.raises(Conflict, match="cannot be told"):
        await one.replay(sequence)
    assert box(fakes).tokens() == [token]
    await one.stop(2)


async def test_in_a_later_epoch_it_is_replayed_anew(fakes: Fakes) -> None:
    fine, token, sequence = await replayable(fakes)
    name, letter = box(fakes).letters[sequence]
    one = task(fakes)
    one.start()
    await ask(one, sequence)
    await one.stop(2)
    box(fakes).letters[sequence] = name, letter
    place = fakes.mongo.places["resume-tokens.orders"]
    place["newest"] = replace(place["newest"], epoch=1, sequence=None, own=None)
    another = task(fakes)
    another.start()
    await ask(another, sequence)
    await goes_on(fakes, another, [*fine, token, token])


async def test_a_replay_of_what_the_watcher_has_not_come_to_again_is_refused(fakes: Fakes) -> None:
    _, token, sequence = await replayable(fakes)
    place = fakes.mongo.places["resume-tokens.orders"]
    place["newest"] = replace(place["newest"], token=fakes.oplog.tokens[0], epoch=1, sequence=None, own=None)
    fakes.oplog.events.clear()
    one = task(fakes)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    fakes.oplog.moment = 0
    name, letter = box(fakes).letters[sequence]
    box(fakes).letters[sequence] = name, replace(letter, token=event_token(1_000))
    with pytest.raises(Conflict, match="moved back"):
        await one.replay(sequence)
    await one.stop(2)
    assert token not in originals(fakes)


async def test_what_still_cannot_be_published_stays(fakes: Fakes) -> None:
    _, _, sequence = await replayable(fakes)
    name, letter = box(fakes).letters[sequence]
    one = task(fakes)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    with pytest.raises(NotFound):
        await one.replay(sequence + 1)
    for spoil, words in (
        (replace(letter, raw=spoilt_event(raw_event(2))), "still cannot be published"),
        (replace(letter, raw=None), "not in the object store"),
        (replace(letter, operation="drop"), "does not publish"),
    ):
        box(fakes).letters[sequence] = name, spoil
        with pytest.raises(Conflict, match=words):
            await one.replay(sequence)
    await one.stop(2)
    with pytest.raises(Conflict, match="PAUSED"):
        await one.replay(sequence)
    assert len(box(fakes).letters) == 1
    assert len(fakes.stream().messages) == 2


async def test_a_replay_that_waits_when_the_watcher_stops_is_refused(fakes: Fakes) -> None:
    one, opened = capture(FakeStream(), FakeSource(fakes.oplog)), asyncio.Event()
    running = asyncio.create_task(one.run(opened.set))
    await opened.wait()
    one.stop()
    await running
    with pytest.raises(Unavailable, match="stop"):
        await one.replay(1)


async def test_a_reduced_change_is_replayed_with_what_it_lacks(fakes: Fakes) -> None:
    fine, token, sequence = await replayable(fakes)
    name, letter = box(fakes).letters[sequence]
    box(fakes).letters[sequence] = name, replace(letter, reduced="fullDocument")
    one = task(fakes)
    one.start()
    await ask(one, sequence)
    assert fakes.stream().messages[-1].change.headers == (("Changewire-Reduced", "fullDocument"),)
    await goes_on(fakes, one, [*fine, token])


async def test_an_oversized_change_is_set_aside_where_that_is_asked_for(fakes: Fakes) -> None:
    fakes.nats.max_payload = 400
    await started(fakes)
    one = task(fakes, "dead_letter")
    one.start()
    await until(lambda: one.state is State.RUNNING)
    first, large, last = fakes.oplog.happen(), fakes.oplog.happen(text="x" * 500), fakes.oplog.happen()
    await until(lambda: len(fakes.stream().messages) == 2)
    assert fakes.stream().published() == [first, last]
    assert box(fakes).tokens() == [large]
    assert one.status().dead_letters == 1
    assert fakes.observers[-1].skips == {"oversize": 1}
    await one.stop(2)


def test_a_sink_that_sets_aside_is_one_that_is_known() -> None:
    assert Watcher("w", watcher().source, Sink(oversize="dead_letter")).sink.oversize == "dead_letter"


# Rows of a snapshot

ROW = RowPlace(mark_token(2), 0, "0123456789ab", 0, 3)


def row_event() -> bytes:
    event = bson.decode(raw_event(2))
    return bson.encode(event | {"_id": {"_data": str(ROW)}, "operationType": "snapshot"})


async def test_a_row_that_was_set_aside_is_replayed_once_and_names_its_run(fakes: Fakes) -> None:
    fine, _, sequence = await replayable(fakes)
    name, letter = box(fakes).letters[sequence]
    box(fakes).letters[sequence] = name, replace(letter, token=str(ROW), operation="snapshot", raw=row_event())
    one = task(fakes)
    one.start()
    await until(lambda: one.state is State.RUNNING)
    done = await one.replay(sequence)
    assert done.token == str(ROW)
    message = fakes.stream().messages[-1]
    assert message.change.headers == (("Changewire-Snapshot", ROW.run),)
    assert message.subject == "ORDERS.snapshot"
    assert message.change.id.endswith(f":r:{ROW}")
    await goes_on(fakes, one, [*fine, str(ROW)])


def test_a_rows_letter_has_a_subject_of_its_own_below_the_watchers() -> None:
    for kind in ("event", "replay"):
        subject = letter_subject("ORDERS", "shop.orders *", str(ROW), kind)
        assert subject.count(".") == 3
        assert covers(letters_space("ORDERS"), subject)
    assert name_of(str(ROW)) != name_of(str(replace(ROW, row=4)))
