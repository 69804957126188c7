"""`changewire watchers dead-letters` against a real service: what is on both streams afterwards."""

from __future__ import annotations

from typing import Any

from tests.integration.cli.command import Command
from tests.letters import letters, spoilt
from tests.live import Live, until


async def set_aside(live: Live, *keys: int) -> None:
    """Have changes with these keys set aside, and one after each of them published."""
    documents: list[Any] = [each for key in keys for each in (spoilt({"_id": key}), {"_id": key + 100})]
    live.mongo[live.database].command({"insert": live.collection, "documents": documents})
    await live.seen(*(str(key + 100) for key in keys))

    async def there() -> bool:
        return len(await letters(live)) == len(keys)

    await until(there)


async def test_they_are_listed_shown_and_discarded(watchers: Command, live: Live) -> None:
    await live.add()
    await live.reaches("RUNNING")
    assert await watchers("dead-letters", "orders") == "orders: no dead letters\n"
    assert await watchers("dead-letters", "orders", "replay", "--all") == "orders: no dead letters\n"
    await set_aside(live, 1, 2, 3)
    listed = await watchers.json("dead-letters", "orders")
    assert [each["document_key"] for each in listed] == [{"_id": 1}, {"_id": 2}, {"_id": 3}]
    table = (await watchers("dead-letters", "orders", "--limit", "2")).splitlines()
    assert [line.split()[0] for line in table] == ["sequence", *(str(each["sequence"]) for each in listed[:2]), "the"]
    assert all(word in table[1] for word in ("insert", '{"_id": 1}', "not_encodable", "cannot be read as BSON"))
    assert table[3] == "the first 2 of 3; --limit lists more"
    first = str(listed[0]["sequence"])
    shown = await watchers("dead-letters", "orders", "show", first)
    assert all(word in shown for word in ("not_encodable", listed[0]["token"], "document_key"))
    assert (await watchers.json("dead-letters", "orders", "show", first))["bson"]
    assert await watchers("dead-letters", "orders", "discard", first) == f"orders {first}: discarded\n"
    assert "no dead letter" in await watchers("dead-letters", "orders", "discard", first, code=1)
    assert [each.key for each in await letters(live)] == [2, 3]
    said = await watchers("dead-letters", "orders", "discard", "--all", "--yes")
    assert said.splitlines() == [f"orders {each['sequence']}: discarded" for each in listed[1:]]
    assert await letters(live) == []
    assert "no watcher absent" in await watchers("dead-letters", "absent", code=1)


async def test_a_replay_puts_them_on_the_stream_and_one_that_is_refused_does_not_hold_up_the_others(
    watchers: Command, live: Live
) -> None:
    sink = {"stream": live.stream, "oversize": "dead_letter"}
    await live.add(sink=sink)
    await live.reaches("RUNNING")
    big = "x" * 1_200_000
    live.orders.insert_many([{"_id": 1, "big": big}, {"_id": 2}, {"_id": 3, "big": big}])
    await live.seen("2")

    async def there() -> bool:
        return len(await letters(live)) == 2

    await until(there)
    await set_aside_spoilt(live)
    one, three, spoiled = (str(each["sequence"]) for each in await watchers.json("dead-letters", "orders"))
    said = await watchers("dead-letters", "orders", "replay", "--all", code=1)
    assert [line.split(": ")[1] for line in said.splitlines()] == [f"orders {each}" for each in (one, three, spoiled)]
    # Now their messages fit: the body goes to the object store.
    await watchers("replace", "orders", "--database", live.database, "--collection", live.collection)
    await live.reaches("RUNNING")
    said = await watchers("dead-letters", "orders", "replay", "999", one, three, code=1)
    assert said.startswith("changewire: orders 999: ")
    await live.seen("2", "101", "1", "3")
    assert [each.key for each in await letters(live)] == [9]


async def set_aside_spoilt(live: Live) -> None:
    """Have one set aside that can never be published, and a change after it that can."""
    documents: list[Any] = [spoilt({"_id": 9}), {"_id": 101}]
    live.mongo[live.database].command({"insert": live.collection, "documents": documents})
    await live.seen("2", "101")
