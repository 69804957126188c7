"""Two and three instances of one deployment: each watcher has one owner, and moves to another where it has to.

What counts is what arrives: each change once and in order, whatever becomes of an instance. Who owns what is read from
the state database, where all of them look.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.faults.proxy import Link, Proxy
from tests.service import Service, Stage, until
from tests.service.many import Many

WATCHERS = 8


async def started(stage: Stage, *names: str) -> list[Service]:
    """Instances of these names, all of them ready."""

    async def start(name: str) -> Service:
        service = await stage.service(name).start()
        await until(lambda: stage.takes(service), f"{name} is ready")
        return service

    return list(await asyncio.gather(*(start(name) for name in names)))


async def test_a_watcher_has_one_owner_and_no_other_instance_opens_it(stage: Stage) -> None:
    services = await started(stage, "one", "other")
    await stage.add(services[0], running=False)
    await stage.owner()
    async with stage.load():
        await stage.until_length(300)
    opened = [service for service in services if "watcher_opened" in service.log.read_text()]
    assert [service.name for service in opened] == [(await stage.owner()).name]
    await stage.check()


async def test_watchers_added_through_one_instance_are_spread_over_all(stage: Stage) -> None:
    services = await started(stage, "a", "b", "c")
    many = Many(stage, 6)
    await many.add(services[1])
    async with many.load():
        await many.until_shares(a=2, b=2, c=2)
        await many.until_published()
    await many.check(*services)


async def test_an_instance_that_joins_under_load_gets_its_share_and_hands_it_over_when_it_ends(stage: Stage) -> None:
    (one,) = await started(stage, "one")
    many = Many(stage, WATCHERS)
    await many.add(one)
    async with many.load():
        await many.until_published()
        (other,) = await started(stage, "other")
        await many.until_shares(one=WATCHERS // 2, other=WATCHERS // 2)
        await many.until_published()
        assert await other.terminate() == 0, other.log_tail()
        assert await many.shares() == {"one": WATCHERS}, "what it had is the other's before it has ended"
        await many.until_published()
    await many.check(one)


async def test_what_a_killed_instance_owned_goes_to_the_others(stage: Stage) -> None:
    services = await started(stage, "a", "b", "c")
    many = Many(stage, 6)
    await many.add(services[0])
    async with many.load():
        await many.until_shares(a=2, b=2, c=2)
        services[0].kill()  # the one that plans for all
        await many.until_shares(b=3, c=3)
        await many.until_published()
    await many.check(*services[1:])


async def test_a_frozen_owner_is_replaced_and_lets_go_when_it_thaws(stage: Stage) -> None:
    one, other = await started(stage, "one", "other")
    many = Many(stage, 4)
    await many.add(one)
    async with many.load():
        await many.until_shares(one=2, other=2)
        one.freeze()
        await many.until_shares(other=4)
        await many.until_published()
        one.thaw()
        await many.until_shares(one=2, other=2)
        await many.until_published()
    await many.check(one, other)


async def test_an_instance_that_follows_a_killed_one_of_its_machine_knows_that_it_has_ended(stage: Stage) -> None:
    (first,) = await started(stage, "first")
    await stage.add(first)
    async with stage.load():
        await stage.until_length(100)
        first.kill()
        (second,) = await started(stage, "second")
        await stage.until_length(await stage.length() + 100)
        assert "instance_has_ended" in second.log.read_text(), "it has waited until the report was too old"
        second.kill()
        await second.start()  # of the same name
        await stage.until_length(await stage.length() + 100)
        assert second.log.read_text().count("instance_has_ended") == 2
    await stage.check()


async def test_of_two_instances_of_one_name_the_second_runs_nothing_says_so_and_ends(stage: Stage) -> None:
    (one,) = await started(stage, "one")
    await stage.add(one)
    twin = stage.service("twin", instance="one")
    twin.spawn()
    await until(lambda: not twin.running, "the second one ends")
    assert twin.exit_code == 1
    said = twin.log_tail()
    assert "another live instance has the name one" in said
    assert "CHANGEWIRE_INSTANCE" in said
    assert "watcher_opened" not in twin.log.read_text()
    assert await stage.owners() == {stage.watcher: "one"}
    await stage.write(100)
    await stage.check()


async def test_a_frozen_instance_whose_name_a_successor_took_ends_when_it_thaws(stage: Stage) -> None:
    (one,) = await started(stage, "one")
    await stage.add(one)
    async with stage.load():
        await stage.until_length(100)
        one.freeze()
        successor = stage.service("successor", instance="one")
        await successor.start()
        await stage.until_length(await stage.length() + 200)
        one.thaw()
        await until(lambda: not one.running, "the one that was replaced ends")
        assert one.exit_code == 1
        assert "another live instance has the name one" in one.log_tail()
        await stage.until_length(await stage.length() + 100)
    await stage.check()


async def test_the_state_database_dropped_by_hand_while_two_run_is_stored_again(stage: Stage) -> None:
    one, other = await started(stage, "one", "other")
    many = Many(stage, 4)
    await many.add(one)
    async with many.load():
        await many.until_shares(one=2, other=2)
        state = stage.mongo[stage.state_database]
        for collection in ("members", "registry", "watchers", "instances"):
            await state.drop_collection(collection)
        await many.until_shares(one=2, other=2)
        await until(lambda: _count(stage), "the watchers are stored again")
        await many.until_published()
    await many.check(one, other)


async def _count(stage: Stage) -> bool:
    return await stage.mongo[stage.state_database]["watchers"].count_documents({}) == 4


@asynccontextmanager
async def way(url: str) -> AsyncIterator[tuple[Link, Proxy]]:
    """A way to NATS that a test can cut."""
    link = Link()
    proxy = Proxy(link, lambda: urlsplit(url).port or 0)
    await proxy.listen()
    try:
        yield link, proxy
    finally:
        await proxy.close()


async def test_an_instance_cut_from_nats_gives_its_watchers_to_one_that_is_not(stage: Stage) -> None:
    async with way(stage.nats_url) as (link, proxy):
        one = await stage.service("one").start()
        cut = await stage.service("cut", nats_url=f"nats://127.0.0.1:{proxy.port}").start()
        many = Many(stage, 4)
        await many.add(one)
        async with many.load():
            await many.until_shares(one=2, cut=2)
            link.stall("up", "down")
            await many.until_shares(one=4, within=60)
            await many.until_published()
            link.heal()
            await many.until_shares(one=2, cut=2)
            await many.until_published()
        await many.check(one, cut)


async def test_two_instances_with_one_configuration_file_share_its_watchers(stage: Stage, tmp_path: Path) -> None:
    many = Many(stage, 4)
    lines = ["collections:"]
    for name in many.names:
        database, collection = many.place(name)
        lines += [
            f"  - dbName: {database}",
            f"    collName: {collection}",
            f"    tokensDbName: {stage.database}_tokens",
            f"    tokensCollName: {name}",
            f"    streamName: {many.stream(name)}",
        ]
    (tmp_path / "connector.yaml").write_text("\n".join(["connector:", *(f"  {line}" for line in lines)]))
    one, other = await started(stage, "one", "other")
    async with many.load():
        await many.until_shares(one=2, other=2)
        await many.until_published()
        one.kill()
        await many.until_shares(other=4)
        await many.until_published()
    await many.check(other)
