"""Who may do what, over real HTTP: roles, the audit log, revisions, and clients that are many or mean no good."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.api import openapi_document
from app.api.middleware.limits import MAX_BODY
from app.api.problems import MAX_ERRORS
from app.api.schemas.base import MAX_ITEMS
from app.cli.http_protocol import MAX_HEAD
from app.devservers.servers import MongoServer, NatsServer
from tests.live import Live, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

READ, WRITE = "read-0123456789abcdef", "write-0123456789abcdef"
CLIENTS = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(mongo_server: MongoServer, nats_server: NatsServer) -> AsyncIterator[Live]:
    """A service with tokens and closed reads; each test has a watcher name of its own."""
    settings: dict[str, Any] = {
        "CHANGEWIRE_API_TOKENS": f"viewer:read:{READ},deploy:write:{WRITE}",
        "CHANGEWIRE_READS_NEED_TOKEN": "true",
    }
    async with Live(mongo_server.uri, nats_server.url, "security", **settings) as live:
        yield live


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def trail(live: Live, name: str) -> list[dict[str, Any]]:
    """The audit lines about a watcher, as they are in the log."""
    lines = [json.loads(line) for line in live.log.getvalue().splitlines()]
    return [one for one in lines if one["event"] == "audit" and (one["watcher"] == name or f"/{name}" in one["path"])]


def apart(name: str) -> dict[str, Any]:
    """Parts of a watcher that no other test has."""
    return {"source": {"collection": f"{name}_security"}, "checkpoint": {"collection": f"{name}_security"}}


async def test_roles_and_closed_reads_over_http(service: Live) -> None:
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as stranger:
        for path in ("/watchers", "/lag", "/metrics", "/watchers/absent/dead-letters"):
            answer = await stranger.get(path)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="changewire"')
            assert (await stranger.get(path, headers=bearer(READ))).status_code in (200, 404)
        for path in ("/livez", "/readyz", "/healthz", "/openapi.json", "/docs"):
            assert (await stranger.get(path)).status_code == 200
        refused = await stranger.post("/watchers", json=service.definition(), headers=bearer(READ))
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:changewire:forbidden")
    assert service.stored() == []


async def test_the_audit_trail_tells_each_change_and_its_differences(service: Live) -> None:
    name = "audited"
    await service.add(name, **apart(name))
    await service.put(name, sink={"subject": "{stream}.x.{operation}", "stream": "AUDITED"}, **apart(name))
    await service.pause(name)
    await service.call("PUT", f"/watchers/{name}/token", 200, json={"at": "latest"})
    await service.call("DELETE", f"/watchers/{name}/token", 200)
    await service.call("POST", f"/watchers/{name}/restart", 409)
    await service.resume(name)
    await service.call("POST", f"/watchers/{name}/dead-letters/1/replay", 404)
    await service.call("PUT", f"/watchers/{name}/pause", 403, headers=bearer(READ))
    await service.call("PUT", f"/watchers/{name}/pause", 401, headers=bearer("guess"))
    await service.call("DELETE", f"/watchers/{name}?checkpoint=delete", 204)
    lines = trail(service, name)
    assert [(one["who"], one["action"], one["status"]) for one in lines] == [
        ("deploy", "add_watcher", 201),
        ("deploy", "put_watcher", 200),
        ("deploy", "pause_watcher", 202),
        ("deploy", "set_token", 200),
        ("deploy", "reset_token", 200),
        ("deploy", "restart_watcher", 409),
        ("deploy", "resume_watcher", 202),
        ("deploy", "replay_dead_letter", 404),
        ("viewer", None, 403),
        ("anonymous", None, 401),
        ("deploy", "remove_watcher", 204),
    ]
    assert {one["remote"] for one in lines} == {"127.0.0.1"}
    added, replaced, paused, moved, *_, removed = lines
    assert (added["before"], added["after"]["source.collection"]) == (None, f"{name}_security")
    assert set(replaced["after"]) == {"sink.subject", "sink.stream", "revision"}
    assert replaced["before"]["sink.stream"] == f"{name}_security".upper()
    assert (paused["before"]["paused"], paused["after"]["paused"]) == (False, True)
    assert moved["token"].startswith("82")
    assert (removed["after"], removed["checkpoint"]) == (None, "deleted")
    assert WRITE not in service.log.getvalue()
    assert READ not in service.log.getvalue()


async def test_a_change_with_an_old_revision_is_412_and_changes_nothing(service: Live) -> None:
    name = "tagged"
    added = await service.call("POST", "/watchers", 201, json=service.definition(name, **apart(name)))
    tag = added.headers["ETag"]
    await service.reaches("RUNNING", name)
    assert (await service.call("GET", f"/watchers/{name}", 200)).headers["ETag"] == tag
    paused = await service.call("PUT", f"/watchers/{name}/pause", 202, headers={"If-Match": tag})
    assert paused.headers["ETag"] != tag
    before = service.stored()
    for method, path in (("PUT", ""), ("DELETE", ""), ("PUT", "/resume"), ("POST", "/restart"), ("DELETE", "/token")):
        body = {"json": service.definition(name, **apart(name))} if (method, path) == ("PUT", "") else {}
        said = await service.refused(412, method, f"/watchers/{name}{path}", headers={"If-Match": tag}, **body)
        assert f"revision {paused.headers['ETag'][1:-1]}" in said
    assert service.stored() == before
    await service.refused(
        412, "PUT", "/watchers/absent", headers={"If-Match": "*"}, json=service.definition("absent", **apart(name))
    )
    await service.call("DELETE", f"/watchers/{name}", 204, headers={"If-Match": f'"0", {paused.headers["ETag"]}'})


async def test_twenty_clients_that_change_one_watcher_leave_one_state(service: Live) -> None:
    name = "wanted"
    body = service.definition(name, **apart(name))
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/watchers", body), ("PUT", f"/watchers/{name}/pause", None),
        ("PUT", f"/watchers/{name}/resume", None), ("DELETE", f"/watchers/{name}", None),
        ("PUT", f"/watchers/{name}", body), ("POST", f"/watchers/{name}/restart", None),
    ]  # fmt: skip
    counted: Counter[tuple[str, int]] = Counter()

    async def client(number: int) -> None:
        for turn in range(6):
            method, path, sent = calls[(number + turn * (1 + number % 5)) % len(calls)]
            answer = await service.call(method, path, **({} if sent is None else {"json": sent}))
            assert answer.status_code in (200, 201, 202, 204, 404, 409), f"{method} {path}: {answer.text}"
            counted[f"{method} {path}", answer.status_code] += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    stored = service.mongo[service.state_db]["watchers"].find_one({"_id": name})
    created = counted["POST /watchers", 201] + counted[f"PUT /watchers/{name}", 201]
    removed = counted[f"DELETE /watchers/{name}", 204]
    assert created - removed == (stored is not None), counted
    lines = [one for one in trail(service, name) if one["status"] < 300]
    assert Counter(one["action"] for one in lines)["remove_watcher"] == removed
    # Each change begins where the one before it ended: none was lost, none was made twice.
    there: dict[str, Any] | None = None
    for one in sorted((one for one in lines if "before" in one), key=_revision):
        assert (one["before"] is None) == (there is None), one
        if one["before"] is not None and there is not None:
            assert all(there[path] == value for path, value in one["before"].items()), one
        there = None if one["after"] is None else (there or {}) | one["after"]
    assert (there is None) == (stored is None)
    if stored is None:
        await service.call("GET", f"/watchers/{name}", 404)
        await service.call("POST", "/watchers", 201, json=body)
    else:
        assert there is not None
        assert (there["revision"], there["paused"]) == (stored["revision"], stored["desired"] == "PAUSED")
        await service.call("PUT", f"/watchers/{name}/resume", 202)
    await service.reaches("RUNNING", name)
    service.mongo[service.database][f"{name}_security"].insert_one({"_id": "after"})
    await until(lambda: _holds(service, f"{name}_security".upper(), "insert after"))
    await service.call("DELETE", f"/watchers/{name}", 204)


def _revision(line: dict[str, Any]) -> float:
    """In which order the changes were made: the revision of each; a removal comes right behind what it removed."""
    return float(line["before"]["revision"]) + 0.5 if line["after"] is None else float(line["after"]["revision"])


async def _holds(live: Live, stream: str, short: str) -> bool:
    return [one.short for one in await live.messages(stream)].count(short) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-Many: 0123456789\r\n" * (MAX_HEAD // 16),
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (MAX_HEAD * 2),
        b"GET /" + b"x" * (MAX_HEAD * 2),
    ],
    ids=["many headers", "one that does not end", "an address that does not end"],
)
async def test_a_head_that_does_not_end_is_431_and_the_connection_ends(service: Live, head: bytes) -> None:
    answer = await _raw(service, head)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 431
    await service.call("GET", "/livez", 200)


async def test_what_follows_a_body_in_chunks_does_not_fill_the_memory_either(service: Live) -> None:
    begin = b"PUT /watchers/w HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    answer = await _raw(service, begin % WRITE.encode() + chunks, *[b"X-Trailer: " + b"x" * 60_000] * 40)
    assert b"431" in answer or answer == b""
    # Chunks of a body are bounded by what they add up to.
    chunk = b"%x\r\n%s\r\n" % (64_000, b" " * 64_000)
    answer = await _raw(service, begin % WRITE.encode() + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 20)
    assert answer.startswith(b"HTTP/1.1 413 ")
    await service.call("GET", "/livez", 200)


@pytest.mark.parametrize("item", [b"[]", b"1", b'"x"', b'{"a":{}}'])
async def test_a_body_of_wrong_items_is_refused_shortly_and_the_service_goes_on(service: Live, item: bytes) -> None:
    items = b",".join([item] * ((MAX_BODY - 200) // (len(item) + 1)))
    body = b'{"name":"w","source":{"database":"d","collection":"c","pipeline":[%b]}}' % items
    headers = {"Content-Type": "application/json"}
    answer = await service.call("POST", "/watchers", 413, content=body, headers=headers)
    assert len(answer.content) < 1000
    few = await service.call("POST", "/watchers", 422, json=service.definition(source={"pipeline": [1] * MAX_ITEMS}))
    assert (len(few.json()["errors"]), len(few.content) < 20_000) == (MAX_ERRORS, True)


ODD = [
    "x" * 300, "x" * 5000, "/".join(["x"] * 2000), "%00", "a%00b", "%2F", "a%2Fb", "%2e%2e", "..", ".", "%ED%A0%80",
    "%FF%FE", "%", "%zz", "%F0%9F%90%8B", "%E2%80%AE", "%0D%0AX:%20y", "%1B%5B31m", "%25", "*", "a;b", "a?b",
    "9" * 5000, "-1", "1e999", "NaN", "%C3%A4" * 200, "\xe4", "\xff\xfe", "%5C..%5C", "{name}", "%7Bname%7D",
]  # fmt: skip
"""What somebody may write into a path or a query, as it is on the wire (Latin-1 stands for bytes)."""


async def test_nothing_in_a_path_or_query_is_an_error_of_the_service(service: Live) -> None:
    targets = [("GET", f"/assets/{odd}{end}") for odd in ODD for end in ("", ".js")]
    for path, methods in openapi_document()["paths"].items():
        for method, call in methods.items():
            queries = [each["name"] for each in call.get("parameters", ()) if each["in"] == "query"]
            for odd in ODD:
                if "{" in path:
                    targets.append((method.upper(), path.format(name=odd, sequence=odd, instance=odd)))
                    targets.append((method.upper(), path.format(name="absent", sequence=odd, instance=odd)))
                targets += [
                    (method.upper(), f"{path.format(name='absent', sequence=1, instance='absent')}?{name}={odd}")
                    for name in queries
                ]
    targets += [("GET", f"/{odd}") for odd in ODD] + [("GET", f"/watchers?{odd}={odd}") for odd in ODD]
    seen = set[int]()
    for method, target in dict.fromkeys(targets):
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITE}\r\nConnection: close\r\n"
        body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        answer = await _raw(service, (head + body).encode("latin-1"))
        status = int(answer.split(b" ", 2)[1])
        assert status < 500 or (status == 503 and b"health" in target.encode("latin-1")), (method, target, answer)
        seen.add(status)
    assert {400, 404, 422} <= seen
    assert "request_failed" not in service.log.getvalue()
    assert "Traceback" not in service.log.getvalue()


async def _raw(live: Live, *parts: bytes) -> bytes:
    """Send these until the server has had enough, and return what it says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(live.url).port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(2000), 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()
