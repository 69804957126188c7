"""A hole in a window, on real servers: the service does not go on behind it, however often it is started."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from app.domain.events import Change
from app.jetstream import frames
from tests.conftest import MakeNats
from tests.live import Live

USERS = """
authorization { users: [
  {user: admin, password: secret},
  {user: limited, password: secret, permissions: {publish: {deny: ["$JS.API.STREAM.UPDATE.>"]}}}
] }
"""


async def test_a_hole_fails_the_watcher_until_its_position_is_moved(
    mongo_uri: str, make_nats: MakeNats, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await make_nats(config=USERS)
    admin = server.url.replace("://", "://admin:secret@")
    limited = server.url.replace("://", "://limited:secret@")
    async with Live(mongo_uri, limited, unique, look_at=(mongo_uri, admin)) as live:
        await live.streams.create(live.stream)
        watcher = await live.add()
        assert watcher["status"]["publish_mode"] == "window"
        live.insert(1)
        [first] = await live.seen("1")
        real = frames.window

        def disturbed(changes: Sequence[Change], subjects: Any, reply: str, stream: str, base: int) -> Iterable[bytes]:
            monkeypatch.setattr(frames, "window", real)
            body = b'{"operationType": "foreign"}'
            yield f"PUB {live.stream}.insert {len(body)}\r\n".encode() + body + b"\r\n"
            yield from real(changes, subjects, reply, stream, base)

        monkeypatch.setattr(frames, "window", disturbed)
        live.orders.insert_many([{"_id": key} for key in range(2, 7)])
        await live.reaches("FAILED")
        there = [message.short for message in await live.messages()]
        assert there == ["insert 1", "insert 2", "foreign None", "insert 4", "insert 5", "insert 6"]

        await live.restart()
        live.insert(7)
        failed = await live.reaches("FAILED")
        assert "took the place of one of them" in failed["status"]["reason"]
        await live.call("POST", "/watchers/orders/restart", 202)
        await live.reaches("FAILED")
        assert [message.short for message in await live.messages()] == there

        await live.call("PUT", "/watchers/orders/token", 200, json={"token": first.token})
        await live.resume()
        await live.seen(*there, "2", "3", "4", "5", "6", "7")
