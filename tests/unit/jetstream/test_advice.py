"""Why a stream is not published to in the fastest mode, in words: the cause that counts, and what to do."""

from typing import Any

import pytest

from app.jetstream.advice import why_slower
from app.jetstream.streams import Stream, assess
from tests.unit.jetstream.test_streams import stream, watcher

SHARED: dict[str, Any] = {"subjects": ["ORDERS.*", "more.x"]}


@pytest.mark.parametrize(
    "found",
    [
        stream("2.15.1", allow_atomic=True, allow_batched=True),
        stream("2.12.8", allow_atomic=True, num_replicas=3),
        stream("2.15.1", allow_atomic=True, allow_batched=True, num_replicas=3),
    ],
)
def test_what_is_fastest_needs_no_words(found: Stream) -> None:
    assert why_slower(found, watcher(), assess(found, watcher()), refused="not asked") is None


@pytest.mark.parametrize(
    ("found", "settings", "refused", "words"),
    [
        (stream("2.12.8", allow_atomic=True), "changewire", None, ["fast ingest from 2.14 on, and this one is 2.12.8"]),
        (stream("2.11.4"), "changewire", None, ["fast ingest from 2.14 on and atomic batches from 2.12 on", "2.11.4"]),
        (stream(), "changewire", None, ["a window", "older than 2.11"]),
        (stream("2.15.1"), "changewire", None, ["allow_batched is off", "Changewire switches it on", "--allow-fast"]),
        (stream("2.15.1", num_replicas=3), "changewire", "no", ["allow_atomic could not be", "--allow-batch"]),
        (stream("2.15.1"), "changewire", "may not", ["(may not)", "$JS.API.STREAM.UPDATE.ORDERS", "restart"]),
        (stream("2.15.1"), "connector", None, ["keeps mongodb-nats-connector", "CHANGEWIRE_CONNECTOR_STREAMS"]),
        (stream("2.15.1", allow_atomic=True), "connector", None, ["atomic batches", "without allow_batched"]),
        (stream("2.15.1", allow_atomic=True, **SHARED), "changewire", None, ["more.x", "a stream of its own"]),
        (stream("2.15.1", **SHARED), "changewire", "may not", ["one at a time", "more.x", "allow_atomic could not be"]),
        (stream("2.11.4", **SHARED), "changewire", None, ["one at a time", "more.x", "2.12"]),
    ],
)
def test_what_is_slower_says_why_and_what_to_do(
    found: Stream, settings: str, refused: str | None, words: list[str]
) -> None:
    ours = watcher(stream_settings=settings)
    said = str(why_slower(found, ours, assess(found, ours), refused=refused))
    assert all(each in said for each in words), said
    assert "The guarantee is the same." in said


def test_messages_of_others_are_the_cause_where_they_were_seen() -> None:
    said = str(why_slower(stream("2.15.1"), watcher(), "single"))
    assert "another client has published to the watcher's subjects" in said
