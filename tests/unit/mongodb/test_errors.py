"""MongoDB's errors in the project's terms: the kind says what the service does, the words what a person has to do."""

from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from app.domain.errors import (
    EventTooLarge,
    HistoryLost,
    NotAuthorised,
    SourceRefused,
    SourceUnavailable,
    StateOutOfReach,
    StoreUnavailable,
)
from app.domain.watcher import Source
from app.mongodb.errors import of_stream, stream_translated, translated, where_allowed


def failure(code: int, said: str = "no") -> OperationFailure:
    return OperationFailure(said, code, {"errmsg": said, "code": code})


def source(*stages: dict[str, Any], **options: Any) -> Source:
    return Source("shop", "orders", pipeline=stages, **options)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ServerSelectionTimeoutError("no servers"), StoreUnavailable, "MongoDB cannot be reached: no servers"),
        (AutoReconnect("reset"), StoreUnavailable, "MongoDB cannot be reached while storing it: reset"),
        (WTimeoutError("slow", 64, {"errmsg": "slow"}), StoreUnavailable, "MongoDB cannot be reached while storing it"),
        (failure(11600), StoreUnavailable, "MongoDB failed while storing it: no (code 11600)"),
        (failure(4242), StoreUnavailable, "MongoDB failed while storing it"),
        (failure(18), NotAuthorised, "refuses the account in MONGO_URI"),
        (failure(8000), NotAuthorised, "Atlas refuses what was asked"),
        (failure(13), StateOutOfReach, "grant it readWrite on state"),
        (failure(13297), SourceRefused, "differ in case alone"),
    ],
)
def test_an_ordinary_commands_error_is_translated_with_its_cause(
    error: PyMongoError, kind: type[Exception], said: str
) -> None:
    with (
        pytest.raises(kind) as raised,
        translated("storing it", grant="readWrite on state", kind=StoreUnavailable, lacking=StateOutOfReach),
    ):
        raise error
    assert type(raised.value) is kind
    assert said in str(raised.value)
    assert raised.value.__cause__ is error


def test_our_own_errors_and_others_are_left_alone() -> None:
    for error in (StoreUnavailable("ours"), KeyError("theirs")):
        for context in (translated("x"), where_allowed("x"), stream_translated(source())):
            with pytest.raises(type(error)) as raised, context:
                raise error
            assert raised.value is error


def test_without_a_grant_there_is_no_empty_advice() -> None:
    with pytest.raises(NotAuthorised, match=r"lacks a privilege\. MongoDB says"), translated("looking"):
        raise failure(13)


def test_a_refusal_of_what_not_every_account_may_ask_is_no_answer_and_trouble_that_passes_is_trouble() -> None:
    for code in (13, 18, 4242, 40324):
        with where_allowed("reading the oplog"):
            raise failure(code)
    for error in (failure(91), AutoReconnect("reset")):
        with pytest.raises(SourceUnavailable, match="while reading the oplog"), where_allowed("reading the oplog"):
            raise error
    with pytest.raises(StoreUnavailable), where_allowed("reading the oplog", kind=StoreUnavailable):
        raise AutoReconnect("reset")


@pytest.mark.parametrize(
    ("error", "watched", "kind", "said"),
    [
        (AutoReconnect("reset"), source(), SourceUnavailable, "cannot be reached while reading shop.orders"),
        (PyMongoError("odd"), source(), SourceUnavailable, "reading shop.orders failed"),
        (failure(43), source(), SourceUnavailable, "interrupted reading shop.orders"),
        (failure(13), source(), NotAuthorised, "find and changeStream on shop.orders"),
        (failure(286), source(), HistoryLost, "no longer reaches back"),
        (failure(10334), source(), EventTooLarge, "16 MiB"),
        (failure(166), source(), SourceRefused, "is a view"),
        (failure(40573), source(), SourceRefused, "rs.initiate()"),
        (failure(8), source({"$set": {"a": 1}}), SourceRefused, "the event's _id"),
        (failure(47), source(full_document="required"), SourceRefused, "pre_and_post_images"),
        (failure(280, "modified by the pipeline"), source(), SourceRefused, "the event's _id"),
    ],
)
def test_a_streams_error_is_told_by_class_and_code(
    error: PyMongoError, watched: Source, kind: type[Exception], said: str
) -> None:
    found = of_stream(error, watched)
    assert type(found) is kind
    assert said in str(found)


@pytest.mark.parametrize(
    ("error", "watched"),
    [
        (failure(280), source()),  # by trying
        (failure(40324), source({"$nonsense": 1})),
        (failure(4242), source()),
        (failure(8), source({"$match": {"a": 1}})),  # what only chooses events alters none
        (failure(47), source()),
    ],
)
def test_what_the_code_does_not_tell_of_this_source_is_left_to_a_trial(
    error: OperationFailure, watched: Source
) -> None:
    assert of_stream(error, watched) is None
    with pytest.raises(SourceUnavailable, match=r"reading shop\.orders failed"), stream_translated(watched):
        raise error
