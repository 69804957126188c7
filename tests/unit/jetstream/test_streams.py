"""How a stream can carry a watcher, decided from values: the mode, the fence, and what is refused."""

from typing import Any

import pytest

from app.domain.errors import StreamUnsuitable
from app.domain.watcher import Watcher, from_document
from app.jetstream.streams import (
    Stream,
    as_switched,
    assess,
    is_exclusive,
    makes_messages,
    new_config,
    switches,
    version_numbers,
)


def watcher(**sink: Any) -> Watcher:
    source = {"database": "shop", "collection": "orders"}
    return from_document({"name": "orders", "source": source, "sink": {"stream": "ORDERS", **sink}})


def stream(version: str = "", **config: Any) -> Stream:
    config = {"name": "ORDERS", "subjects": ["ORDERS.*"], "metadata": {"_nats.ver": version}, **config}
    return Stream(config, {}, "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("found", "mode", "exclusive"),
    [
        (stream(allow_atomic=True), "atomic", True),
        (stream(allow_atomic=True, allow_batched=True), "fast_ingest", True),
        (stream(allow_atomic=True, allow_batched=True, num_replicas=3), "atomic", True),
        (stream(subjects=["ORDERS.*", "more.x"], allow_atomic=True, allow_batched=True), "atomic", False),
        (stream(), "window", True),
        (stream(subjects=["ORDERS.*", "more.x"], allow_atomic=True), "atomic", False),
        (stream("2.11.4", subjects=["ORDERS.*", "more.x"]), "single", False),
        (stream("2.11.4", sources=[{"name": "OTHER"}]), "single", False),
        (stream("2.11.4", subject_transform={"src": "more.x", "dest": "x"}), "single", False),
        (stream(subjects=["ORDERS.insert", "ORDERS.*"]), "window", True),
    ],
)
def test_the_mode_is_the_fastest_that_is_safe(found: Stream, mode: str, exclusive: bool) -> None:
    assert assess(found, watcher()) == mode
    assert is_exclusive(found, "ORDERS.*") is exclusive


@pytest.mark.parametrize(("config", "mode"), [({"allow_atomic": True}, "atomic"), ({}, "window")])
def test_fast_ingest_needs_room_for_its_longer_commands(config: dict[str, Any], mode: str) -> None:
    found, length = stream(allow_batched=True, **config), watcher().longest_subject
    assert assess(found, watcher(), length + 44) == "fast_ingest"
    assert assess(found, watcher(), length + 43) == mode


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (stream(mirror={"name": "OTHER"}), "is a mirror"),
        (stream(subjects=["ORDERS.insert"]), "does not take the watcher's subjects"),
        (stream(subjects=[]), "it has none"),
        (stream(no_ack=True), "no_ack"),
        (stream(allow_msg_counter=True), "counters"),
        (stream(subject_transform={"src": "ORDERS.*", "dest": "x.>"}), "subject_transform"),
        (stream(subject_transform={"dest": "x.>"}), "subject_transform"),
        (stream("2.10.9", subjects=["ORDERS.*", "more.x"]), "fence by subject"),
        (stream(subjects=["ORDERS.*", "more.x"]), "fence by subject"),
    ],
)
def test_a_stream_that_cannot_carry_the_watcher_says_why(found: Stream, words: str) -> None:
    with pytest.raises(StreamUnsuitable, match=words):
        assess(found, watcher())


def test_what_is_switched_on_leaves_the_connectors_streams_alone() -> None:
    ours, connectors = watcher(), watcher(stream_settings="connector")
    found = stream("2.14.0", max_msgs=5)
    assert as_switched(found, ours).config == {**found.config, **switches(ours)}
    assert switches(ours) == dict.fromkeys(("allow_atomic", "allow_batched", "allow_direct"), True)
    assert assess(as_switched(found, ours), ours) == "fast_ingest"
    assert assess(as_switched(stream("2.12.8"), ours), ours) == "atomic"  # it would refuse the setting
    assert assess(as_switched(stream("2.11.9"), ours), ours) == "window"
    assert as_switched(stream(), connectors) == stream()
    assert not {"allow_atomic", "allow_batched", "allow_direct"} & new_config(connectors).keys()


@pytest.mark.parametrize(
    "found", [stream("2.15.1", num_replicas=3), stream("2.15.1", subjects=["ORDERS.>"]), stream("2.12.8")]
)
def test_fast_ingest_is_switched_on_only_where_it_is_used(found: Stream) -> None:
    assert switches(watcher(), found) == {"allow_atomic": True, "allow_direct": True}
    assert "allow_batched" not in new_config(watcher(replicas=3))


def test_a_duplicate_window_is_no_longer_than_the_age() -> None:
    second = 10**9
    for age, window, asked in ((0, 60, 60 * second), (30, 60, 30 * second), (60, 30, 30 * second)):
        config = new_config(watcher(max_age_seconds=age, duplicate_window_seconds=window))
        assert (config["duplicate_window"], config["max_age"]) == (asked, age * second)


def test_streams_that_add_messages_of_their_own_cannot_be_counted_on() -> None:
    assert makes_messages(stream(subject_delete_marker_ttl=10**9))
    assert makes_messages(stream(allow_msg_schedules=True))
    assert not makes_messages(stream())


@pytest.mark.parametrize(
    ("text", "numbers"), [("2.12.3", (2, 12)), ("2.14.0-preview.1", (2, 14)), ("", (0, 0)), ("devel", (0, 0))]
)
def test_a_version_is_read_as_far_as_it_is_one(text: str, numbers: tuple[int, int]) -> None:
    assert version_numbers(text) == numbers


@pytest.mark.parametrize(
    ("last", "asked", "quiet"),
    [
        ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:20.1Z", 20.0),
        ("2026-01-01T00:00:30Z", "2026-01-01T00:00:20Z", 0.0),
        ("0001-01-01T00:00:00Z", "2026-01-01T00:00:20Z", 0.0),
        ("nonsense", "2026-01-01T00:00:20Z", 0.0),
        ("2026-01-01T00:00:00Z", "", 0.0),
    ],
)
def test_how_long_a_stream_is_quiet_is_by_its_own_clock(last: str, asked: str, quiet: float) -> None:
    assert Stream({"name": "ORDERS"}, {"last_ts": last}, "", asked).quiet == quiet
