"""One instance's share as it looks, again and again: what it finds, what it says of that, and what it makes again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.control.share import Share
from app.domain.errors import StoreUnavailable
from app.domain.instances import GONE_SECONDS, Member, Owner, Owners, planned
from tests.unit.control.processes import ended
from tests.unit.control.shares import SOON, TWO, Deployment, running
from tests.unit.deployment import until

pytestmark = pytest.mark.usefixtures("soon")


# Dropped by hand


async def test_a_report_that_was_dropped_is_made_again(on: Deployment) -> None:
    (share,) = await on.joined("a")
    on.state.members.clear()
    await share.look()
    assert list(on.state.members) == ["a"]


async def test_a_record_that_was_dropped_is_stored_again_as_it_was_known(on: Deployment) -> None:
    one, other = await on.joined("a", "b")
    on.have(w1=Owner("a"), w2=Owner("b", group="stock"))
    for share in (one, other):
        await share.look()
    known = on.state.owners.of
    on.state.owners = Owners()
    await asyncio.gather(one.look(), other.look())
    assert on.state.owners.of == known
    await asyncio.gather(one.look(), other.look())
    assert one.has("w1")
    assert other.has("w2")


async def test_a_record_that_a_restored_backup_brings_back_a_moment_later_is_followed(
    on: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = await on.joined("a", "b")
    on.have(w1=Owner("a"))
    backup = on.state.owners
    on.have(w1=Owner("b"), w2=Owner("a"))
    await one.look()
    gone, owners = 0, on.stores["a"].owners

    async def restored(known: int) -> tuple[int, Owners | None]:
        nonlocal gone
        gone += on.state.owners.revision == 0
        if gone == 2:
            on.state.owners = backup
        return await owners(known)

    monkeypatch.setattr(on.stores["a"], "owners", restored)
    on.state.owners = Owners()
    await one.look()
    assert on.state.owners == backup
    assert one.has("w1")
    assert not one.has("w2")


# Alone


async def test_without_a_state_database_every_watcher_is_its_own(on: Deployment) -> None:
    everything = Share.of_everything()
    await everything.join()
    everything.claim(TWO)
    everything.forget("w1")
    assert everything.has("w1")
    assert everything.owner("w1") is None
    await everything.stop()
    await everything.leave()
    share, _ = await on.joined("a", "b")
    on.have(w1=Owner("b"))
    await share.look()
    share.within_reach(False)
    assert share.has("w1")
    share.within_reach(True)
    assert not share.has("w1")


# Looking


async def test_it_asks_to_carry_out_after_each_look_with_the_registrys_revision_and_not_after_a_failed_one(
    on: Deployment,
) -> None:
    (share,) = await on.joined("a")
    on.state.registry = 7
    async with running(share) as asked:
        await until(lambda: 7 in asked)
        on.stores["a"].reachable = False
        with capture_logs() as logged:
            await until(lambda: logged)
            await asyncio.sleep(SOON)
        before = len(asked)
        await asyncio.sleep(SOON)
        assert len(asked) == before
        assert [one["event"] for one in logged] == ["instances_unreachable"], "said once"
        with pytest.raises(StoreUnavailable):
            await share.look()


async def test_what_an_outage_of_mongodb_explains_is_not_said_and_what_outlasts_it_is(on: Deployment) -> None:
    (share,) = await on.joined("a")
    up = False
    share.server_up = lambda: up
    async with running(share) as asked:
        await until(lambda: asked)
        on.stores["a"].reachable = False
        with capture_logs() as logged:
            await asyncio.sleep(SOON)
            assert logged == []
            up = True
            await until(lambda: logged)
            await asyncio.sleep(SOON)
        assert [(one["event"], one["log_level"]) for one in logged] == [("instances_unreachable", "warning")]
        assert logged[0]["reason"] == "connection refused"


async def test_an_error_of_changewire_itself_in_each_look_is_said_once(
    on: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (share,) = await on.joined("a")

    async def broken() -> list[Member]:
        raise KeyError("session")

    monkeypatch.setattr(on.stores["a"], "members", broken)
    with capture_logs() as logged:
        async with running(share):
            await until(lambda: logged)
            await asyncio.sleep(SOON)
    assert [(one["event"], one["log_level"]) for one in logged] == [("instances_error", "error")]


async def test_an_instance_that_falls_silent_is_said_by_one_of_the_others_once(on: Deployment) -> None:
    _, b, c = await on.joined("a", "b", "c")
    with capture_logs() as logged:
        for _ in range(4):
            on.state.now += GONE_SECONDS / 2 + 1
            for share in (b, c):
                await share.look()
        gone = [(one["instance"], one["log_level"]) for one in logged if one["event"] == "instance_gone"]
        assert gone == [("a", "warning")]
        await c.stop()
        await c.leave()
        await b.look()
        assert len([one for one in logged if one["event"] == "instance_gone"]) == 1, "one that leaves is not gone"


async def test_the_others_are_told_of_a_process_of_their_machine_that_has_ended(on: Deployment) -> None:
    *_, c = await on.joined("a", "b", "c")
    on.state.members["a"] = replace(on.state.members["a"], process=ended())
    on.state.members["b"] = replace(on.state.members["b"], process="")  # on another machine: it may be frozen
    told: list[str] = []

    async def tell(session: str) -> None:
        told.append(session)

    c.ended = tell
    for _ in range(3):
        on.state.now += GONE_SECONDS / 2 + 1
        await c.look()
    assert told == ["session1"]


async def test_one_that_was_gone_before_this_one_came_is_not_said_again(on: Deployment) -> None:
    await on.joined("a")
    on.state.now += GONE_SECONDS + 1
    with capture_logs() as logged:
        (b,) = await on.joined("b")
        await b.look()
    assert "instance_gone" not in [one["event"] for one in logged]


async def test_a_record_that_cannot_be_stored_is_said_once_for_all_attempts(on: Deployment) -> None:
    (share,) = await on.joined("a")
    on.stores["a"].reachable = False
    with capture_logs() as logged:
        share.claim({"w1": "shop"})
        await until(lambda: logged)
        await asyncio.sleep(SOON)
    assert [one["event"] for one in logged] == ["owners_not_stored"]
    on.stores["a"].reachable = True
    await share.written()
    assert on.owners == {"w1": ("a", None)}


async def test_whatever_a_look_meets_the_next_one_is_made(on: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    (share,) = await on.joined("a")
    members = on.stores["a"].members

    async def broken() -> list[Member]:
        monkeypatch.setattr(on.stores["a"], "members", members)
        raise KeyError("session")

    async with running(share) as asked:
        await until(lambda: asked)
        monkeypatch.setattr(on.stores["a"], "members", broken)
        await until(lambda: on.stores["a"].members is members)
        before = len(asked)
        await until(lambda: len(asked) > before)


async def test_a_plan_is_made_only_where_something_has_changed_since_all_was_in_order(
    on: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs as much as there are watchers, and each look asks for one."""
    (share,) = await on.joined("a")
    await share.place(TWO, frozenset())
    await share.look()
    plans = 0

    def counted(*asked: Any) -> dict[str, Owner]:
        nonlocal plans
        plans += 1
        return planned(*asked)

    monkeypatch.setattr("app.control.owners_record.planned", counted)
    await share.look()
    assert plans == 0
    on.have(w3=Owner("", group="shop"))
    await share.look()
    assert on.owners["w3"] == ("a", None)
    made = plans
    assert made
    await share.look()
    await share.look()
    assert plans == made + 1  # which found that all is in order by now
    other = on.share("b")
    await other.join()
    await share.look()
    assert plans > made + 1
