"""Fifty watchers in one process: each holds a thread and a connection, and none may wait for another's."""

import asyncio

from tests.live import Live, until

MANY = 50
BUSY = 5_000


async def test_fifty_watchers_added_at_once_publish_beside_a_busy_one(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as service:
        names = [f"w{number}_{unique}" for number in range(MANY)]
        await asyncio.gather(
            *(
                service.call(
                    "POST",
                    "/watchers",
                    201,
                    json={"name": name, "source": {"database": service.database, "collection": name}},
                )
                for name in names
            )
        )
        for name in names:
            await service.reaches("RUNNING", name)
        busy, quiet = service.mongo[service.database][names[0]], names[1:]
        busy.insert_many([{"_id": number, "text": "x" * 1000} for number in range(BUSY)])
        for name in quiet:
            service.mongo[service.database][name].insert_one({"_id": name})
        for name in quiet:
            await service.seen(name, stream=name.upper())

        async def all_there() -> bool:
            state = (await service.streams.api(f"STREAM.INFO.{names[0].upper()}"))["state"]
            return bool(state["messages"] == BUSY)

        await until(all_there)
        assert {watcher["status"]["restarts"] for watcher in await service.get("/watchers")} == {0}
        assert set(await service.get("/lag")) == set(names)
