"""The filter of a scope on a real server chooses what `Source.has` says, of events that are made up."""

from typing import Any

import pytest

from app.domain.watcher import Source
from app.mongodb.scope_filter import scope_filter
from tests.integration.mongodb.bench import Client

DATABASES = ("shop", "shopping", "crm_1", "crm_10", "changewire", "resume-tokens")
COLLECTIONS = (
    "orders", "orders_1", "orders_10", "orders_tmp", "orders.eu", "a b", "ünicode 😀", "a\nb", "a(b", "x" * 99, "users",
)  # fmt: skip


def event(database: str, collection: str, **more: Any) -> dict[str, Any]:
    return {"operationType": "insert", "ns": {"db": database, "coll": collection}, **more}


def passed(client: Client, source: Source, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the events through the filter."""
    stages = [{"$documents": events}, *scope_filter(source, "changewire")]
    return list(client.get_database("admin").aggregate(stages))


@pytest.mark.parametrize(
    ("include", "exclude"),
    [
        ((), ()),
        (("orders_*",), ()),
        (("orders_?",), ()),
        (("orders", "users", "a b"), ()),
        (("*_*", "users"), ("*tmp", "orders_1")),
        ((), ("orders*", "a?b")),
        (("*😀",), ()),
        (("a?b", "*(*"), ("a b",)),
        (("*x*x*x*x*x*x*x*x*x*x*x*x*y", "*e*u*"), ()),
    ],
)
class TestTheSameCollections:
    def test_of_a_database(self, client: Client, include: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        source = Source("shop", include=include, exclude=exclude)
        events = [event("shop", collection) for collection in COLLECTIONS]
        wanted = [each for each in events if source.has("shop", each["ns"]["coll"])]
        assert passed(client, source, events) == wanted

    def test_of_the_deployment(self, client: Client, include: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        source = Source(
            include=tuple(f"shop.{each}" for each in include), exclude=tuple(f"*.{each}" for each in exclude)
        )
        events = [event(database, collection) for database in DATABASES for collection in COLLECTIONS]
        wanted = [
            each
            for each in events
            if source.has(each["ns"]["db"], each["ns"]["coll"]) and each["ns"]["db"] != "changewire"
        ]
        assert passed(client, source, events) == wanted


class TestEventsOfTheirOwnKind:
    def test_a_rename_passes_by_either_name(self, client: Client) -> None:
        source = Source("shop", include=("orders_*",), exclude=("*tmp",))
        into = event("shop", "users", operationType="rename", to={"db": "shop", "coll": "orders_2"})
        out = event("shop", "orders_2", operationType="rename", to={"db": "shop", "coll": "orders_tmp"})
        other = event("shop", "users", operationType="rename", to={"db": "shop", "coll": "orders_tmp"})
        assert passed(client, source, [into, out, other]) == [into, out]

    def test_an_invalidate_always_passes(self, client: Client) -> None:
        invalidate = {"operationType": "invalidate"}
        assert passed(client, Source("shop", include=("a",)), [invalidate]) == [invalidate]

    def test_a_dropped_database_passes_where_its_collections_may_be_watched(self, client: Client) -> None:
        events = [{"operationType": "dropDatabase", "ns": {"db": database}} for database in DATABASES]
        for source in (
            Source(include=("shop*.a", "*_1.*"), exclude=("shopping.*",)),
            Source(),
            Source(exclude=("s*.*",)),
        ):
            names = [each["ns"]["db"] for each in passed(client, source, events)]
            assert names == [one for one in DATABASES if source.has_database(one) and one != "changewire"]
        assert passed(client, Source("shop", include=("a",)), events[:1]) == events[:1]
