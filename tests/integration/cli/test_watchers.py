"""`changewire watchers` against a real service: what it does is asked of the service, and what it says is read as
printed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.__main__ import main
from app.devservers.servers import free_port
from tests.integration.cli.command import SECRET, Command
from tests.live import Live
from tests.service import ROOT


def stored(directory: Path, name: str, *definitions: dict[str, Any]) -> str:
    path = directory / name
    path.write_text(json.dumps(definitions[0] if len(definitions) == 1 else definitions))
    return str(path)


async def test_a_watchers_life_from_a_file_to_its_removal(watchers: Command, live: Live, tmp_path: Path) -> None:
    assert await watchers("list") == "there are no watchers\n"
    file = stored(tmp_path, "orders.json", live.definition())
    assert "could be added" in await watchers("add", "-f", file, "--dry-run")
    assert await watchers.json("list") == []
    assert (await watchers("add", "-f", file)).startswith("orders: added, ")
    await live.reaches("RUNNING")
    live.insert(1, 2)
    await live.seen("1", "2")

    table = await watchers("list")
    assert all(word in table for word in ("orders", "RUNNING", f"{live.database}.{live.collection}", live.stream))
    assert await watchers("list", "--state", "paused") == "there are no watchers in the state PAUSED\n"
    shown = await watchers("show", "orders")
    assert all(word in shown for word in ("sink.subject", "{stream}.{operation}", "lag.seconds", "position.token"))
    shown = await watchers.json("show", "orders")
    assert shown["status"]["state"] == "RUNNING"
    assert shown["position"]["token"]

    said = await watchers("rewind", "orders", "--at", "earliest", code=1)
    assert said == (
        "changewire: orders is RUNNING, and only a paused or failed watcher can be moved; "
        "first run: changewire watchers pause orders\n"
    )
    assert await watchers("pause", "orders") == "orders: PAUSED\n"
    assert "orders is paused" in await watchers("restart", "orders", code=1)
    before = (await watchers.json("show", "orders"))["position"]
    # Behind the first of its changes, so that the second is published again.
    first = (await live.messages())[0].token
    moved = await watchers("rewind", "orders", "--token", first, "--yes")
    assert f"epoch {before['epoch'] + 1}" in moved
    assert "changewire watchers resume orders" in moved
    await watchers("resume", "orders")
    await live.reaches("RUNNING")
    await live.seen("1", "2", "2")
    assert (await watchers("restart", "orders")).startswith("orders: ")
    await live.reaches("RUNNING")

    await watchers("pause", "orders")
    position = await watchers.json("rewind", "orders", "--timestamp", "2020-01-01T00:00:00Z")
    assert position["cluster_time"].startswith("2020-01-01T00:00:00")
    assert "epoch" in await watchers("rewind", "orders", "--start")
    assert await watchers("remove", "orders", "--delete-checkpoint") == "orders: removed\n"
    assert live.checkpoint() == []
    assert await watchers("show", "orders", code=1) == "changewire: there is no watcher orders\n"
    assert "no watcher orders" in await watchers("remove", "orders", code=1)


async def test_a_database_is_watched_by_options_alone(watchers: Command, live: Live) -> None:
    options = ("shop", "--database", live.database, "--include", "orders_*", "--include", "users", "--exclude", "*_tmp")
    assert (await watchers("add", *options, "--stream", live.stream)).startswith("shop: added, ")
    await live.reaches("RUNNING", "shop")
    source = (await live.get("/watchers/shop"))["source"]
    assert (source["include"], source["exclude"]) == (["orders_*", "users"], ["*_tmp"])
    assert f"{live.database}.*" in await watchers("list")
    said = await watchers("add", "all", "--deployment", "--include", "shop", code=1)
    assert "source.include.0" in said


async def test_of_several_watchers_none_is_added_where_one_is_refused_and_each_is_named_with_its_fields(
    watchers: Command, live: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "watchers.yaml"
    path.write_text(f"""
name: one
source: {{database: {live.database}, collection: one}}
sink: {{stream: ONE_{live.unique.upper()}}}
start: {{at: {{timestamp: {"2026-01-01T00:00:00Z"}}}}}
paused: true
---
watchers:
  - {{name: two, source: {{database: {live.database}, collection: two}}, sink: {{stram: TWO, replicas: 9}}}}
  - {{name: three, source: {{database: local, collection: two}}}}
  - {{source: {{database: {live.database}, collection: two}}}}
---
- {{name: four, source: {{database: {live.database}, collection: four}}, sink: {{stream: FOUR_{live.unique.upper()}}}}}
""")
    capfd.readouterr()
    assert await asyncio.to_thread(main, ["watchers", "add", "-f", str(path)]) == 1
    said, errors = capfd.readouterr()
    assert said == ""
    lines = errors.splitlines()
    assert any(line.startswith("changewire: two: sink.stram: ") for line in lines), lines
    assert any(line.startswith("changewire: two: sink.replicas: ") for line in lines), lines
    assert any(line.startswith(f"changewire: watcher 4 of {path}: name: ") for line in lines), lines
    assert await watchers.json("list") == []


async def test_several_watchers_of_a_yaml_file_are_added_together(
    watchers: Command, live: Live, tmp_path: Path
) -> None:
    path = tmp_path / "watchers.yaml"
    one, two = (f"name: {name}\nsource: {{database: {live.database}, collection: {name}}}\n" for name in ("one", "two"))
    streams = [f"sink: {{stream: {name}_{live.unique.upper()}}}\n" for name in ("ONE", "TWO")]
    at = "start: {at: {timestamp: 2026-01-01T00:00:00Z}}\n"
    path.write_text(f"{one}{streams[0]}{at}paused: true\n---\n{two}{streams[1]}")
    assert await watchers("add", "-f", str(path), "--dry-run") == "one: could be added\ntwo: could be added\n"
    assert await watchers.json("list") == []
    said = (await watchers("add", "-f", str(path))).splitlines()
    assert said[0] == "one: added, PAUSED"
    assert said[1].startswith("two: added, ")
    assert {each["name"]: each["start"]["at"] for each in await watchers.json("list")} == {
        "one": {"timestamp": "2026-01-01T00:00:00Z"},
        "two": "latest",
    }
    assert (await watchers("add", "-f", str(path), code=1)).splitlines() == [
        "changewire: one: name: is taken: there is a watcher one already; replace it with PUT /watchers/one",
        "changewire: two: name: is taken: there is a watcher two already; replace it with PUT /watchers/two",
        "changewire: none of the 2 watchers was added",
    ]


async def test_the_failing_one_of_many_is_first_and_named_at_the_end(watchers: Command, live: Live) -> None:
    names = [f"w{number:02}" for number in range(12)]
    for name in names:
        sink = {"stream": f"{name}_{live.unique}".upper()}
        await live.add(name, source={"database": live.database, "collection": name}, sink=sink, paused=name == "w03")
    for name in names:
        await live.reaches("PAUSED" if name == "w03" else "RUNNING", name)
    # Its stream is another one now: what the first one held is gone, and that is for a person to decide.
    stream = f"W07_{live.unique.upper()}"
    live.mongo[live.database]["w07"].insert_one({"_id": 0})
    await live.seen("0", stream=stream)
    await live.streams.api(f"STREAM.DELETE.{stream}")
    await live.streams.create(stream, allow_atomic=True, allow_direct=True)
    live.mongo[live.database]["w07"].insert_one({"_id": 1})
    await live.reaches("FAILED", "w07")

    lines = (await watchers("list")).splitlines()
    rows = [line.split()[:2] for line in lines[1:13]]
    assert rows == [["w07", "FAILED"], ["w03", "PAUSED"]] + [
        [name, "RUNNING"] for name in names if name not in ("w03", "w07")
    ]
    assert lines[13] == "12 watchers: 1 FAILED, 1 PAUSED, 10 RUNNING"
    reason = (await live.get("/watchers/w07/status"))["reason"]
    assert "recreated" in reason
    assert lines[1].endswith(f"  {reason}")
    assert lines[14:] == [f"w07: FAILED: {reason}"]
    for chosen in (("--trouble",), ("--state", "failed")):
        table = (await watchers("list", *chosen)).splitlines()
        assert [line.split()[0] for line in table] == ["name", "w07", "1", "w07:"]
    both = await watchers.json("list", "--state", "failed", "--state", "PAUSED")
    assert [each["name"] for each in both] == ["w03", "w07"]
    assert await watchers("list", "--state", "fenced") == "there are no watchers in the state FENCED\n"


async def test_a_wrong_token_is_refused_in_the_services_words_and_never_shown(
    watchers: Command, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.add()
    monkeypatch.delenv("CHANGEWIRE_API_TOKEN")
    said = await watchers("pause", "orders", code=1)
    assert "CHANGEWIRE_API_TOKEN_FILE or --api-token" in said
    assert "wrong-token" not in await watchers("pause", "orders", "--api-token", "wrong-token", code=1)
    added = ("add", "more", "--database", "shop", "--api-token", "wrong-token")
    assert (await watchers(*added, code=1)).startswith("changewire: the token is not")  # no watcher is to blame
    await watchers("list")  # reading stays open
    (tmp_path / "token").write_text(f"{SECRET}\n")
    monkeypatch.setenv("CHANGEWIRE_API_TOKEN_FILE", str(tmp_path / "token"))
    assert await watchers("pause", "orders") == "orders: PAUSED\n"
    monkeypatch.setenv("CHANGEWIRE_API_TOKEN", SECRET)
    assert "are both set" in await watchers("list", code=2)
    monkeypatch.delenv("CHANGEWIRE_API_TOKEN")
    monkeypatch.delenv("CHANGEWIRE_API_TOKEN_FILE")
    monkeypatch.delenv("CHANGEWIRE_URL")
    (tmp_path / ".env").write_text(f"CHANGEWIRE_URL={live.url}\nCHANGEWIRE_API_TOKEN={SECRET}\n")
    assert "orders: " in await watchers("resume", "orders")
    assert "header" in await watchers("list", "--api-token", f"{SECRET}\n{SECRET}", code=2)


async def test_on_a_terminal_it_asks_before_it_moves_or_removes(watchers: Command, live: Live) -> None:
    await live.add(paused=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def answer(word: str, *arguments: str) -> tuple[int, str]:
        keyboard, terminal = pty.openpty()
        os.write(keyboard, f"{word}\n".encode())
        try:
            done = subprocess.run(
                [sys.executable, "-m", "app", "watchers", *arguments],
                env=environment, stdin=terminal, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        finally:
            os.close(keyboard)
            os.close(terminal)
        return done.returncode, done.stdout + done.stderr

    code, said = await asyncio.to_thread(answer, "n", "remove", "orders")
    assert code == 1
    assert "Remove the watcher orders" in said
    assert said.endswith("changewire: cancelled\n")
    assert await live.get("/watchers/orders")
    options = ("--database", live.database, "--collection", live.collection, "--stream", f"{live.stream}_2")
    code, said = await asyncio.to_thread(answer, "n", "replace", "orders", *options)
    assert code == 1
    assert f"orders: would be replaced\n  sink.stream: {live.stream} → {live.stream}_2\n" in said
    assert said.endswith("changewire: cancelled\n")
    assert (await live.get("/watchers/orders"))["sink"]["stream"] == live.stream
    code, said = await asyncio.to_thread(answer, "y", "rewind", "orders", "--at", "latest")
    assert code == 0, said
    assert "published again" in said
    assert "epoch 1" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lst",), "no such command 'lst' (did you mean 'list'?)"),
        (("list", "--state", "broken"), "'broken' is not one of"),
        (("apply",), "give a --file"),
        (("apply", "-f", "twice.yaml"), "a is there twice: as watcher 1 of twice.yaml and as watcher 2 of twice.yaml"),
        (("apply", "-f", "."), "does not hold watchers"),
        (("replace", "orders"), "either --database or --deployment"),
        (("dead-letters", "orders", "7"), "'7' is not one of"),
        (("dead-letters", "orders", "list", "7"), "write: changewire watchers dead-letters orders show 7"),
        (("dead-letters", "orders", "show"), "give one SEQUENCE"),
        (("dead-letters", "orders", "replay"), "give either each SEQUENCE to replay, or --all"),
        (("dead-letters", "orders", "discard", "7", "--all"), "give either each SEQUENCE to discard, or --all"),
        (("dead-letters", "orders", "discard", "--all"), "needs --yes"),
        (("rewind", "orders"), "exactly one of"),
        (("rewind", "orders", "--at", "latest", "--start"), "exactly one of"),
        (("rewind", "orders", "--at", "noon"), "'noon' is not one of"),
        (("add",), "give either a NAME or a --file"),
        (("add", "orders", "-f", "x.json"), "give either a NAME or a --file"),
        (("add", "orders"), "either --database or --deployment"),
        (("add", "orders", "--deployment", "--database", "shop"), "either --database or --deployment"),
        (("add", "-f", "x.json", "--database", "shop"), "give no other option"),
        (("add", "-f", "nowhere.json"), "nowhere.json cannot be read"),
        (("add", "-f", "broken.yaml"), "does not hold watchers"),
        (("add", "-f", "scalar.yaml"), "a watcher is an object"),
        (("add", "-f", "number.yaml"), "`watchers` is a list, not 3"),
        (("add", "-f", "empty.yaml"), "holds no watcher"),
        (("list", "--url", "ftp://x"), "the URL must be"),
        (("list", "--url", f"http://me:{SECRET}@x"), "the URL must be"),
        (("tail", "orders", "--count", "0"), "invalid value for '--count'"),
    ],
)
async def test_misuse_is_one_line_and_two(
    elsewhere: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    (elsewhere / "number.yaml").write_text("watchers: 3")
    (elsewhere / "broken.yaml").write_text("a: [")
    (elsewhere / "scalar.yaml").write_text("just text")
    (elsewhere / "empty.yaml").write_text("watchers: []")
    (elsewhere / "twice.yaml").write_text("[{name: a, source: {}}, {name: a, source: {}}]")
    told = await Command("watchers", capfd)(*arguments, code=2)
    assert said in told
    assert told.startswith("changewire")
    assert len(told.splitlines()) == 1, told


async def test_a_service_that_is_not_there_is_said_with_where_it_was_looked_for(
    elsewhere: Path, capfd: pytest.CaptureFixture[str], nats_url: str
) -> None:
    watchers, port = Command("watchers", capfd), free_port()
    said = await watchers("list", "--url", f"127.0.0.1:{port}", code=1)
    assert (
        f"http://127.0.0.1:{port} cannot be reached: connection refused; set its address with CHANGEWIRE_URL or --url"
        in said
    )
    said = await watchers("list", "--url", nats_url.replace("nats:", "http:"), code=1)
    assert "is not Changewire (it does not speak HTTP)" in said


async def test_tail_prints_what_is_on_the_stream_and_what_arrives(
    watchers: Command, live: Live, tmp_path: Path
) -> None:
    await watchers("add", "-f", stored(tmp_path, "orders.json", live.definition()))
    await live.reaches("RUNNING")
    live.insert(1, 2)
    await live.seen("1", "2")
    following = asyncio.create_task(watchers("tail", "orders", "-n", "3"))
    live.insert(3)
    lines = (await following).splitlines()
    assert [line.split()[0] for line in lines] == ["#1", "#2", "#3"]
    assert all(f" {live.stream}.insert " in line and '"operationType": "insert"' in line for line in lines)
    assert "no watcher" in await watchers("tail", "absent", code=1)


# What a real service does not send whenever a test wants it.


@pytest.fixture
def sending() -> Iterator[Callable[[bytes, str], str]]:
    """`sending(body, content_type)` serves these bytes on every path and returns the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(body: bytes, content_type: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(302 if content_type == "moved" else 200)
                self.send_header("Location", "http://elsewhere.example/")
                self.send_header("Content-Type", content_type)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), name="events", daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def event(sequence: int, **more: Any) -> bytes:
    data = {
        "sequence": sequence, "time": "2026-01-01T00:00:00Z", "subject": "ORDERS.insert", "id": "82AB",
        "headers": {"Nats-Msg-Id": "82AB"}, "body": {"operationType": "insert", "n": sequence}, **more,
    }  # fmt: skip
    return f"event: message\r\nid: {sequence}\r\ndata: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode()


async def test_tail_prints_messages_and_passes_over_all_else(
    elsewhere: Path, capfd: pytest.CaptureFixture[str], sending: Callable[[bytes, str], str]
) -> None:
    watchers = Command("watchers", capfd)
    body = (
        b": hello\n\nevent: position\ndata: 7\n\n"
        + event(1)
        + b"retry: 100\n\n"
        + event(2, body="\u009b2J")
        + b'data: {"sequence":\ndata: 3}\n\n'
        + b"data: half"
    )
    url = sending(body, "text/event-stream; charset=utf-8")
    assert await watchers("tail", "orders", "-n", "2", "--url", url) == (
        '#1 2026-01-01T00:00:00Z ORDERS.insert {"operationType": "insert", "n": 1}\n'
        "#2 2026-01-01T00:00:00Z ORDERS.insert \\u009b2J\n"
    )
    lines = (await watchers("tail", "orders", "-n", "2", "--json", "--url", url)).splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2]
    assert "ended the messages of orders" in await watchers("tail", "orders", "--url", url, code=1)


async def test_tail_says_what_it_cannot_show(
    elsewhere: Path, capfd: pytest.CaptureFixture[str], sending: Callable[[bytes, str], str]
) -> None:
    body = b'event: trouble\ndata: {"reason": "gone\\u009b"}\n\nevent: skipped\ndata: {"after": 1, "before": 9}\n\n'
    said = await Command("watchers", capfd)("tail", "orders", "--url", sending(body, "text/event-stream"), code=1)
    assert said.splitlines()[:2] == [
        "-- the service cannot read the stream: gone\\u009b",
        "-- messages between #1 and #9 are left out: there are too many",
    ]


async def test_tail_prints_each_message_as_it_comes_and_says_when_the_service_breaks_off(
    elsewhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the service sends them: in chunks, on a connection that stays open."""
    chunk, goes_on = event(7), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            goes_on.wait(60)
            self.close_connection = True  # without the last chunk

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    watchers = Command("watchers", capfd)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), name="chunks", daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert (await watchers("tail", "orders", "-n", "1", "--url", url)).startswith("#7 ")
        finally:
            goes_on.set()
        assert "ended the messages of orders" in await watchers("tail", "orders", "--url", url, code=1)
        server.shutdown()


async def test_an_address_that_was_copied_from_a_call_is_put_right(watchers: Command, live: Live) -> None:
    for call in ("watchers", "docs"):
        said = await watchers("list", "--url", f"{live.url}/{call}", code=1)
        assert f"{live.url}/{call} is not where the service begins; try {live.url} (CHANGEWIRE_URL, --url)" in said
    assert "is not where" not in await watchers("show", "nobody", "--url", live.url, code=1)


async def test_somebody_elses_answer_is_not_taken_for_the_services(
    elsewhere: Path, capfd: pytest.CaptureFixture[str], sending: Callable[[bytes, str], str]
) -> None:
    watchers = Command("watchers", capfd)
    page = sending(b"<p>hello", "text/html")
    assert "is not Changewire (200, text/html)" in await watchers("list", "--url", page, code=1)
    assert "is not Changewire (200, text/html)" in await watchers("tail", "orders", "--url", page, code=1)
    moved = sending(b"", "moved")
    assert "redirects to http://elsewhere.example/" in await watchers("list", "--url", moved, code=1)
