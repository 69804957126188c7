"""What NATS says, as errors of the project: the same code means different things for a request and for a publish."""

import ssl

import nats.errors
import pytest
from nats.js.errors import BucketNotFoundError, NotFoundError

from app.domain.errors import (
    FenceLost,
    MessageTooLarge,
    NotAuthorised,
    OutcomeUnknown,
    SeenBefore,
    SinkUnavailable,
    StreamFull,
    StreamRefused,
    StreamUnsuitable,
)
from app.jetstream.errors import (
    ApiError,
    ConnectionLost,
    Forbidden,
    bucket_refusals,
    describe,
    field_of,
    passing_refusals,
    refusals,
    unacknowledged,
    unanswered,
    unstored,
)


def answer(code: int, words: str = "the words", status: int = 400) -> dict[str, object]:
    return {"code": status, "err_code": code, "description": words}


@pytest.mark.parametrize(
    ("code", "request_", "publish"),
    [
        (10059, StreamRefused, OutcomeUnknown),
        (10039, SinkUnavailable, OutcomeUnknown),
        (10065, StreamUnsuitable, OutcomeUnknown),
        (10071, StreamRefused, FenceLost),
        (10164, StreamRefused, FenceLost),
        (10201, StreamRefused, SeenBefore),
        (10077, StreamRefused, StreamFull),
        (10047, StreamRefused, StreamFull),
        (10109, StreamRefused, StreamRefused),
        (10097, StreamRefused, MessageTooLarge),
        (10158, StreamRefused, OutcomeUnknown),
        (99999, StreamRefused, OutcomeUnknown),
    ],
)
def test_a_code_means_one_thing_for_a_request_and_another_for_a_publish(
    code: int, request_: type[Exception], publish: type[Exception]
) -> None:
    with pytest.raises(request_) as refused, refusals("ORDERS"):
        raise ApiError(answer(code))
    assert type(refused.value) is request_
    assert isinstance(refused.value.__cause__, ApiError)
    stored = unstored(answer(code))
    assert type(stored) is publish
    assert "the words" in str(stored)


def test_the_stream_of_dead_letters_never_fails_a_watcher() -> None:
    for code, meaning in ((10052, StreamRefused), (10059, StreamRefused), (10076, SinkUnavailable)):
        with pytest.raises(meaning), passing_refusals("ORDERS_DLQ"):
            raise ApiError(answer(code))


def test_a_batch_that_is_too_large_says_how_many_are_not() -> None:
    for words, limit in (("atomic publish batch is too large: 25", 25), ("something else", None)):
        full = unstored(answer(10199, words))
        assert isinstance(full, StreamFull)
        assert full.limit == limit


def test_silence_harms_a_publish_and_not_a_request() -> None:
    for error in (TimeoutError(), ConnectionLost("it broke")):
        assert type(unanswered(error, "$JS.API.INFO", 5)) is SinkUnavailable
        assert type(unacknowledged(error, "ORDERS", 5)) is OutcomeUnknown
    assert isinstance(unanswered(Forbidden("no"), "$JS.API.INFO", 5), NotAuthorised)
    assert isinstance(unacknowledged(Forbidden("no"), "ORDERS", 5), NotAuthorised)


@pytest.mark.parametrize(
    ("code", "status", "words", "field"),
    [
        (10005, 400, "insufficient resources", "sink.replicas"),
        (10052, 500, "max age needs to be >= 100ms", "sink.max_age_seconds"),
        (10052, 500, "duplicates window needs to be >= 100ms", "sink.duplicate_window_seconds"),
        (10052, 500, "something new", "sink"),
        (99999, 400, "something new", "sink"),
        (99999, 503, "something new", None),
    ],
)
def test_a_refused_stream_names_the_watchers_field(code: int, status: int, words: str, field: str | None) -> None:
    assert field_of(ApiError(answer(code, words, status))) == field


def test_an_object_store_that_refuses_is_told_from_one_that_is_away() -> None:
    for error, refused, meaning in (
        (BucketNotFoundError(), "the change x", StreamRefused),
        (NotFoundError(code=404), None, SinkUnavailable),
        (nats.errors.ConnectionClosedError(), "the change x", SinkUnavailable),
        (TimeoutError(), None, SinkUnavailable),
        (OSError(), "the change x", SinkUnavailable),
    ):
        with pytest.raises(meaning) as told, bucket_refusals("BUCKET", refused):
            raise error
        assert told.value.__cause__ is error


def test_a_connections_trouble_is_described_without_a_secret() -> None:
    assert describe(ConnectionRefusedError(111, "Connect call failed")) == "connection refused"
    assert describe(TimeoutError()) == "no answer in time"
    assert describe("nats: 'Authorization Violation'") == "the server refuses the credentials (authorization violation)"
    assert describe(ValueError("nats://me:hunter2@host is wrong")) == "nats://host is wrong"
    assert describe(nats.errors.NoServersError())
    alert = ssl.SSLError(1, "alert")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert "CHANGEWIRE_NATS_TLS_CERT" in describe(alert)
