"""Everything that is wrong with a request is said at once, each at its field: its form, and what the rules find."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.api.problems import MAX_ERRORS
from tests.unit.api.calls import ORDERS, problem
from tests.unit.api.fake_registry import FakeRegistry

SHOP: dict[str, Any] = {"database": "shop", "collection": "orders"}


def said(answer: httpx.Response) -> dict[str, str]:
    """The errors by field, each of which is named once."""
    errors = problem(answer, 422)["errors"]
    found = {each["field"]: each["detail"] for each in errors}
    assert len(found) == len(errors)
    return found


@pytest.mark.parametrize(
    ("watcher", "expected"),
    [
        (
            {"name": "a/b", "source": SHOP, "sink": {"replicas": "3", "stream": "a.b", "subject": "{strem}"}},
            {"sink.replicas", "name", "sink.stream", "sink.subject"},
        ),
        (
            {"name": "w", "source": {"database": "admin", "collection": 5}, "sink": {"stream": "a.b"}},
            {"source.collection", "sink.stream"},
        ),
        (
            {"name": "w", "source": SHOP, "colour": "red", "checkpoint": {"database": "admin", "capped": "no"}},
            {"colour", "checkpoint.capped", "checkpoint.database"},
        ),
        (
            {"name": "w", "source": SHOP, "sink": {"operations": [1, "upsert"], "subject": "a b"}},
            {"sink.operations.0", "sink.subject"},
        ),
        ({"source": SHOP | {"database": "a.b"}, "paused": "no"}, {"name", "paused", "source.database"}),
        (
            {"name": "w", "source": SHOP, "start": {"at": "now"}, "sink": {"operations": []}},
            {"start.at", "sink.operations"},
        ),
        ({"name": "a/b", "source": None}, {"source", "name"}),
        ({"name": "a/b"}, {"source", "name"}),
    ],
)
async def test_what_is_wrong_by_form_and_by_rule_is_said_together(
    client: httpx.AsyncClient, registry: FakeRegistry, watcher: Any, expected: set[str]
) -> None:
    found = said(await client.post("/watchers", json=watcher))
    assert set(found) == expected
    assert registry.views == {}


async def test_nothing_is_said_of_what_was_not_sent(client: httpx.AsyncClient) -> None:
    """Without its source the watcher has no default stream, and without its URL no name."""
    assert set(said(await client.put("/watchers/w", json={"source": {"database": 5}}))) == {"source.database"}
    long = {"name": "w", "source": {"database": "shop", "collection": "c" * 260}, "paused": 1}
    assert set(said(await client.post("/watchers", json=long))) == {"paused", "source.collection"}


async def test_the_name_of_a_put_is_told_with_the_rest(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    other = {**ORDERS, "name": "other", "sink": {"stream": "a.b"}}
    found = said(await client.put("/watchers/orders", json=other))
    assert set(found) == {"name", "sink.stream"}
    assert registry.views == {}


async def test_errors_of_a_list_have_the_place_and_the_watchers_name(
    client: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    wrong = [
        {"name": "one", "source": SHOP, "sink": {"replicas": "3", "stream": "a.b"}},
        {"name": "two", "source": {"database": "shop", "collection": "items"}},
        {"name": "three", "source": SHOP | {"database": "admin"}},
        {"source": SHOP},
    ]
    body = problem(await client.post("/watchers", json=wrong), 422)
    assert [(each["field"], each.get("watcher")) for each in body["errors"]] == [
        ("[0].sink.replicas", "one"),
        ("[3].name", None),
        ("[0].sink.stream", "one"),
        ("[2].source.database", "three"),
    ]
    assert registry.views == {}


async def test_many_errors_of_a_list_are_counted_and_the_first_are_shown(client: httpx.AsyncClient) -> None:
    wrong = [
        {"name": f"w{number}", "source": SHOP | {"database": "admin"}, "paused": 1} for number in range(MAX_ERRORS)
    ]
    body = problem(await client.post("/watchers", json=wrong), 422)
    assert len(body["errors"]) == MAX_ERRORS
    assert body["detail"].endswith("more")
