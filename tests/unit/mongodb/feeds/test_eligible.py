"""Which watchers may share a change stream, and which of them may share one with each other."""

from typing import Any

import pytest

from app.domain.watcher import Sink, Source, Watcher
from app.mongodb.feeds.eligible import kind_of, why_own


def watcher(operations: tuple[str, ...] = ("insert",), **source: Any) -> Watcher:
    given = {"database": "shop", "collection": "orders", **source}
    return Watcher("w", Source(**given), Sink("S", operations=operations))


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (watcher(collection=""), "more than one collection"),
        (watcher(database="", collection=""), "more than one collection"),
        (watcher(pipeline=({"$match": {"a": 1}},)), "pipeline"),
        (watcher(operations=("insert", "invalidate")), "invalidate"),
        (watcher(full_document="required"), "required"),
        (watcher(full_document_before_change="required"), "required"),
    ],
)
def test_one_that_cannot_share_says_why(one: Watcher, words: str) -> None:
    assert words in str(why_own(one))


@pytest.mark.parametrize(
    "options",
    [{}, {"full_document": None}, {"full_document_before_change": "whenAvailable"}, {"show_expanded_events": True}],
)
def test_any_other_watcher_of_a_collection_may_share(options: dict[str, Any]) -> None:
    assert why_own(watcher(**options)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"database": "stock"},
        {"full_document": "whenAvailable"},
        {"full_document": None},
        {"full_document_before_change": None},
        {"show_expanded_events": True},
    ],
)
def test_watchers_that_ask_for_different_events_do_not_share_one(options: dict[str, Any]) -> None:
    assert kind_of(watcher()) != kind_of(watcher(**options))
    assert kind_of(watcher(**options)) == kind_of(watcher(collection="other", **options))


def test_a_shared_change_stream_asks_for_what_its_watchers_ask_for() -> None:
    one = watcher(full_document="whenAvailable", full_document_before_change="whenAvailable", show_expanded_events=True)
    match = ({"$match": {"ns.coll": {"$in": ["orders"]}}},)
    source = kind_of(one).source(match)
    assert (source.database, source.collection, source.pipeline) == ("shop", "", match)
    asked = (source.full_document, source.full_document_before_change, source.show_expanded_events)
    assert asked == ("whenAvailable", "whenAvailable", True)
