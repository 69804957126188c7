"""Input that cannot be: each gets a problem that says what is wrong, on its field, and changes nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.devservers.servers import MongoServer, NatsServer
from tests.live import Live

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOP: dict[str, Any] = {"database": "shop", "collection": "orders"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(mongo_server: MongoServer, nats_server: NatsServer) -> AsyncIterator[Live]:
    """One service for all of them, since none may change anything."""
    async with Live(mongo_server.uri, nats_server.url, "refusals") as live:
        live.mongo[live.database].create_collection("seen", viewOn="orders", pipeline=[])
        yield live


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _unchanged(service: Live) -> AsyncIterator[None]:
    before = await service.facts()
    yield
    assert await service.facts() == before
    assert await service.get("/watchers") == []


def fields(answer: httpx.Response) -> list[str]:
    return [each["field"] for each in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("field", "watcher"),
    [
        ("name", {"source": SHOP}),
        ("name", {"name": "", "source": SHOP}),
        ("name", {"name": 5, "source": SHOP}),
        ("name", {"name": None, "source": SHOP}),
        ("name", {"name": "a/b", "source": SHOP}),
        ("name", {"name": "a b", "source": SHOP}),
        ("name", {"name": "a\nb", "source": SHOP}),
        ("name", {"name": "a?b", "source": SHOP}),
        ("name", {"name": "a%2Fb", "source": SHOP}),
        ("name", {"name": "..", "source": SHOP}),
        ("name", {"name": "a\u0000", "source": SHOP}),
        ("name", {"name": "\u202e", "source": SHOP}),
        ("name", {"name": "n" * 129, "source": SHOP}),
        ("source", {"name": "w"}),
        ("source", {"name": "w", "source": None}),
        ("source", {"name": "w", "source": "shop.orders"}),
        ("source.database", {"name": "w", "source": {"collection": "orders"}}),
        ("source.database", {"name": "w", "source": SHOP | {"database": ""}}),
        ("source.database", {"name": "w", "source": SHOP | {"database": "a.b"}}),
        ("source.database", {"name": "w", "source": SHOP | {"database": "d" * 64}}),
        ("source.database", {"name": "w", "source": SHOP | {"database": "admin"}}),
        ("source.database", {"name": "w", "source": SHOP | {"database": "local"}}),
        ("source.database", {"name": "w", "source": SHOP | {"database": "config"}}),
        ("source.database", {"name": "w", "source": SHOP | {"database": "state_refusals"}}),
        ("source.collection", {"name": "w", "source": SHOP | {"collection": ""}}),
        ("source.collection", {"name": "w", "source": SHOP | {"collection": "system.views"}}),
        ("source.collection", {"name": "w", "source": SHOP | {"collection": "a$b"}}),
        ("source.collection", {"name": "w", "source": SHOP | {"collection": "c" * 300}}),
        ("source.colection", {"name": "w", "source": SHOP | {"colection": "x"}}),
        ("source.pipeline", {"name": "w", "source": SHOP | {"pipeline": {"$match": {}}}}),
        ("source.pipeline.0", {"name": "w", "source": SHOP | {"pipeline": ["$match"]}}),
        ("source.pipeline.0", {"name": "w", "source": SHOP | {"pipeline": [{}]}}),
        ("source.pipeline", {"name": "w", "source": SHOP | {"pipeline": [{"$nonsense": 1}]}}),
        ("source.pipeline", {"name": "w", "source": SHOP | {"pipeline": [{"$group": {"_id": None}}]}}),
        ("source.pipeline", {"name": "w", "source": SHOP | {"pipeline": [{"$out": "elsewhere"}]}}),
        ("source.pipeline", {"name": "w", "source": SHOP | {"pipeline": [{"$project": {"_id": 0}}]}}),
        ("source.pipeline", {"name": "w", "source": SHOP | {"pipeline": [{"$match": {"a": {"$oid": "x"}}}]}}),
        ("source.pipeline", {"name": "w", "source": SHOP | {"pipeline": [{"$match": {"a": 2**64}}]}}),
        ("source.full_document", {"name": "w", "source": SHOP | {"full_document": "always"}}),
        ("source.pre_and_post_images", {"name": "w", "source": SHOP | {"pre_and_post_images": "yes"}}),
        ("sink", {"name": "w", "source": SHOP, "sink": []}),
        ("sink.stream", {"name": "w", "source": SHOP, "sink": {"stream": "a.b"}}),
        ("sink.stream", {"name": "w", "source": SHOP, "sink": {"stream": "a b"}}),
        ("sink.stream", {"name": "w", "source": SHOP, "sink": {"stream": "a*"}}),
        ("sink.stream", {"name": "w", "source": SHOP, "sink": {"stream": "a>"}}),
        ("sink.stream", {"name": "w", "source": SHOP, "sink": {"stream": "a/b"}}),
        ("sink.stream", {"name": "w", "source": SHOP, "sink": {"stream": "s" * 256}}),
        ("sink.stream", {"name": "w", "source": SHOP, "sink": {"stream": 7}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": ""}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": "{strem}.{operation}"}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": "{stream.{operation}"}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": "{stream}..{operation}"}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": "{stream}.*"}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": "{stream}.>"}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": ".{operation}"}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": "a b.{operation}"}}),
        ("sink.subject", {"name": "w", "source": SHOP, "sink": {"subject": "$JS.API.{operation}"}}),
        ("sink.operations", {"name": "w", "source": SHOP, "sink": {"operations": []}}),
        ("sink.operations", {"name": "w", "source": SHOP, "sink": {"operations": ["insert", "upsert"]}}),
        ("sink.operations", {"name": "w", "source": SHOP, "sink": {"operations": "insert"}}),
        ("sink.operations.0", {"name": "w", "source": SHOP, "sink": {"operations": [1]}}),
        ("sink.oversize", {"name": "w", "source": SHOP, "sink": {"oversize": "shrink"}}),
        ("sink.replicas", {"name": "w", "source": SHOP, "sink": {"replicas": 0}}),
        ("sink.replicas", {"name": "w", "source": SHOP, "sink": {"replicas": "3"}}),
        ("sink.max_age_seconds", {"name": "w", "source": SHOP, "sink": {"max_age_seconds": -1}}),
        # What NATS would refuse when the stream is created.
        ("sink.replicas", {"name": "w", "source": SHOP, "sink": {"replicas": 3}}),
        ("sink.max_age_seconds", {"name": "w", "source": SHOP, "sink": {"max_age_seconds": 0.01}}),
        ("sink.duplicate_window_seconds", {"name": "w", "source": SHOP, "sink": {"duplicate_window_seconds": 0.01}}),
        ("sink.max_bytes", {"name": "w", "source": SHOP, "sink": {"max_bytes": 10**18}}),
        ("checkpoint.size_in_bytes", {"name": "w", "source": SHOP, "checkpoint": {"capped": True}}),
        ("checkpoint.size_in_bytes", {"name": "w", "source": SHOP, "checkpoint": {"size_in_bytes": -1}}),
        ("checkpoint.database", {"name": "w", "source": SHOP, "checkpoint": {"database": "admin"}}),
        ("checkpoint.database", {"name": "w", "source": SHOP, "checkpoint": {"database": "state_refusals"}}),
        ("checkpoint.collection", {"name": "w", "source": SHOP, "checkpoint": SHOP}),
        ("checkpoint.collection", {"name": "w", "source": SHOP, "checkpoint": {"collection": "system.x"}}),
        ("start.at", {"name": "w", "source": SHOP, "start": {"at": "now"}}),
        ("start.at", {"name": "w", "source": SHOP, "start": {"at": {"timestamp": "soon"}}}),
        ("start.at", {"name": "w", "source": SHOP, "start": {"at": {"token": "xyz"}}}),
        ("start", {"name": "w", "source": SHOP, "start": "latest"}),
        ("on_history_lost", {"name": "w", "source": SHOP, "on_history_lost": "shrug"}),
        ("paused", {"name": "w", "source": SHOP, "paused": "no"}),
        ("colour", {"name": "w", "source": SHOP, "colour": "red"}),
        ("body", []),
        ("body", "orders"),
        ("body", None),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
async def test_a_watcher_that_cannot_be_is_422_on_its_field(service: Live, field: str, watcher: Any) -> None:
    answer = await service.call("POST", "/watchers", 422, json=watcher)
    assert field in fields(answer), answer.text
    assert all(each["detail"] for each in answer.json()["errors"])


@pytest.mark.parametrize(
    "path", ["name", "source.database", "source.collection", "sink.stream", "sink.subject", "checkpoint.database",
             "checkpoint.collection"],
)  # fmt: skip
async def test_half_a_character_in_a_name_is_422_on_its_field(service: Live, path: str) -> None:
    watcher: dict[str, Any] = {"name": "w", "source": dict(SHOP), "sink": {}, "checkpoint": {}}
    *parents, last = path.split(".")
    (watcher[parents[0]] if parents else watcher)[last] = "a\ud800"
    json_type = {"Content-Type": "application/json"}
    for method, url in (("POST", "/watchers"), ("PUT", "/watchers/w"), ("POST", "/watchers?dry_run=true")):
        answer = await service.call(method, url, 422, content=json.dumps(watcher).encode(), headers=json_type)
        assert fields(answer) == [path]


async def test_what_nats_would_refuse_is_refused_by_a_dry_run_and_on_replacing_too(service: Live) -> None:
    watcher = {"name": "w", "source": SHOP, "sink": {"replicas": 3}}
    for method, path in (
        ("POST", "/watchers?dry_run=true"),
        ("PUT", "/watchers/w"),
        ("PUT", "/watchers/w?dry_run=true"),
    ):
        assert "replicas > 1 not supported" in await service.refused(422, method, path, json=watcher)
    possible = watcher | {"sink": {"max_bytes": 1_000_000, "max_age_seconds": 3600}}
    await service.call("POST", "/watchers?dry_run=true", 200, json=possible)


async def test_every_wrong_field_is_named_at_once(service: Live) -> None:
    answer = await service.call(
        "POST", "/watchers", 422, json={"name": "w", "source": SHOP | {"database": "a.b"}, "sink": {"stream": "a.b"}}
    )
    assert set(fields(answer)) == {"source.database", "sink.stream"}


async def test_a_view_is_422_and_called_a_view(service: Live) -> None:
    view = {"name": "w", "source": {"database": service.database, "collection": "seen"}}
    assert "view" in await service.refused(422, "POST", "/watchers", json=view)
    assert "view" in await service.refused(422, "PUT", "/watchers/w", json=view)


@pytest.mark.parametrize("body", [b"", b"{", b'{"name": "w",}', b"\xff\xfe", b'{"name": NaN}', b"[" * 10_000])
async def test_a_body_that_is_not_json_is_a_problem_that_says_so(service: Live, body: bytes) -> None:
    for method, path in (("POST", "/watchers"), ("PUT", "/watchers/w"), ("PUT", "/watchers/w/token")):
        answer = await service.call(method, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), answer.text


async def test_a_body_of_another_type_is_415(service: Live) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        await service.refused(415, "POST", "/watchers", content=b"name=w", headers={"Content-Type": content_type})


async def test_a_body_over_one_mebibyte_is_413_announced_or_not(service: Live) -> None:
    body = json.dumps({"name": "w", "source": SHOP, "colour": "x" * 1024 * 1024}).encode()
    headers = {"Content-Type": "application/json"}

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    await service.refused(413, "POST", "/watchers", content=body, headers=headers)
    await service.refused(413, "PUT", "/watchers/w", content=chunks(), headers=headers)
    just_below = json.dumps({"name": "w", "source": SHOP, "colour": "x" * (1024 * 1024 - 200)}).encode()
    await service.refused(422, "POST", "/watchers", content=just_below, headers=headers)


@pytest.mark.parametrize(
    "name", ["a/b", "a%2Fb", "%2F", "a%2fb", "..%2Fx", "a%00b", "a%20b", "n" * 129, "%25", "a%0Ab"]
)
async def test_a_name_that_no_watcher_can_have_is_refused_in_every_url(service: Live, name: str) -> None:
    for method, tail in (
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/status"), ("GET", "/health"), ("GET", "/lag"),
        ("GET", "/token"), ("PUT", "/token"), ("PUT", "/pause"), ("PUT", "/resume"), ("POST", "/restart"),
    ):  # fmt: skip
        body = {"source": SHOP} if tail == "" else {"at": "latest"}
        answer = await service.call(method, f"/watchers/{name}{tail}", json=body if method == "PUT" else None)
        assert answer.status_code in (404, 405, 422), f"{method} {name}{tail}: {answer.text}"


async def test_unknown_query_parameters_are_422(service: Live) -> None:
    watcher = {"name": "w", "source": SHOP}
    await service.refused(422, "POST", "/watchers?dryrun=true", json=watcher)
    await service.refused(422, "POST", "/watchers?dry_run=perhaps", json=watcher)
    await service.refused(422, "PUT", "/watchers/w?dryrun=true", json=watcher)


async def test_calls_that_do_not_exist_are_404_and_methods_405(service: Live) -> None:
    await service.refused(404, "GET", "/watcher")
    await service.refused(404, "POST", "/watchers/w/explode")
    await service.refused(405, "DELETE", "/watchers")
    await service.refused(405, "POST", "/healthz")
