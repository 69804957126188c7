"""The calls about a watcher's position: each way to name one is taken, and what is none is refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.domain.watcher import Start
from tests.unit.api.calls import ORDERS, fields
from tests.unit.api.fake_registry import TOKEN, FakeRegistry


@pytest.mark.parametrize(
    ("body", "start"),
    [
        ({"token": TOKEN}, Start("token", TOKEN)),
        ({"timestamp": "2023-11-14T22:13:20Z"}, Start("timestamp", 1_700_000_000.0)),
        ({"timestamp": "2023-11-14T23:13:20+01:00"}, Start("timestamp", 1_700_000_000.0)),
        ({"at": "earliest"}, Start("earliest")),
        ({"at": {"token": TOKEN}}, Start("token", TOKEN)),
    ],
)
async def test_token_is_moved(client: httpx.AsyncClient, registry: FakeRegistry, body: Any, start: Start) -> None:
    await client.post("/watchers", json=ORDERS)
    answer = await client.put("/watchers/orders/token", json=body)
    assert (answer.status_code, answer.json()["epoch"]) == (200, 2)
    assert (await client.delete("/watchers/orders/token")).status_code == 200
    assert registry.moves == [("orders", start), ("orders", None)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"token": None}, "body"),
        ({"token": TOKEN, "at": "latest"}, "body"),
        ({"token": "xyz"}, "token"),
        ({"token": 5}, "token"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-01-01T00:00:00"}, "timestamp"),
        ({"timestamp": "9999-01-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": "1969-01-01T00:00:00Z"}, "timestamp"),
        ({"at": "noon"}, "at"),
        ({"at": {"timestamp": 5}}, "at"),
        ({"when": "latest"}, "when"),
    ],
)
async def test_bad_token_body(client: httpx.AsyncClient, registry: FakeRegistry, body: Any, field: str) -> None:
    await client.post("/watchers", json=ORDERS)
    assert field in fields(await client.put("/watchers/orders/token", json=body))
    assert registry.moves == []
