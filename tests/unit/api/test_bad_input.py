"""Bad input at every door of the HTTP interface: fields, bytes, bodies, paths, and failures behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from app.api.middleware.limits import MAX_BODY
from app.api.schemas.values import MAX_PIPELINE
from app.domain.errors import Conflict, Invalid, NotAuthorised, SourceUnavailable, Unavailable
from tests.unit.api.calls import JSON, ORDERS, SECRET, fields, problem
from tests.unit.api.fake_registry import TOKEN, FakeRegistry

DEEP = b'{"a":' + b"[" * 150 + b"]" * 150 + b"}"


def changed(path: str, value: Any) -> dict[str, Any]:
    """ORDERS with one value set, by dotted path."""
    body = json.loads(json.dumps(ORDERS))
    *parents, last = path.split(".")
    inner = body
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", 5), ("name", None), ("name", ""), ("name", "a/b"), ("name", ".."), ("name", "a b"), ("name",
        "x" * 129),
        ("name", "a\u0000"), ("extra", SECRET), ("source", "shop.orders"), ("source", None), ("source", []),
        ("source.databse", "x"), ("source.database", 5), ("source.database", "admin"), ("source.database",
        "changewire"),
        ("source.database", "a b"), ("source.collection", ""), ("source.collection", "system.users"),
        ("source.pipeline", {}), ("source.pipeline", "x"), ("source.pipeline", [5]), ("source.pipeline", [{}]),
        ("source.pipeline", [{"$match": {"n": 2**70}}]), ("source.pipeline", [{"$match": {"a\u0000b": 1}}]),
        ("source.full_document", "always"), ("source.full_document_before_change", True),
        ("source.pre_and_post_images", "yes"), ("source.pre_and_post_images", 1), ("source.show_expanded_events", None),
        ("sink.stream", "a.b"), ("sink.stream", 5), ("sink.subject", "{nothing}"), ("sink.subject", "a b"),
        ("sink.operations", []), ("sink.operations", "insert"), ("sink.operations", ["insrt"]), ("sink.oversize",
        "drop"),
        ("sink.replicas", 0), ("sink.replicas", 6), ("sink.replicas", "1"), ("sink.replicas", True),
        ("sink.max_age_seconds", -1), ("sink.max_age_seconds", "1d"), ("sink.max_bytes", -2), ("sink.max_bytes", 2**63),
        ("sink.max_bytes", 1.5), ("sink.duplicate_window_seconds", -0.1), ("checkpoint.capped", 1),
        ("checkpoint.capped", True), ("checkpoint.size_in_bytes", -1), ("checkpoint.database", "local"),
        ("checkpoint.db", "x"), ("start", "latest"), ("start.at", "now"), ("start.at", 5), ("start.at", []),
        ("start.at", {}), ("start.at", {"timestamp": "x"}), ("start.at", {"timestamp": 5}),
        ("start.at", {"token": "x"}),
        ("start.at", {"token": TOKEN, "timestamp": "2026-01-01T00:00:00Z"}), ("start.after", "x"),
        ("snapshot", "always"), ("snapshot", None), ("snapshot", True),
        ("on_history_lost", "shrug"), ("paused", "true"), ("paused", 0),
    ],
)  # fmt: skip
async def test_bad_watcher_is_refused_by_the_fields_name(
    client: httpx.AsyncClient, registry: FakeRegistry, path: str, value: Any
) -> None:
    named = fields(await client.post("/watchers", json=changed(path, value)))
    parents = {path, *(f"start.{each}" for each in ("token", "timestamp") if path == "start.at")}
    if path == "checkpoint.capped":
        parents.add("checkpoint.size_in_bytes")
    assert any(each in parents or each.startswith(f"{path}.") for each in named), named
    assert registry.views == {}


@pytest.mark.parametrize("missing", ["name", "source"])
async def test_required_fields(client: httpx.AsyncClient, missing: str) -> None:
    body = json.loads(json.dumps(ORDERS))
    *parents, last = missing.split(".")
    inner = body
    for parent in parents:
        inner = inner[parent]
    del inner[last]
    answer = await client.post("/watchers", json=body)
    assert problem(answer, 422)["errors"] == [{"field": missing, "detail": "is required"}]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ([], "body", "must have 1 or more entries, and has 0"),
        ([ORDERS] * 1001, "body", "must have at most 1000 entries, and has 1001"),
        (changed("source.include", "orders_*"), "source.include", "must be a list"),
    ],
)
async def test_what_is_wrong_with_a_list_is_said_in_plain_words(
    client: httpx.AsyncClient, registry: FakeRegistry, body: Any, field: str, said: str
) -> None:
    assert problem(await client.post("/watchers", json=body), 422)["errors"] == [{"field": field, "detail": said}]
    assert registry.views == {}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400), (b"", 422), (b"null", 422), (b"[]", 422), (b"5", 422), (b'"text"', 422), (b"\xff\xfe{}", 400),
        (b"{'name': 1}", 400), (b'{"name": "a",}', 400), (b"[" * 10_000, 400), (b"[" * 100_000, 413), (b"\x00", 400),
        (b'{"name":"a","source":{"database":"d","collection":"c","pipeline":[{"$m":NaN}]}}', 422),
        (b'{"name":"a","source":{"database":"d","collection":"c","pipeline":[{"$m":1e999}]}}', 422),
        (b'{"name":"a","source":{"database":"d","collection":"c","pipeline":[{"$m":"\\ud800"}]}}', 422),
        (b'{"name":"a\\ud800","source":{"database":"d","collection":"c"}}', 422),
        (b'{"name":"a","source":{"database":"d","collection":"c"},"\\ud800":1}', 422),
        (b'{"name":"a","source":{"database":"d","collection":"c"},"sink":{"max_age_seconds":NaN}}', 422),
        (b'{"name":"a","source":{"database":"d","collection":"c","pipeline":[%s]}}' % DEEP, 422),
    ],
)  # fmt: skip
async def test_bytes_that_are_no_watcher(client: httpx.AsyncClient, content: bytes, status: int) -> None:
    problem(await client.post("/watchers", content=content, headers=JSON), status)


async def test_malformed_json_says_where(client: httpx.AsyncClient) -> None:
    answer = await client.post("/watchers", content=b'{"name": orders}', headers=JSON)
    assert problem(answer, 400)["detail"] == "the body is not JSON at character 9: Expecting value"


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain"])
async def test_body_of_another_type_says_what_to_send(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post("/watchers", content=json.dumps(ORDERS), headers={"Content-Type": content_type})
    assert "Content-Type: application/json" in problem(answer, 415)["detail"]


async def test_huge_body_is_refused_announced_or_not(client: httpx.AsyncClient) -> None:
    huge = json.dumps(changed("source.pipeline", [{"$match": {"a": "x" * MAX_BODY}}])).encode()
    problem(await client.post("/watchers", content=huge, headers=JSON), 413)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(huge), 65_536):
            yield huge[start : start + 65_536]

    problem(await client.post("/watchers", content=pieces(), headers=JSON), 413)
    problem(await client.put("/nowhere", content=huge, headers=JSON), 413)
    problem(await client.post("/watchers", content=b"{}", headers=JSON | {"Content-Length": "9" * 400}), 413)


async def test_pipeline_just_below_the_limit_is_taken(client: httpx.AsyncClient) -> None:
    body = changed("source.pipeline", [{"$match": {"a": "x" * (MAX_PIPELINE - 1000)}}])
    assert (await client.post("/watchers", json=body)).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404), ("GET", "/watchers/", 404), ("GET", "/watchers/a%2Fb", 404), ("GET",
        "/watchers/a/b", 404),
        ("GET", "/watchers/absent", 404), ("GET", "/watchers/a%20b", 404), ("GET", "/watchers/a%00b", 404),
        ("GET", "/watchers/%FF", 404), ("GET", "/watchers/absent/status", 404), ("GET", "/watchers/absent/health", 404),
        ("GET", "/watchers/absent/lag", 404), ("GET", "/watchers/absent/token", 404), ("PUT",
        "/watchers/absent/pause", 404),
        ("PUT", "/watchers/absent/resume", 404), ("POST", "/watchers/absent/restart", 404),
        ("DELETE", "/watchers/absent", 404), ("DELETE", "/watchers/absent/token", 404), ("DELETE", "/watchers", 405),
        ("PATCH", "/watchers/absent", 405), ("POST", "/healthz", 405), ("GET", "/watchers/absent/pause", 405),
    ],
)  # fmt: skip
async def test_wrong_places(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    problem(answer, status)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/watchers", "GET, HEAD, POST"), ("/watchers/orders", "DELETE, GET, HEAD, PUT"),
        ("/watchers/orders/token", "DELETE, GET, HEAD, PUT"), ("/watchers/orders/pause", "PUT"),
        ("/healthz", "GET, HEAD"),
    ],
)  # fmt: skip
async def test_a_refused_method_is_answered_with_all_that_are_possible(
    client: httpx.AsyncClient, path: str, allowed: str
) -> None:
    answer = await client.request("PATCH", path)
    assert answer.headers["allow"] == allowed
    assert allowed in problem(answer, 405)["detail"]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("extra", "checkpoint, name, on_history_lost, paused, sink, snapshot, source, start"),
        ("checkpoint.size", "capped, collection, database, size_in_bytes"),
        ("start.timestamp", "at"),
    ],
)
async def test_an_unknown_field_is_answered_with_the_known_ones(
    client: httpx.AsyncClient, path: str, known: str
) -> None:
    body = problem(await client.post("/watchers", json=changed(path, 1)), 422)
    assert {"field": path, "detail": f"is not a known field; known fields: {known}"} in body["errors"]


async def test_an_unknown_field_of_a_position_too(client: httpx.AsyncClient) -> None:
    body = problem(await client.put("/watchers/orders/token", json={"tokn": TOKEN}), 422)
    assert body["errors"][0] == {"field": "tokn", "detail": "is not a known field; known fields: at, timestamp, token"}


async def test_put_under_an_impossible_name_says_why(client: httpx.AsyncClient) -> None:
    answer = await client.put("/watchers/a%20b", json={"source": ORDERS["source"]})
    assert fields(answer) == ["name"]
    assert "white space" in problem(answer, 422)["detail"]


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Conflict("taken"), 409, "urn:changewire:conflict"),
        (Unavailable("MongoDB is away"), 503, "urn:changewire:unavailable"),
        (Invalid("not so"), 422, "urn:changewire:invalid"),
        (SourceUnavailable("mongodb://u:hunter2hunter2@h is away"), 503, "urn:changewire:unavailable"),
        (NotAuthorised("grant it"), 500, "urn:changewire:internal"),
        (RuntimeError(SECRET), 500, "urn:changewire:internal"),
    ],
)
async def test_failures_of_the_registry(
    client: httpx.AsyncClient, registry: FakeRegistry, failure: Exception, status: int, kind: str
) -> None:
    registry.failure = failure
    with capture_logs():
        answer = await client.post("/watchers", json=ORDERS)
    body = problem(answer, status)
    assert body["type"] == kind
    assert ("instance" in body) == (status == 500)
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_what_nobody_expected_is_logged_under_the_id_that_is_answered(
    client: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    registry.failure = RuntimeError("boom")
    with capture_logs() as logged:
        body = problem(await client.get("/watchers/orders"), 500)
    (entry,) = logged
    assert body["instance"] == f"urn:changewire:error:{entry['id']}"
    assert entry["exc_info"] is registry.failure
    assert "boom" not in json.dumps(body)
