"""The frames of a batch: what a server reads out of them, and that those of a block are the reference's bytes."""

from collections.abc import Sequence

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import Change
from app.domain.packed import Numbered
from app.formats.extended_json import encode
from app.jetstream import frames
from tests.encoders import needs_native, packed

SUBJECTS = {"insert": "ORDERS.insert", "update": "ORDERS.an.update"}


def raw(number: int, operation: str = "insert", text: str = "") -> bytes:
    return bson.encode({"_id": {"_data": f"82{number:06}"}, "operationType": operation, "text": text})


def changes(*numbers: int) -> list[Change]:
    return [encode(raw(number, "update" if number % 2 else "insert"), ":2") for number in numbers]


def parsed(data: bytes) -> list[tuple[str, str, dict[str, str], bytes]]:
    """Subject, reply, headers and body of each message, read by the lengths that the frames state."""
    messages = []
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        verb, subject, *reply, head, whole = data[at:end].decode().split(" ")
        assert verb == "HPUB"
        begin = end + 2
        body, at = begin + int(head), begin + int(whole)
        block = data[begin:body]
        assert block.startswith(b"NATS/1.0\r\n")
        assert block.endswith(b"\r\n\r\n")
        messages.append((subject, "".join(reply), frames.read_headers(block), data[body:at]))
        assert data[at : at + 2] == b"\r\n"
        at += 2
    return messages


def test_an_atomic_batch_is_fenced_on_its_first_message_and_commits_with_its_last() -> None:
    for count in (2, 3, 40):
        sent = changes(*range(count))
        messages = parsed(b"".join(frames.atomic(sent, SUBJECTS, "_INBOX.1.", "b7", frames.fence("ORDERS", 5, None))))
        assert [body for *_, body in messages] == [change.body for change in sent]
        assert [subject for subject, *_ in messages] == [SUBJECTS[change.operation] for change in sent]
        assert [reply for _, reply, *_ in messages] == ["_INBOX.1.0", *[""] * (count - 2), f"_INBOX.1.{count - 1}"]
        headers = [headers for *_, headers, _ in messages]
        assert [each["Nats-Msg-Id"] for each in headers] == [change.id for change in sent]
        assert {each["Nats-Batch-Id"] for each in headers} == {"b7"}
        assert [each["Nats-Batch-Sequence"] for each in headers] == [str(number + 1) for number in range(count)]
        assert [each.get("Nats-Expected-Last-Sequence") for each in headers] == ["5", *[None] * (count - 1)]
        assert [each.get("Nats-Batch-Commit") for each in headers] == [*[None] * (count - 1), "1"]


def test_each_message_of_a_window_expects_the_one_before_and_has_a_reply_of_its_own() -> None:
    sent = changes(*range(1, 30))
    messages = parsed(b"".join(frames.window(sent, SUBJECTS, "_INBOX.1.", "ORDERS", 98)))
    assert [body for *_, body in messages] == [change.body for change in sent]
    assert [reply for _, reply, *_ in messages] == [f"_INBOX.1.{index}" for index in range(29)]
    fences = [headers["Nats-Expected-Last-Sequence"] for _, _, headers, _ in messages]
    assert fences == [str(98 + index) for index in range(29)]
    assert {headers["Nats-Expected-Stream"] for _, _, headers, _ in messages} == {"ORDERS"}


@pytest.mark.parametrize("commit", [False, True])
@pytest.mark.parametrize("first", [1, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_a_fast_ingest_batch_begins_goes_on_and_ends_with_every_message_fenced(
    count: int, first: int, commit: bool
) -> None:
    sent = changes(*range(1, count + 1))
    built = frames.fast_ingest(sent, SUBJECTS, "_INBOX.1.500.fail", first, "ORDERS", 98, commit=commit)
    messages = parsed(b"".join(built))
    assert [body for *_, body in messages] == [change.body for change in sent]
    operations = [frames.START if first == 1 else frames.APPEND, *[frames.APPEND] * (count - 1)]
    if commit:
        operations[-1] = frames.COMMIT
    expected = [f"_INBOX.1.500.fail.{first + index}.{each}.$FI" for index, each in enumerate(operations)]
    assert [reply for _, reply, *_ in messages] == expected
    fences = [headers["Nats-Expected-Last-Sequence"] for _, _, headers, _ in messages]
    assert fences == [str(98 + index) for index in range(count)]


def test_headers_of_a_change_come_between_its_id_and_its_fence_without_line_breaks() -> None:
    (change,) = changes(1)
    change.headers = (("Changewire-Reduced", "a\r\nb"),)
    (chunk,) = frames.numbered([change], SUBJECTS, None, Numbered("Fence: ", 7, "\r\n"))
    ((_, _, headers, _),) = parsed(chunk)
    assert headers == {"Nats-Msg-Id": "82000001:2", "Changewire-Reduced": "a  b", "Fence": "7"}


def test_chunks_are_bounded_and_a_large_message_has_one_of_its_own() -> None:
    sent = [encode(raw(number, text="x" * size), "") for number, size in enumerate([10] * 3000 + [500_000] * 3)]
    chunks = list(frames.numbered(sent, SUBJECTS, None, Numbered("", 0, "\r\n")))
    assert len(chunks) > 5
    assert all(len(chunk) < 2 * frames.CHUNK_BYTES for chunk in chunks[:-3])
    assert len(parsed(b"".join(chunks))) == len(sent)


numbers = st.builds(
    Numbered, st.text("ab.: ", max_size=9), st.integers(0, 10**15), st.sampled_from(["", "\r\n", ".$FI"])
)


@needs_native
@given(
    st.lists(st.tuples(st.sampled_from(sorted(SUBJECTS)), st.text(max_size=40)), max_size=12),
    st.sampled_from(["", ":2"]),
    st.none() | numbers,
    numbers,
    st.integers(0, 10),
)
def test_the_frames_of_a_block_are_those_of_its_changes(
    described: Sequence[tuple[str, str]], suffix: str, reply: Numbered | None, lines: Numbered, start: int
) -> None:
    events = [raw(number, *each) for number, each in enumerate(described)]
    block = packed(events, suffix=suffix)
    assert block is not None
    block = block[start:]
    expected = b"".join(frames.numbered(list(block), SUBJECTS, reply, lines))
    assert b"".join(frames.numbered(block, SUBJECTS, reply, lines)) == expected
    for size in (1, 300):
        assert b"".join(block.frames(SUBJECTS, reply, lines, size)) == expected


@needs_native
@pytest.mark.parametrize("count", [1, 2, 3, 700])
def test_every_mode_sends_of_a_block_what_it_sends_of_its_changes(count: int) -> None:
    block = packed([raw(number, "update" if number % 3 else "insert", "text" * number) for number in range(count)])
    assert block is not None
    listed, fence = list(block), frames.fence("ORDERS", 99, "ORDERS.>")
    for build in (
        lambda sent: frames.atomic(sent, SUBJECTS, "_INBOX.1.", "b7", fence) if count > 1 else (),
        lambda sent: frames.window(sent, SUBJECTS, "_INBOX.1.", "ORDERS", 99),
        lambda sent: frames.fast_ingest(sent, SUBJECTS, "_INBOX.1.9.fail", 1, "ORDERS", 99, commit=True),
        lambda sent: frames.fast_ingest(sent, SUBJECTS, "_INBOX.1.9.fail", 7, "ORDERS", 99, commit=False),
    ):
        assert b"".join(build(block)) == b"".join(build(listed))
