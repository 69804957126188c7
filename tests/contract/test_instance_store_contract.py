"""What every instance store keeps: members by the server's clock, and one record of owners that only one changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
import pytest
import pytest_asyncio

from app.domain.instances import Member, Owner, Owners
from app.mongodb.deployment import MongoDeployment
from app.ports.instance_store import InstanceStore
from tests.fakes import FakeInstances, FakeInstanceState

ME = Member("one", "s1", 2.0, stopping=True, unfit="no $NATS", rate=3.5, version="$1.0", process='["$host", 7]')
"""With what a server could take for an expression."""


class Bench:
    """Stores of several processes on one state, which a test makes older."""

    def __init__(self, open_store: Callable[[], InstanceStore], age: Callable[[str, float], Awaitable[None]]) -> None:
        self.open = open_store
        self.age = age
        """`age(name, seconds)`: have a member not heard of for so long."""


@pytest_asyncio.fixture(params=["fake", "mongo"])
async def bench(request: pytest.FixtureRequest, mongo_uri: str, database: str) -> AsyncIterator[Bench]:
    if request.param == "fake":
        state = FakeInstanceState()

        async def age_fake(name: str, seconds: float) -> None:
            state.now += seconds
            for each in set(state.members) - {name}:
                state.members[each] = replace(state.members[each], seen=state.now)

        yield Bench(lambda: FakeInstances(state), age_fake)
        return
    deployment = MongoDeployment(mongo_uri, state_database=database)
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:

        async def age_stored(name: str, seconds: float) -> None:
            seen = datetime.now(UTC) - timedelta(seconds=seconds)
            client[database]["members"].update_one({"_id": name}, {"$set": {"seen": seen}})

        yield Bench(deployment.instances, age_stored)
        deployment.close()
        client.drop_database(database)


@pytest.fixture
def store(bench: Bench) -> InstanceStore:
    return bench.open()


def told(member: Member) -> tuple[Any, ...]:
    """What a member says of itself."""
    return (
        member.name, member.session, member.weight, member.stopping, member.drained, member.unfit, member.rate,
        member.version, member.process,
    )  # fmt: skip


# Members


async def test_a_report_comes_back_to_another_process_with_the_servers_times(bench: Bench) -> None:
    assert await bench.open().members() == []
    assert await bench.open().join(ME, None)
    (found,) = await bench.open().members()
    assert told(found) == told(ME)
    assert found.since == found.seen > 0
    assert 0 <= found.age < 60


async def test_members_are_in_the_order_of_their_names(store: InstanceStore) -> None:
    for name in ("c", "a", "b"):
        await store.join(Member(name, name), None)
    assert [one.name for one in await store.members()] == ["a", "b", "c"]


async def test_a_name_belongs_to_the_session_that_has_it(store: InstanceStore) -> None:
    assert await store.join(ME, None)
    assert not await store.join(Member("one", "s2"), None)
    assert not await store.join(Member("one", "s2"), "s0")
    assert await store.join(ME, None), "its own, again"
    (found,) = await store.members()
    assert found.session == "s1"


async def test_a_successor_takes_the_place_of_the_session_that_it_names(store: InstanceStore) -> None:
    await store.join(ME, None)
    assert await store.join(Member("one", "s2"), "s1")
    assert [(one.name, one.session, one.unfit) for one in await store.members()] == [("one", "s2", None)]
    assert not await store.beat(ME), "the one that was replaced reports no more"


async def test_of_several_that_take_one_name_at_once_one_gets_it(bench: Bench) -> None:
    stores = [bench.open() for _ in range(6)]
    got = await asyncio.gather(*(each.join(Member("one", f"s{n}"), None) for n, each in enumerate(stores)))
    assert got.count(True) == 1
    (found,) = await bench.open().members()
    assert found.session == f"s{got.index(True)}"


async def test_a_beat_makes_a_member_young_again_and_keeps_since_when_it_is_there(bench: Bench) -> None:
    store = bench.open()
    await store.join(Member("one", "s1"), None)
    (first,) = await store.members()
    await bench.age("one", 100)
    (old,) = await store.members()
    assert old.gone
    assert old.age >= 100
    assert await store.beat(Member("one", "s1", rate=7.0, unfit="$why"))
    (young,) = await store.members()
    assert not young.gone
    assert (young.since, young.rate, young.unfit) == (first.since, 7.0, "$why")


async def test_a_beat_without_a_report_changes_nothing(store: InstanceStore) -> None:
    assert not await store.beat(ME)
    assert await store.members() == []


async def test_only_the_session_itself_takes_its_report_back(store: InstanceStore) -> None:
    await store.join(ME, None)
    await store.leave("one", "s2")
    assert len(await store.members()) == 1
    await store.leave("one", "s1")
    assert await store.members() == []


async def test_what_somebody_asked_of_a_member_outlasts_its_reports(store: InstanceStore) -> None:
    assert not await store.drain("one", on=True)
    member = Member("one", "s1")
    await store.join(member, None)
    assert await store.drain("one", on=True)
    await store.beat(member)
    assert [one.drained for one in await store.members()] == [True]
    assert await store.drain("one", on=False)
    await store.beat(member)
    assert [one.drained for one in await store.members()] == [False]


async def test_a_member_that_was_silent_for_an_hour_is_forgotten(bench: Bench) -> None:
    store = bench.open()
    await store.join(Member("one", "s1"), None)
    await store.join(Member("other", "s2"), None)
    await bench.age("one", 3000)
    assert [one.name for one in await store.members()] == ["one", "other"]
    await bench.age("one", 3700)
    assert [one.name for one in await store.members()] == ["other"]
    assert await store.join(Member("third", "s3"), None)
    assert not await store.beat(Member("one", "s1")), "its report was removed"


# Owners

ORDERS = Owner("one", "other", 12.5, "shop")


async def test_there_is_no_record_at_first(store: InstanceStore) -> None:
    assert await store.owners(0) == (0, None)
    assert await store.owners(3) == (0, Owners())


async def test_owners_come_back_to_another_process_whatever_their_names(bench: Bench) -> None:
    names = {"shop.orders": ORDERS, "a$b": Owner("one"), "shop.orders@S": Owner("other", group="$g")}
    assert await bench.open().change_owners(0, names, ())
    assert await bench.open().owners(0) == (0, Owners(1, names))
    assert await bench.open().owners(1) == (0, None)


async def test_a_change_adds_replaces_and_drops_and_keeps_the_rest(store: InstanceStore) -> None:
    await store.change_owners(0, {"a": ORDERS, "b": Owner("one"), "c": Owner("one")}, ())
    assert await store.change_owners(1, {"b": Owner("other"), "d.e": Owner("one")}, ["c", "x", "b"])
    assert await store.owners(1) == (0, Owners(2, {"a": ORDERS, "b": Owner("other"), "d.e": Owner("one")}))
    assert await store.change_owners(2, {}, ["a", "d.e"])
    assert await store.owners(2) == (0, Owners(3, {"b": Owner("other")}))


async def test_a_change_of_another_revision_changes_nothing(store: InstanceStore) -> None:
    await store.change_owners(0, {"a": ORDERS}, ())
    for revision in (0, 2):
        assert not await store.change_owners(revision, {"a": Owner("thief")}, ())
        assert not await store.change_owners(revision, {}, ["a"])
    assert await store.owners(0) == (0, Owners(1, {"a": ORDERS}))


@pytest.mark.parametrize("revision", [0, 1])
async def test_of_several_that_change_it_at_once_one_does(bench: Bench, revision: int) -> None:
    if revision:
        await bench.open().change_owners(0, {"a": Owner("nobody")}, ())
    stores = [bench.open() for _ in range(6)]
    done = await asyncio.gather(
        *(each.change_owners(revision, {"a": Owner(f"i{n}")}, ()) for n, each in enumerate(stores))
    )
    assert done.count(True) == 1
    assert await bench.open().owners(0) == (0, Owners(revision + 1, {"a": Owner(f"i{done.index(True)}")}))


# What they share


async def test_all_processes_get_the_same_secret(bench: Bench) -> None:
    stores = [bench.open() for _ in range(6)]
    secrets = set(await asyncio.gather(*(each.secret() for each in stores)))
    assert len(secrets) == 1
    ((group, key),) = secrets
    assert group
    assert len(key) == 32


async def test_the_first_format_that_is_told_stays(bench: Bench) -> None:
    stores = [bench.open() for _ in range(6)]
    assert set(await asyncio.gather(*(each.format(2) for each in stores))) == {2}
    assert await bench.open().format(1) == 2
