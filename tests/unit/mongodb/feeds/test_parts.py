"""A batch taken apart by collection: every event once, in its collection's order, and natively the same."""

from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.parts import Split
from app.formats import native
from app.mongodb.feeds import parts
from tests.encoders import needs_native, raw_events


def event(token: str, operation: str, collection: str | None = "a", database: str = "shop", **fields: Any) -> bytes:
    namespace = {} if collection is None else {"ns": {"db": database, "coll": collection}}
    return bson.encode({"_id": {"_data": token}, "operationType": operation, **namespace, **fields})


def in_python(events: Any) -> Any:
    return parts.split(events)


def natively(events: Any) -> Any:
    split = native.splitter("auto")
    assert split is not None
    return split(events)


BOTH = [pytest.param(in_python, id="python"), pytest.param(natively, id="native", marks=needs_native)]


@pytest.mark.parametrize("split", BOTH)
def test_each_collection_has_its_events_in_order_and_the_tokens_of_the_first_and_the_last(split: Split) -> None:
    events = [event("1", "insert", "a"), event("2", "insert", "b"), event("3", "delete", "a")]
    found = split(raw_events(events)) or []
    assert [(each.database, each.collection, each.first, each.last) for each in found] == [
        ("shop", "a", "1", "3"), ("shop", "b", "2", "2"),
    ]  # fmt: skip
    assert [list(each.events) for each in found] == [[events[0], events[2]], [events[1]]]


@pytest.mark.parametrize("split", BOTH)
@pytest.mark.parametrize(
    "several",
    [
        event("2", "rename", "a", to={"db": "shop", "coll": "b"}),
        bson.encode({"_id": {"_data": "2"}, "operationType": "dropDatabase", "ns": {"db": "shop"}}),
        event("2", "invalidate", None),
    ],
)
def test_what_concerns_several_collections_or_none_is_alone_and_nothing_passes_it(split: Split, several: bytes) -> None:
    before, after = event("1", "insert"), event("3", "insert")
    found = split(raw_events([before, several, after])) or []
    assert [(each.collection, list(each.events)) for each in found] == [
        ("a", [before]), ("", [several]), ("a", [after]),
    ]  # fmt: skip
    assert (found[1].first, found[1].last) == ("2", "2")


@pytest.mark.parametrize("split", BOTH)
def test_collections_of_the_same_name_in_two_databases_are_kept_apart(split: Split) -> None:
    found = split(raw_events([event("1", "insert", database="shop"), event("2", "insert", database="stock")])) or []
    assert [(each.database, each.collection) for each in found] == [("shop", "a"), ("stock", "a")]


@pytest.mark.parametrize("split", BOTH)
def test_nothing_is_taken_apart_into_nothing(split: Split) -> None:
    assert split(raw_events([])) == []


NAMES = st.one_of(
    st.sampled_from(["a", "b", "system.views", "a.b", "ns", "coll", "_id"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**31), 2**31), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=4,
)
EVENTS = st.one_of(
    st.fixed_dictionaries(
        {
            "operationType": st.sampled_from(["insert", "update", "drop", "create", "modify", "shardCollection"]),
            "fullDocument": st.dictionaries(NAMES, VALUES, max_size=3),
            "ns": st.fixed_dictionaries({"db": NAMES, "coll": NAMES}),
        }
    ),
    st.fixed_dictionaries(
        {
            "operationType": st.just("rename"),
            "ns": st.fixed_dictionaries({"db": NAMES, "coll": NAMES}),
            "to": st.fixed_dictionaries({"db": NAMES, "coll": NAMES}),
        }
    ),
    st.fixed_dictionaries(
        {"operationType": st.just("dropDatabase"), "ns": st.fixed_dictionaries({"db": NAMES})},
    ),
    st.just({"operationType": "invalidate"}),
)


@given(st.lists(EVENTS, max_size=30))
def test_no_event_is_lost_doubled_or_put_before_another_of_its_collection(documents: list[dict[str, Any]]) -> None:
    events = [bson.encode({"_id": {"_data": f"{place:04}"}, **each}) for place, each in enumerate(documents)]
    found = parts.split(raw_events(events))
    assert sorted(raw for part in found for raw in part.events) == sorted(events)
    for part in found:
        tokens = [parts.token_of(raw) for raw in part.events]
        assert tokens == sorted(tokens)
        assert (part.first, part.last) == (tokens[0], tokens[-1])
        names = {(part.database, part.collection)} if part.collection else {("", "")}
        assert part.collection == "" or {_name(raw) for raw in part.events} == names
    by_name: dict[tuple[str, str], list[str]] = {}
    for part in found:
        by_name.setdefault((part.database, part.collection), []).extend(map(parts.token_of, part.events))
    assert all(tokens == sorted(tokens) for tokens in by_name.values())


@needs_native
@given(st.lists(EVENTS, max_size=30))
def test_the_native_one_takes_apart_as_the_reference_does(documents: list[dict[str, Any]]) -> None:
    events = [bson.encode({"_id": {"_data": f"{place:04}"}, **each}) for place, each in enumerate(documents)]
    assert natively(raw_events(events)) == parts.split(raw_events(events))


@needs_native
@given(st.lists(EVENTS, min_size=1, max_size=3), st.data())
def test_damaged_bytes_are_left_to_the_reference_or_taken_apart_without_a_crash(
    documents: list[dict[str, Any]], data: st.DataObject
) -> None:
    events = [bson.encode({"_id": {"_data": f"{place:04}"}, **each}) for place, each in enumerate(documents)]
    which = data.draw(st.integers(0, len(events) - 1))
    place = data.draw(st.integers(0, len(events[which]) - 1))
    damaged = bytearray(events[which])
    damaged[place] = data.draw(st.integers(0, 255))
    events[which] = bytes(damaged)
    taken = natively(raw_events(events))
    assert taken is None or sorted(raw for part in taken for raw in part.events) == sorted(events)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"operationType": "rename", "ns": {"db": "s", "coll": "a"}, "to": {"db": "s", "coll": "b"}},
         [("s", "a"), ("s", "b")]),
        ({"operationType": "rename", "ns": {"db": "s", "coll": "a"}, "to": {"db": "t", "coll": "a"}},
         [("s", "a"), ("t", "a")]),
        ({"operationType": "dropDatabase", "ns": {"db": "s"}}, []),
        ({"operationType": "invalidate"}, []),
    ],
)  # fmt: skip
def test_a_rename_concerns_both_names_and_a_dropped_database_no_collection(
    fields: dict[str, Any], names: list[tuple[str, str]]
) -> None:
    assert parts.concerned(bson.encode({"_id": {"_data": "1"}, **fields})) == names


def _name(raw: bytes) -> tuple[str, str]:
    namespace = bson.decode(raw)["ns"]
    return namespace["db"], namespace["coll"]
