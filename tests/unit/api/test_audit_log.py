"""Each change leaves one line that names who and what, and nobody fills the log or writes a line of their own."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from app.api.middleware.audit_log import REFUSALS
from tests.unit.api.calls import CLOSED, JSON, ORDERS, READ, TOKENS, WRITE, application, bearer, client_of
from tests.unit.api.fake_registry import FakeRegistry


def audits(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["event"] == "audit"]


async def test_each_change_leaves_one_line_that_names_who_and_what(registry: FakeRegistry) -> None:
    async with client_of(application(registry, **TOKENS)) as client:
        with capture_logs() as logs:
            await client.post("/watchers", json=ORDERS, headers=bearer(WRITE))
            await client.put("/watchers/orders/pause", headers=bearer(WRITE))
            await client.delete("/watchers/absent", headers=bearer(WRITE))
            await client.post("/watchers", content=b"{", headers=bearer(WRITE) | JSON)
            await client.put("/watchers/orders/pause", headers=bearer(READ))
            await client.put("/watchers/orders/pause", headers=bearer("nobody's"))
            await client.get("/watchers/orders", headers=bearer(READ))
    lines = [(one["who"], one["role"], one["action"], one["status"], one["outcome"]) for one in audits(logs)]
    assert lines == [
        ("deploy", "write", "add_watcher", 201, "done"),
        ("deploy", "write", "pause_watcher", 202, "done"),
        ("deploy", "write", "remove_watcher", 404, "failed"),
        ("deploy", "write", "add_watcher", 400, "failed"),
        ("viewer", "read", None, 403, "refused"),
        ("anonymous", None, None, 401, "refused"),
    ]
    assert [one["watcher"] for one in audits(logs)] == [None, "orders", "absent", None, None, None]
    assert all(one["remote"] == "127.0.0.1" for one in audits(logs))
    assert audits(logs)[4]["path"] == "/watchers/orders/pause"
    assert not any(token in str(logs) for token in (READ, WRITE))


async def test_what_is_asked_for_cannot_pretend_to_be_another_line(registry: FakeRegistry) -> None:
    async with client_of(application(registry)) as client:
        with capture_logs() as logs:
            await client.put("/watchers/a%0Afake/pause")
            await client.put("/fake%0D%0A")
    assert [one["path"] for one in audits(logs)] == [r"/watchers/a\u000afake/pause", r"/fake\u000d\u000a"]
    assert audits(logs)[0]["watcher"] == r"a\u000afake"


async def test_a_change_that_ends_in_an_error_of_ours_leaves_a_line_too(registry: FakeRegistry) -> None:
    registry.failure = RuntimeError("broken")
    async with client_of(application(registry, **TOKENS)) as client:
        with capture_logs() as logs:
            await client.put("/watchers/orders/pause", headers=bearer(WRITE))
    assert [(one["status"], one["outcome"]) for one in audits(logs)] == [(500, "failed")]


async def test_guessing_tokens_does_not_fill_the_log(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("app.api.middleware.audit_log.time.monotonic", lambda: now[0])
    async with client_of(application(registry, **CLOSED)) as client:
        with capture_logs() as logs:
            for _ in range(REFUSALS + 7):
                await client.get("/watchers", headers=bearer("guess"))
            await client.post("/watchers", json=ORDERS, headers=bearer(WRITE))
            now[0] = 60.0
            await client.post("/watchers", headers=bearer("guess"))
    refused = [one for one in audits(logs) if one["outcome"] == "refused"]
    assert len(refused) == REFUSALS + 1
    assert refused[-1]["unsaid"] == 7
    assert len(audits(logs)) == REFUSALS + 2, "what is allowed is always said"
