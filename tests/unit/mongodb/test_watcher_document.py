"""A watcher as it is stored, and what an earlier version reads of it."""

from dataclasses import replace
from typing import Literal

import pytest

from app.domain.watcher import PUBLISHED, Source, StoredWatcher, Watcher, from_document, problems
from app.mongodb.watcher_document import as_stored, restored

ORDERS = StoredWatcher(Watcher("orders", Source("shop", "orders")).with_defaults(), revision=3, added=2)


@pytest.mark.parametrize("snapshot", ["none", "initial", "only"])
def test_a_watcher_is_read_as_it_was_stored(snapshot: Literal["none", "initial", "only"]) -> None:
    stored = replace(ORDERS, watcher=replace(ORDERS.watcher, snapshot=snapshot))
    document = as_stored(stored)
    assert ("snapshot" in document["watcher"]) is (snapshot != "none")
    assert restored(document, []) == stored


def test_a_version_that_knows_no_snapshot_refuses_a_watcher_of_a_snapshot_alone() -> None:
    document = as_stored(replace(ORDERS, watcher=replace(ORDERS.watcher, snapshot="only")))["watcher"]
    assert document["operations"] == list(PUBLISHED)
    known = {name: value for name, value in document.items() if name not in ("snapshot", "operations", "checkpoint")}
    earlier = from_document(known | {"source": {"database": "shop", "collection": "orders"}})
    assert [each.field for each in problems(earlier, state_database="changewire")] == ["sink.operations"]
