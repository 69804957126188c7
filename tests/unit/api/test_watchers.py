"""The calls that list, add, change and remove watchers: defaults, what is answered, and what only looks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.api.schemas.watchers import NewWatcher, WatcherShape
from app.domain.watcher import Watcher
from tests.unit.api.calls import ORDERS, fields, problem
from tests.unit.api.fake_registry import FakeRegistry


async def test_add_fills_in_every_default_of_the_contract(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    answer = await client.post("/watchers", json=ORDERS)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/watchers/orders"
    body = answer.json()
    status = body.pop("status")
    assert body == {
        "name": "orders",
        "source": {
            "database": "shop", "collection": "orders", "include": [], "exclude": [], "pipeline": [],
            "full_document": "updateLookup",
            "full_document_before_change": "whenAvailable", "pre_and_post_images": False,
            "show_expanded_events": False,
        },
        "sink": {
            "stream": "ORDERS", "subject": "{stream}.{operation}",
            "operations": ["insert", "update", "replace", "delete"], "oversize": "claim_check", "replicas": 1,
            "max_age_seconds": 0, "max_bytes": -1, "duplicate_window_seconds": 120, "stream_settings": "changewire",
        },
        "checkpoint": None,
        "start": {"at": "latest"},
        "on_history_lost": "fail",
        "snapshot": "none",
        "paused": False,
    }  # fmt: skip
    assert status["state"] == "STARTING"
    assert status["since"] == "2023-11-14T22:13:20.500Z"
    assert (await client.get("/watchers/orders")).json() == answer.json()
    assert registry.explicit == [False]


async def test_what_is_got_can_be_put_as_it_is(client: httpx.AsyncClient) -> None:
    posted = ORDERS | {
        "start": {"at": {"timestamp": "2026-01-01T00:00:00Z"}},
        "paused": True,
        "source": ORDERS["source"] | {"pipeline": [{"$match": {"operationType": "insert"}}], "full_document": None},
    }
    assert (await client.post("/watchers", json=posted)).status_code == 201
    body = (await client.get("/watchers/orders")).json()
    assert body["paused"] is True
    assert body["start"] == {"at": {"timestamp": "2026-01-01T00:00:00Z"}}
    answer = await client.put("/watchers/orders", json=body)
    assert answer.status_code == 200
    assert answer.json() == body


def test_defaults_of_the_shapes_are_the_domains() -> None:
    shape = NewWatcher.model_validate(ORDERS)
    from_shape = WatcherShape.model_validate(shape.model_dump()).to_watcher()
    assert shape.to_watcher() == from_shape == Watcher.with_defaults(shape.to_watcher())


async def test_put_adds_or_replaces_and_the_urls_name_will_do(client: httpx.AsyncClient) -> None:
    body = {"source": ORDERS["source"]}
    answer = await client.put("/watchers/a.b%C3%A4", json=body)
    assert answer.status_code == 201
    assert answer.json()["name"] == "a.bä"
    assert answer.headers["location"] == "/watchers/a.b%C3%A4"
    assert (await client.put("/watchers/a.bä", json=body | {"name": "a.bä"})).status_code == 200
    assert fields(await client.put("/watchers/a.bä", json=body | {"name": "c"})) == ["name"]


async def test_dry_run_changes_nothing(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    answer = await client.post("/watchers?dry_run=true", json=ORDERS)
    assert (answer.status_code, answer.json()["sink"]["stream"]) == (200, "ORDERS")
    assert "location" not in answer.headers
    assert (await client.put("/watchers/orders?dry_run=true", json=ORDERS)).status_code == 200
    assert registry.views == {}


async def test_misspelt_query_is_refused_before_anything_is_changed(
    client: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    assert fields(await client.post("/watchers?dryrun=true", json=ORDERS)) == ["dryrun"]
    assert fields(await client.post("/watchers?dry_run=perhaps", json=ORDERS)) == ["dry_run"]
    assert registry.views == {}
    await client.post("/watchers", json=ORDERS)
    assert fields(await client.delete("/watchers/orders?checkpoint=burn")) == ["checkpoint"]
    assert fields(await client.get("/watchers?stat=RUNNING")) == ["stat"]


async def test_list_and_its_filter(client: httpx.AsyncClient) -> None:
    await client.post("/watchers", json=ORDERS)
    await client.post("/watchers", json=ORDERS | {"name": "a", "paused": True})
    assert [each["name"] for each in (await client.get("/watchers")).json()] == ["a", "orders"]
    assert [each["name"] for each in (await client.get("/watchers?state=paused")).json()] == ["a"]
    assert (await client.get("/watchers?state=FAILED")).json() == []
    assert "STARTING" in problem(await client.get("/watchers?state=asleep"), 422)["detail"]


async def test_explicit_start_is_told(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    await client.post("/watchers", json=ORDERS | {"start": {"at": "latest"}})
    assert registry.explicit == [True]


async def test_pause_resume_restart_remove(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    await client.post("/watchers", json=ORDERS)
    paused = await client.put("/watchers/orders/pause")
    assert (paused.status_code, paused.json()["paused"], paused.json()["status"]["state"]) == (202, True, "PAUSED")
    assert (await client.put("/watchers/orders/resume")).status_code == 202
    assert (await client.post("/watchers/orders/restart")).status_code == 202
    removed = await client.delete("/watchers/orders?checkpoint=delete")
    assert (removed.status_code, removed.content) == (204, b"")
    assert registry.removed == [("orders", True)]
    problem(await client.delete("/watchers/orders"), 404)


def numbered(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "source": {"database": "shop", "collection": name}} for name in names]


async def test_a_list_that_is_asked_for_again_has_what_was_changed_meanwhile(client: httpx.AsyncClient) -> None:
    await client.post("/watchers", json=ORDERS)
    for change in ({}, {"on_history_lost": "latest"}, {"paused": True}):
        assert (await client.put("/watchers/orders", json=ORDERS | change)).status_code == 200
        listed = (await client.get("/watchers")).json()
        assert listed == [(await client.get("/watchers/orders")).json()]
        assert change.items() <= listed[0].items()
    assert (await client.put("/watchers/orders/resume")).status_code == 202
    assert (await client.get("/watchers")).json() == [(await client.get("/watchers/orders")).json()]
    assert (await client.delete("/watchers/orders")).status_code == 204
    assert (await client.get("/watchers")).json() == []


async def test_a_list_is_added_and_answered_in_its_order(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    answer = await client.post("/watchers", json=[*numbered("b", "a"), ORDERS | {"paused": True}])
    assert answer.status_code == 201
    assert [(each["name"], each["paused"]) for each in answer.json()] == [("b", False), ("a", False), ("orders", True)]
    assert {"location", "etag"} & set(answer.headers) == set()
    assert set(registry.views) == {"a", "b", "orders"}


async def test_a_list_can_be_tried_out(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    answer = await client.post("/watchers?dry_run=true", json=numbered("a", "b"))
    assert (answer.status_code, [each["name"] for each in answer.json()]) == (200, ["a", "b"])
    assert registry.views == {}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": "x"}, "[1].source"),
        (
            {"name": "x", "source": {"database": "shop", "collection": "x"}, "sink": {"replicas": 9}},
            "[1].sink.replicas",
        ),
        ({"name": "x", "source": {"database": "shop", "collection": 3}}, "[1].source.collection"),
        ({"name": "x", "source": {"database": "shop", "collection": "x"}, "snk": {}}, "[1].snk"),
        ({"name": "x/y", "source": {"database": "shop", "collection": "x"}}, "[1].name"),
        ({"name": "x", "source": {"database": "local", "collection": "x"}}, "[1].source.database"),
        ("x", "[1]"),
        (None, "[1]"),
        ([], "[1]"),
    ],
)
async def test_what_is_wrong_in_a_list_is_named_by_its_place_and_nothing_is_added(
    client: httpx.AsyncClient, registry: FakeRegistry, wrong: Any, named: str
) -> None:
    assert fields(await client.post("/watchers", json=[*numbered("a"), wrong, *numbered("b")])) == [named]
    assert registry.views == {}


async def test_the_fields_beside_an_unknown_one_in_a_list_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/watchers", json=[ORDERS | {"source": ORDERS["source"] | {"colection": "x"}}])
    assert "collection, database" in problem(answer, 422)["errors"][0]["detail"]


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_list_of_none_or_too_many_is_refused(
    client: httpx.AsyncClient, registry: FakeRegistry, count: int
) -> None:
    assert fields(await client.post("/watchers", json=numbered(*(f"w{each}" for each in range(count))))) == ["body"]
    assert registry.views == {}


async def test_a_list_for_one_watcher_that_has_a_url_is_refused(client: httpx.AsyncClient) -> None:
    assert fields(await client.put("/watchers/a", json=numbered("a"))) == ["body"]
