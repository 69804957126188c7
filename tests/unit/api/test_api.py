"""The HTTP interface over a stand-in registry: shapes, statuses, and bad input at every door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api import create_api
from app.api.schemas import answers
from app.api.schemas.requests import NewWatcher, WatcherShape
from app.config.settings import Settings
from app.control.registry import Revisions
from app.domain.errors import (
    Conflict,
    Invalid,
    NotFound,
)  # fmt: skip
from app.domain.lifecycle import Desired, State
from app.domain.status import Component, ErrorSeen, Health, Lag, Status, TokenView, WatcherView
from app.domain.watcher import Start, StoredWatcher, Watcher, problems

BASE = "http://127.0.0.1:8080"
SECRET = "hunter2hunter2"
TOKEN = "826502E9A9000000012B022C0100296E5A1004"
ORDERS: dict[str, Any] = {"name": "orders", "source": {"database": "shop", "collection": "orders"}}
JSON = {"Content-Type": "application/json"}


class StandIn:
    """A registry that only remembers."""

    def __init__(self) -> None:
        self.views: dict[str, WatcherView] = {}
        self.moves: list[tuple[str, Start | None]] = []
        self.removed: list[tuple[str, bool]] = []
        self.explicit: list[bool] = []
        self.expected: list[Revisions | None] = []
        self.failure: Exception | None = None
        self.not_ready: str | None = None
        self.components = {
            "mongo": Component(True), "nats": Component(True), "watchers": Component(True, counts={"RUNNING": 2}),
        }  # fmt: skip

    def _view(self, name: str) -> WatcherView:
        if self.failure is not None:
            raise self.failure
        if name not in self.views:
            raise NotFound(f"there is no watcher {name}")
        return self.views[name]

    def show(self, watcher: Watcher, state: State, **more: Any) -> WatcherView:
        desired = Desired.PAUSED if state is State.PAUSED else Desired.RUNNING
        return WatcherView(StoredWatcher(watcher, desired=desired), Status(state, 1_700_000_000.5, **more))

    async def watchers(self, state: State | None = None) -> list[WatcherView]:
        return [view for _, view in sorted(self.views.items()) if state is None or view.status.state is state]

    async def watcher(self, name: str) -> WatcherView:
        return self._view(name)

    async def add(
        self, watcher: Watcher, *, paused: bool = False, explicit_start: bool = False, dry_run: bool = False
    ) -> WatcherView:
        if self.failure is not None:
            raise self.failure
        found = problems(watcher, state_database="changewire")
        if found:
            raise Invalid(problems=tuple(found))
        if watcher.name in self.views:
            raise Conflict(f"there is a watcher {watcher.name} already")
        view = self.show(watcher, State.PAUSED if paused else State.STARTING)
        self.explicit.append(explicit_start)
        if not dry_run:
            self.views[watcher.name] = view
        return view

    async def put(
        self,
        watcher: Watcher,
        *,
        paused: bool = False,
        explicit_start: bool = False,
        dry_run: bool = False,
        expected: Revisions | None = None,
    ) -> tuple[WatcherView, bool]:
        self.expected.append(expected)
        old = self.views.pop(watcher.name, None)
        view = await self.add(watcher, paused=paused, explicit_start=explicit_start, dry_run=dry_run)
        if dry_run and old is not None:
            self.views[watcher.name] = old
        return view, old is None

    async def remove(self, name: str, *, delete_checkpoint: bool = False, expected: Revisions | None = None) -> None:
        self.expected.append(expected)
        self._view(name)
        del self.views[name]
        self.removed.append((name, delete_checkpoint))

    async def pause(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        self.expected.append(expected)
        self.views[name] = self.show(self._view(name).stored.watcher, State.PAUSED)
        return self.views[name]

    async def resume(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        self.expected.append(expected)
        self.views[name] = self.show(self._view(name).stored.watcher, State.STARTING)
        return self.views[name]

    async def restart(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        self.expected.append(expected)
        return self._view(name)

    async def lag(self, name: str) -> Lag:
        self._view(name)
        return Lag(1.0, None, "not permitted", 1_700_000_000.25, 2.0)

    async def lags(self) -> dict[str, Lag]:
        return {name: await self.lag(name) for name in self.views}

    async def token(self, name: str) -> TokenView:
        self._view(name)
        return TokenView(TOKEN, 1_700_000_000, 7, 1, None)

    async def set_token(self, name: str, start: Start, *, expected: Revisions | None = None) -> TokenView:
        self._view(name)
        self.moves.append((name, start))
        return TokenView(None, None, None, 2, None)

    async def reset_token(self, name: str, *, expected: Revisions | None = None) -> TokenView:
        self._view(name)
        self.moves.append((name, None))
        return TokenView(None, None, None, 2, None)

    async def health(self) -> Health:
        return Health(self.components)

    def ready(self) -> str | None:
        return self.not_ready


async def render_metrics() -> tuple[bytes, str]:
    return b"up 1\n", "text/plain; version=1.0.0; charset=utf-8"


def application(registry: StandIn, **settings: Any) -> FastAPI:
    return create_api(
        registry=registry,  # type: ignore[arg-type]
        settings=Settings(**settings),
        render_metrics=render_metrics,
        lifespan=None,
    )


@asynccontextmanager
async def client_of(app: FastAPI, base: str = BASE) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=base
    ) as client:
        yield client


@pytest.fixture
def registry() -> StandIn:
    return StandIn()


@pytest.fixture
async def client(registry: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application(registry)) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of a problem, checked for what every one has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    assert body["detail"]
    assert "Traceback" not in answer.text
    assert SECRET not in answer.text
    return body


def fields(answer: httpx.Response) -> list[str]:
    return [each["field"] for each in problem(answer, 422)["errors"]]


# Watchers


async def test_add_fills_in_every_default_of_the_contract(client: httpx.AsyncClient, registry: StandIn) -> None:
    answer = await client.post("/watchers", json=ORDERS)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/watchers/orders"
    body = answer.json()
    status = body.pop("status")
    assert body == {
        "name": "orders",
        "source": {
            "database": "shop", "collection": "orders", "pipeline": [], "full_document": "updateLookup",
            "full_document_before_change": "whenAvailable", "pre_and_post_images": False,
            "show_expanded_events": False,
        },
        "sink": {
            "stream": "ORDERS", "subject": "{stream}.{operation}",
            "operations": ["insert", "update", "replace", "delete"], "oversize": "claim_check", "replicas": 1,
            "max_age_seconds": 0, "max_bytes": -1, "duplicate_window_seconds": 120, "stream_settings": "changewire",
        },
        "checkpoint": {"database": "resume-tokens", "collection": "orders", "capped": False, "size_in_bytes": 0},
        "start": {"at": "latest"},
        "on_history_lost": "fail",
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


async def test_answers_have_their_documented_shapes(client: httpx.AsyncClient, registry: StandIn) -> None:
    await client.post("/watchers", json=ORDERS)
    watcher = registry.views["orders"].stored.watcher
    error = ErrorSeen("SourceUnavailable", "mongodb://u:hunter2hunter2@h is down", 1_700_000_000, 3)
    registry.views["orders"] = registry.show(
        watcher, State.RETRYING, reason="no answer", last_error=error, publish_mode="atomic", fence="stream",
        rate_10s=1.23456, notes=("fell back",),
    )  # fmt: skip
    view = (await client.get("/watchers/orders")).json()
    answers.WatcherAnswer.model_validate(view)
    status = (await client.get("/watchers/orders/status")).json()
    assert status == view["status"]
    assert status["last_error"] == {
        "type": "SourceUnavailable", "message": "mongodb://***@h is down", "time": "2023-11-14T22:13:20.000Z",
        "count": 3,
    }  # fmt: skip
    assert status["rates"] == {"last_10s": 1.235, "last_60s": 0.0}
    lag = (await client.get("/watchers/orders/lag")).json()
    answers.LagAnswer.model_validate(lag)
    assert lag["oplog_headroom_seconds"] is None
    assert lag["oplog_headroom_why"] == "not permitted"
    assert (await client.get("/lag")).json() == {"orders": lag}
    token = (await client.get("/watchers/orders/token")).json()
    answers.TokenAnswer.model_validate(token)
    assert (token["cluster_time"], token["updated_at"]) == ("2023-11-14T22:13:20.000Z", None)


async def test_put_adds_or_replaces_and_the_urls_name_will_do(client: httpx.AsyncClient) -> None:
    body = {"source": ORDERS["source"]}
    answer = await client.put("/watchers/a.b%C3%A4", json=body)
    assert answer.status_code == 201
    assert answer.json()["name"] == "a.bä"
    assert answer.headers["location"] == "/watchers/a.b%C3%A4"
    assert (await client.put("/watchers/a.bä", json=body | {"name": "a.bä"})).status_code == 200
    assert fields(await client.put("/watchers/a.bä", json=body | {"name": "c"})) == ["name"]


async def test_dry_run_changes_nothing(client: httpx.AsyncClient, registry: StandIn) -> None:
    answer = await client.post("/watchers?dry_run=true", json=ORDERS)
    assert (answer.status_code, answer.json()["sink"]["stream"]) == (200, "ORDERS")
    assert "location" not in answer.headers
    assert (await client.put("/watchers/orders?dry_run=true", json=ORDERS)).status_code == 200
    assert registry.views == {}


async def test_misspelt_query_is_refused_before_anything_is_changed(
    client: httpx.AsyncClient, registry: StandIn
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


async def test_explicit_start_is_told(client: httpx.AsyncClient, registry: StandIn) -> None:
    await client.post("/watchers", json=ORDERS | {"start": {"at": "latest"}})
    assert registry.explicit == [True]


async def test_pause_resume_restart_remove(client: httpx.AsyncClient, registry: StandIn) -> None:
    await client.post("/watchers", json=ORDERS)
    paused = await client.put("/watchers/orders/pause")
    assert (paused.status_code, paused.json()["paused"], paused.json()["status"]["state"]) == (202, True, "PAUSED")
    assert (await client.put("/watchers/orders/resume")).status_code == 202
    assert (await client.post("/watchers/orders/restart")).status_code == 202
    removed = await client.delete("/watchers/orders?checkpoint=delete")
    assert (removed.status_code, removed.content) == (204, b"")
    assert registry.removed == [("orders", True)]
    problem(await client.delete("/watchers/orders"), 404)


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
async def test_token_is_moved(client: httpx.AsyncClient, registry: StandIn, body: Any, start: Start) -> None:
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
async def test_bad_token_body(client: httpx.AsyncClient, registry: StandIn, body: Any, field: str) -> None:
    await client.post("/watchers", json=ORDERS)
    assert field in fields(await client.put("/watchers/orders/token", json=body))
    assert registry.moves == []


# Probes


async def test_healthz_is_the_predecessors_shape(client: httpx.AsyncClient, registry: StandIn) -> None:
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
    answers.ServiceAnswer.model_validate(answer.json())


@pytest.mark.parametrize("state", list(State))
async def test_watcher_health(client: httpx.AsyncClient, registry: StandIn, state: State) -> None:
    await client.post("/watchers", json=ORDERS)
    registry.views["orders"] = registry.show(registry.views["orders"].stored.watcher, state)
    answer = await client.get("/watchers/orders/health")
    well = state in (State.RUNNING, State.PAUSED, State.FENCED)
    assert answer.status_code == (200 if well else 503)
    assert answer.json()["status"] == ("UP" if well else "DOWN")
    assert ("reason" in answer.json()) == (not well)
    answers.HealthAnswer.model_validate(answer.json())


async def test_livez_readyz_metrics_and_root(client: httpx.AsyncClient, registry: StandIn) -> None:
    assert (await client.get("/livez")).json() == {"status": "UP"}
    assert (await client.get("/readyz")).json() == {"status": "UP"}
    registry.not_ready = "MongoDB: not reached yet"
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "DOWN", "reason": "MongoDB: not reached yet"})
    metrics = await client.get("/metrics")
    assert (metrics.text, metrics.headers["content-type"]) == ("up 1\n", "text/plain; version=1.0.0; charset=utf-8")
    assert "<title>Changewire</title>" in (await client.get("/")).text
    assert (await client.get("/docs")).status_code == 200
