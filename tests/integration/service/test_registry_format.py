"""An instance that meets the registry of a later version serves reads, runs nothing, and says why."""

from collections.abc import AsyncIterator

import pytest_asyncio

from app.domain.instances import FORMAT
from tests.live import Live, until


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_INSTANCE="a", CHANGEWIRE_RECONCILE_SECONDS="0.5") as live:
        yield live


def set_format(live: Live, value: int) -> None:
    live.mongo[live.state_db]["registry"].update_one({"_id": "format"}, {"$set": {"value": value}})


async def test_the_registry_of_a_later_version_is_read_and_left_alone(live: Live) -> None:
    assert live.mongo[live.state_db]["registry"].find_one({"_id": "format"}) == {"_id": "format", "value": FORMAT}
    await live.add()
    live.insert(1)
    await live.seen("1")
    set_format(live, FORMAT + 1)

    async def is_not_ready() -> bool:
        return not await live.is_ready()

    await until(is_not_ready)
    why = f"the registry has format {FORMAT + 1}, and this version of Changewire knows formats up to {FORMAT}"
    ready = (await live.call("GET", "/readyz", 503)).json()
    health = (await live.call("GET", "/healthz", 503)).json()
    assert why in ready["reason"]
    assert why in health["components"]["watchers"]["reason"]
    assert "registry_of_a_later_version" in live.log.getvalue()
    for method, path in (("POST", "/watchers"), ("PUT", "/watchers/more"), ("PUT", "/watchers/orders/pause")):
        body = {} if path.endswith("pause") else {"json": live.definition("more")}
        assert why in await live.refused(503, method, path, **body)
    assert why in await live.refused(503, "PUT", "/instances/a/drain?force=true")

    async def is_unfit() -> bool:
        (mine,) = await live.get("/instances")
        return mine["state"] == "unfit" and why in mine["reason"]

    await until(is_unfit)
    before = list(live.mongo[live.state_db]["registry"].find()), live.stored()
    live.insert(2)
    live.waits_until_ready = False
    await live.restart()  # so it is from the start
    assert (await live.call("GET", "/watchers/orders", 200)).json()["source"]["collection"] == live.collection
    live.insert(3)
    await live.seen("1")
    assert (list(live.mongo[live.state_db]["registry"].find()), live.stored()) == before

    set_format(live, FORMAT)
    await until(live.is_ready)
    await live.seen("1", "2", "3")
