"""Conflicts in which a watcher of a whole database or of the deployment has a part."""

from typing import Any

import pytest

from app.domain.errors import Conflict
from app.domain.overlap import refuse_overlap
from app.domain.watcher import Watcher, from_document


def watcher(name: str, source: dict[str, Any], stream: str = "", subject: str = "", **more: Any) -> Watcher:
    sink = {key: value for key, value in (("stream", stream), ("subject", subject)) if value} | more
    place = {"database": "positions", "collection": name}
    return from_document({"name": name, "source": source, "sink": sink, "checkpoint": place})


SHOP = {"database": "shop"}
ORDERS = {"database": "shop", "collection": "orders"}


def test_a_database_and_its_collection_go_onto_different_streams() -> None:
    refuse_overlap(watcher("shop", SHOP), [watcher("orders", ORDERS)])


def test_two_watchers_of_a_database_go_onto_different_streams() -> None:
    refuse_overlap(watcher("again", SHOP, "OTHER"), [watcher("shop", SHOP)])


def test_subjects_that_overlap_are_refused_with_the_other_watchers_name() -> None:
    orders = watcher("orders", ORDERS, subject="SHOP.orders.{operation}")
    with pytest.raises(
        Conflict, match=r"SHOP\.\*\.\*, which watcher orders uses .*sink\.stream 'SHOP_2'|watcher orders"
    ):
        refuse_overlap(watcher("shop", SHOP), [orders])


def test_another_subject_is_offered_only_where_it_would_be_accepted() -> None:
    for mine, theirs in ((SHOP, SHOP), ({}, {"include": ["shop.*"]}), (SHOP, ORDERS)):
        one, other = watcher("one", mine, "ALL", "ALL.{operation}"), watcher("other", theirs, "ALL", "ALL.{operation}")
        with pytest.raises(Conflict) as caught:
            refuse_overlap(one, [other])
        assert "another sink.subject" not in str(caught.value)
        assert "sink.stream '" in str(caught.value)
    with pytest.raises(Conflict, match=r"another sink\.subject on it, such as '\{stream\}\.\{database\}"):
        refuse_overlap(
            watcher("one", SHOP, "ALL", "ALL.{operation}"),
            [watcher("other", {"database": "crm"}, "ALL", "ALL.{operation}")],
        )


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (SHOP, ORDERS),
        ({}, ORDERS),
        ({}, SHOP),
        ({"database": "shop", "include": ["orders*"]}, ORDERS),
        ({"database": "shop", "include": ["o*"]}, {"database": "shop", "include": ["*s"]}),
        ({"include": ["s*.orders"]}, {"database": "shop", "include": ["order?"]}),
    ],
)
def test_the_same_changes_on_one_stream_are_refused(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    one, other = (
        watcher("one", mine, "ALL", "ALL.one.{operation}"),
        watcher("other", theirs, "ALL", "ALL.other.{operation}"),
    )
    for each, beside in ((one, other), (other, one)):
        with pytest.raises(Conflict, match="message ids are the same"):
            refuse_overlap(each, [beside])


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"database": "shop", "exclude": ["orders"]}, ORDERS),
        ({"database": "shop", "include": ["a_*"]}, {"database": "shop", "include": ["b_*"]}),
        ({"database": "shop"}, {"database": "crm"}),
        ({"include": ["shop.*"]}, {"database": "crm"}),
    ],
)
def test_other_changes_go_onto_one_stream(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    refuse_overlap(
        watcher("one", mine, "ALL", "ALL.one.{operation}"), [watcher("other", theirs, "ALL", "ALL.other.{operation}")]
    )


def test_not_where_a_change_may_be_of_two_collections() -> None:
    operations = ["insert", "rename"]
    mine = watcher("one", {"database": "shop", "include": ["a_*"]}, "ALL", "ALL.one.{operation}", operations=operations)
    theirs = watcher(
        "other", {"database": "shop", "include": ["b_*"]}, "ALL", "ALL.other.{operation}", operations=operations
    )
    with pytest.raises(Conflict, match="message ids are the same"):
        refuse_overlap(mine, [theirs])


def test_a_position_in_a_watched_database_is_refused() -> None:
    keeps = from_document(
        {"name": "keeps", "source": {"database": "crm", "collection": "x"}, "checkpoint": {"database": "shop"}}
    )
    with pytest.raises(Conflict, match=r"keep its position in shop\.x, which watcher shop watches"):
        refuse_overlap(keeps, [watcher("shop", SHOP)])
    with pytest.raises(Conflict, match=r"watch shop\.x, where watcher keeps keeps its position"):
        refuse_overlap(watcher("shop", SHOP), [keeps])
    refuse_overlap(watcher("shop", {"database": "shop", "exclude": ["x"]}), [keeps])
