"""The calls that ask how things are: a watcher's status and health, lag, and the probes."""

from __future__ import annotations

import httpx
import pytest

from app.domain.lifecycle import State
from app.domain.status import Component, ErrorSeen, Reads
from tests.unit.api.calls import ORDERS
from tests.unit.api.fake_registry import FakeRegistry


async def test_answers_have_their_documented_shapes(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    await client.post("/watchers", json=ORDERS)
    watcher = registry.views["orders"].stored.watcher
    error = ErrorSeen("SourceUnavailable", "mongodb://u:hunter2hunter2@h is down", 1_700_000_000, 3)
    registry.views["orders"] = registry.show(
        watcher, State.RETRYING, reason="no answer", last_error=error, publish_mode="atomic", fence="stream",
        rate_10s=1.23456, notes=("fell back",), reads=Reads(shared=False, why="mongodb://u:hunter2hunter2@h says no"),
    )  # fmt: skip
    view = (await client.get("/watchers/orders")).json()
    status = (await client.get("/watchers/orders/status")).json()
    assert status == view["status"]
    assert status["last_error"] == {
        "type": "SourceUnavailable", "message": "mongodb://***@h is down", "time": "2023-11-14T22:13:20.000Z",
        "count": 3,
    }  # fmt: skip
    assert (status["reads"], status["reads_why"]) == ("own", "mongodb://***@h says no")
    assert status["rates"] == {"last_10s": 1.235, "last_60s": 0.0}
    lag = (await client.get("/watchers/orders/lag")).json()
    assert lag["oplog_headroom_seconds"] is None
    assert lag["oplog_headroom_why"] == "not permitted"
    assert (await client.get("/lag")).json() == {"orders": lag}
    token = (await client.get("/watchers/orders/token")).json()
    assert (token["cluster_time"], token["updated_at"]) == ("2023-11-14T22:13:20.000Z", None)


async def test_healthz_is_the_connectors_shape(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    answer = await client.get("/healthz")
    assert answer.status_code == 200
    assert answer.text == (
        '{"status":"UP","components":{"mongo":{"status":"UP"},"nats":{"status":"UP"},'
        '"watchers":{"status":"UP","running":2}}}'
    )
    registry.components["nats"] = Component(False, reason="nats://u:hunter2hunter2@h refuses")
    answer = await client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "DOWN"
    assert answer.json()["components"]["nats"] == {"status": "DOWN", "reason": "nats://***@h refuses"}


@pytest.mark.parametrize("state", list(State))
async def test_watcher_health(client: httpx.AsyncClient, registry: FakeRegistry, state: State) -> None:
    await client.post("/watchers", json=ORDERS)
    registry.views["orders"] = registry.show(registry.views["orders"].stored.watcher, state)
    answer = await client.get("/watchers/orders/health")
    well = state in (State.RUNNING, State.PAUSED, State.FENCED)
    assert answer.status_code == (200 if well else 503)
    assert answer.json()["status"] == ("UP" if well else "DOWN")
    assert ("reason" in answer.json()) == (not well)


async def test_livez_readyz_metrics_and_root(client: httpx.AsyncClient, registry: FakeRegistry) -> None:
    assert (await client.get("/livez")).json() == {"status": "UP"}
    assert (await client.get("/readyz")).json() == {"status": "UP"}
    registry.not_ready = "MongoDB: not reached yet"
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "DOWN", "reason": "MongoDB: not reached yet"})
    metrics = await client.get("/metrics")
    assert (metrics.text, metrics.headers["content-type"]) == ("up 1\n", "text/plain; version=1.0.0; charset=utf-8")
    assert "<title>Changewire</title>" in (await client.get("/")).text
    assert (await client.get("/docs")).status_code == 200
