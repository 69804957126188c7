"""Which watchers the doctor says could share a change stream, and why the others do not: in the status's words."""

from typing import Any

import pytest

from app.doctor.sharing import Sharing
from app.domain.findings import Finding, Level
from app.domain.watcher import Sink, Source, Watcher
from app.mongodb.deployment import SWITCHED_OFF
from app.mongodb.feeds.eligible import why_own
from app.mongodb.feeds.group import ALONE
from app.mongodb.privileges import NOBODY, Privileges


def watcher(name: str, database: str = "shop", operations: tuple[str, ...] | None = None, **source: Any) -> Watcher:
    sink = Sink(name.upper()) if operations is None else Sink(name.upper(), operations=operations)
    return Watcher(name, Source(database, **{"collection": name, **source}), sink)


def account(*resources: tuple[str, str]) -> Privileges:
    """One that may watch these databases (with an empty collection) and collections."""
    granted = [
        {"resource": {"db": database, "collection": collection}, "actions": ["find", "changeStream"]}
        for database, collection in resources
    ]
    return Privileges({"authInfo": {"authenticatedUsers": [{"user": "me"}], "authenticatedUserPrivileges": granted}})


def found(sharing: Sharing, one: Watcher) -> Finding:
    return sharing.found(one, one.source.namespace)


def test_watchers_of_one_database_with_the_same_options_share() -> None:
    watchers = [
        watcher("a"), watcher("b"), watcher("c", full_document="whenAvailable"), watcher("d", database="stock"),
    ]  # fmt: skip
    sharing = Sharing(watchers, NOBODY, share=True)
    said = [found(sharing, each) for each in watchers]
    assert {each.level for each in said} == {Level.OK}
    assert [each.found for each in said] == [
        "opens on shop.a, shared by 2 watchers", "opens on shop.b, shared by 2 watchers",
        f"opens on shop.c, its own: {ALONE}", f"opens on stock.d, its own: {ALONE}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "alone",
    [
        watcher("x", pipeline=({"$match": {"a": 1}},)),
        watcher("x", operations=("insert", "invalidate")),
        watcher("x", full_document="required"),
        watcher("x", full_document_before_change="required"),
        watcher("x", collection=""),
    ],
)
def test_one_that_has_to_have_its_own_counts_for_nobody_and_says_why_as_the_status_does(alone: Watcher) -> None:
    sharing = Sharing([watcher("a"), alone], NOBODY, share=True)
    why = why_own(alone)
    assert why is not None
    assert found(sharing, alone).found.endswith(f", its own: {why}")
    assert found(sharing, watcher("a")).found.endswith(f", its own: {ALONE}")


def test_nobody_shares_where_that_is_switched_off() -> None:
    watchers = [watcher("a"), watcher("b")]
    sharing = Sharing(watchers, NOBODY, share=False)
    assert [found(sharing, each).found.partition(": ")[2] for each in watchers] == [SWITCHED_OFF] * 2


def test_an_account_of_single_collections_is_a_warning_with_the_grant_where_several_could_share() -> None:
    watchers = [watcher("a"), watcher("b"), watcher("d", database="stock")]
    sharing = Sharing(watchers, account(("shop", "a"), ("shop", "b"), ("stock", "d")), share=True)
    first, second, alone = (found(sharing, each) for each in watchers)
    assert (first.level, second.level, alone.level) == (Level.WARNING, Level.WARNING, Level.OK)
    assert "may not watch the database shop as a whole: it lacks find, changeStream" in first.found
    assert "role read on shop" in first.advice
    assert found(Sharing(watchers, account(("shop", "")), share=True), watchers[0]).found.endswith("by 2 watchers")
