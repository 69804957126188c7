"""A connection string that allows fewer connections than the watchers need: they run all the same, and it is said."""

import asyncio
import json

import pytest

from tests.live import Live

WATCHERS = [f"w{number}" for number in range(5)]


@pytest.mark.parametrize("pool", ["maxPoolSize=2", "maxPoolSize=1&waitQueueTimeoutMS=100"])
async def test_a_pool_smaller_than_the_change_streams_starves_neither_watchers_nor_the_probe(
    mongo_uri: str, nats_url: str, unique: str, pool: str
) -> None:
    small = f"{mongo_uri}&{pool}"
    async with Live(small, nats_url, unique, look_at=(mongo_uri, nats_url), CHANGEWIRE_SHARED_STREAMS="false") as live:
        asked: list[int] = []

        async def ask() -> None:
            while True:
                asked.append((await live.call("GET", "/healthz")).status_code)
                await asyncio.sleep(0.05)

        asking = asyncio.create_task(ask(), name="ask")
        for name in WATCHERS:
            stream = f"{live.stream}_{name}".upper()
            source = {"database": live.database, "collection": name}
            await live.call("POST", "/watchers", 201, json={"name": name, "source": source, "sink": {"stream": stream}})
        for name in WATCHERS:
            assert (await live.reaches("RUNNING", name))["status"]["reads"] == "own"
        for number in range(10):
            for name in WATCHERS:
                live.mongo[live.database][name].insert_one({"_id": number})
            for name in WATCHERS:
                await live.seen(*range(number + 1), stream=f"{live.stream}_{name}".upper())
        asking.cancel()
        assert set(asked) == {200}
        assert [(await live.reaches("RUNNING", name))["status"]["restarts"] for name in WATCHERS] == [0] * len(WATCHERS)
        lines = [json.loads(line) for line in live.log.getvalue().splitlines()]
        said = [line["problem"] for line in lines if line["event"] == "connections_short"]
        assert said, "nothing was said"
        assert len(said) <= 3, "said again and again"
        assert pool.partition("&")[0] in said[0]
        assert not [line for line in lines if line.get("component") and line["level"] != "info"], "no outage"
