"""A stream that was restored or moved has another creation time and the same messages: its watcher goes on."""

import base64
import json
from typing import Any

import pytest

from tests.live import Live


async def copied(live: Live, *, without: int = 0) -> None:
    """Put the stream in its own place again, message by message, as a backup brings it back."""
    config = await live.streams.config(live.stream)
    assert config is not None
    held = []
    info = await live.streams.api(f"STREAM.INFO.{live.stream}")
    for sequence in range(1, info["state"]["last_seq"] + 1 - without):
        held.append((await live.streams.api(f"STREAM.MSG.GET.{live.stream}", {"seq": sequence}))["message"])
    await live.streams.api(f"STREAM.DELETE.{live.stream}")
    await live.streams.create(
        live.stream, **{name: config[name] for name in ("subjects", "allow_atomic", "allow_direct")}
    )
    for message in held:
        _, *lines = base64.b64decode(message["hdrs"]).decode().strip().split("\r\n")
        headers = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        kept = {name: value for name, value in headers.items() if not name.startswith(("Nats-Expected", "Nats-Batch"))}
        body = base64.b64decode(message["data"])
        answer = await live.streams.client.request(message["subject"], body, headers=kept, timeout=10)
        assert json.loads(answer.data)["seq"] == message["seq"]


@pytest.mark.parametrize("service", ["restarted", "stays up"])
async def test_a_restored_stream_is_gone_on_with(mongo_uri: str, nats_url: str, unique: str, service: str) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add()
        live.insert(1, 2, 3)
        await live.seen("1", "2", "3")
        if service == "restarted":
            await live.stop()
        await copied(live)
        if service == "restarted":
            await live.start()
        live.insert(4)
        await live.seen("1", "2", "3", "4")
        if service == "restarted":  # else nothing had to be looked at
            assert '"stream_moved"' in live.log.getvalue()


async def test_a_stream_that_was_restored_without_its_last_messages_is_not_taken_for_the_same(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add()
        live.insert(1, 2, 3)
        await live.seen("1", "2", "3")
        await live.stop()
        await copied(live, without=1)
        await live.start()
        failed: dict[str, Any] = await live.reaches("FAILED")
        assert "rewind the watcher" in failed["status"]["reason"]


async def test_a_stream_that_holds_others_messages_in_their_place_is_not_taken_for_the_same(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add()
        live.insert(1, 2)
        await live.seen("1", "2")
        await live.stop()
        await live.streams.api(f"STREAM.DELETE.{live.stream}")
        await live.streams.create(live.stream)
        for number in range(4):
            await live.streams.client.request(f"{live.stream}.insert", str(number).encode(), timeout=10)
        await live.start()
        await live.reaches("FAILED")
