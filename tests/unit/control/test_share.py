"""One instance's share, against a store in memory whose clock the test moves: joining, claiming, moving, letting go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.control import process
from app.control.share import Share
from app.domain.errors import Conflict, StoreUnavailable
from app.domain.instances import GONE_SECONDS, Member, Owner, Owners, planned
from tests.fakes import FakeInstances, FakeInstanceState
from tests.unit.control.processes import ended
from tests.unit.deployment import until

SOON = 0.05
TWO = {"w1": "shop", "w2": "stock"}
"""Watchers, and what could share a change stream."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look reports, and nothing takes long."""
    for name, seconds in (
        ("LOOK_SECONDS", 0.005),
        ("ALONE_SECONDS", 0.005),
        ("EXPECTED_SECONDS", 0.005),
        ("BEAT_SECONDS", 0.0),
        ("UNFIT_SECONDS", 0.0),
    ):
        monkeypatch.setattr(f"app.control.share.{name}", seconds)
    for name in ("GATHER_SECONDS", "AGAIN_SECONDS", "REFILLED_SECONDS"):
        monkeypatch.setattr(f"app.control.owners_record.{name}", 0.0)


class Deployment:
    """One state database, and the instances on it."""

    def __init__(self) -> None:
        self.state = FakeInstanceState()
        self.stores: dict[str, FakeInstances] = {}
        self.sessions = 0

    def share(self, name: str, **member: Any) -> Share:
        """An instance that has not joined."""
        self.sessions += 1
        self.stores[name] = FakeInstances(self.state)
        return Share(self.stores[name], Member(name, f"session{self.sessions}", **member))

    async def joined(self, *names: str) -> list[Share]:
        shares = [self.share(name) for name in names]
        for share in shares:
            await share.join()
        for share in shares:
            await share.look()
        return shares

    def have(self, **owners: Owner) -> None:
        """Have these owners in the record, as another instance would have stored them."""
        self.state.owners = Owners(self.state.owners.revision + 1, {**self.state.owners.of, **owners})

    @property
    def owners(self) -> dict[str, tuple[str, str | None]]:
        return {name: (one.by, one.to) for name, one in self.state.owners.of.items()}


@pytest.fixture
def on() -> Deployment:
    return Deployment()


@asynccontextmanager
async def running(share: Share) -> AsyncIterator[list[int]]:
    """Let it look, and note with which revision of the registry it asks to carry out what it has found."""
    asked: list[int] = []
    task = asyncio.create_task(share.run(asked.append))
    try:
        yield asked
    finally:
        task.cancel()
        await asyncio.wait([task])


async def beside(work: Callable[[], None], times: int = 1000) -> None:
    """Do something again and again while others wait."""
    for _ in range(times):
        work()
        await asyncio.sleep(0.001)


# Joining


async def test_one_that_has_joined_is_a_member_and_has_nothing(on: Deployment) -> None:
    (share,) = await on.joined("a")
    assert list(on.state.members) == ["a"]
    assert on.state.members["a"].process == process.this_process()
    assert not share.has("w1")
    assert share.others() == []
    await share.join()  # again: nothing more happens
    assert on.sessions == 1


async def test_what_it_owned_before_it_has_again(on: Deployment) -> None:
    on.have(w1=Owner("a"), w2=Owner("nobody"))
    (share,) = await on.joined("a")
    assert share.has("w1")
    assert share.has("w2"), "its owner is gone"


async def test_a_second_one_of_a_live_name_is_refused_and_has_nothing(on: Deployment) -> None:
    on.have(w1=Owner("a"))
    first, second = on.share("a"), on.share("a")
    await first.join()
    on.state.members["a"] = replace(on.state.members["a"], process="")  # on another machine

    def reports() -> None:
        on.state.now += 0.5
        on.state.members["a"] = replace(on.state.members["a"], seen=on.state.now)

    alive = asyncio.create_task(beside(reports))
    with pytest.raises(Conflict, match=r"another live instance has the name a: .*CHANGEWIRE_INSTANCE"):
        await second.join()
    alive.cancel()
    assert second.name_taken.is_set()
    assert not second.has("w1")
    assert on.state.members["a"].session == "session1"


async def test_of_two_that_join_at_once_with_one_name_one_is_refused(on: Deployment) -> None:
    shares = [on.share("a"), on.share("a")]
    outcomes = await asyncio.gather(*(share.join() for share in shares), return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["Conflict", "NoneType"]


async def test_the_place_of_one_that_is_gone_is_taken(on: Deployment) -> None:
    on.state.members["a"] = Member("a", "old", process="", seen=on.state.now)
    on.state.now += GONE_SECONDS + 1
    await on.joined("a")
    assert on.state.members["a"].session == "session1"


async def test_one_waits_until_it_is_certain_that_its_predecessor_is_gone(on: Deployment) -> None:
    on.state.members["a"] = Member("a", "old", process="", seen=on.state.now)
    share = on.share("a")
    joining = asyncio.create_task(share.join())
    await asyncio.sleep(SOON)
    assert not joining.done()
    on.state.now += GONE_SECONDS + 1
    await joining
    assert on.state.members["a"].session == "session1"


async def test_one_does_not_wait_for_processes_of_its_machine_that_have_ended(on: Deployment) -> None:
    for name in ("a", "b"):
        on.state.members[name] = Member(name, "old", process=ended(), seen=on.state.now)
    on.have(w1=Owner("a"), w2=Owner("b"))
    (share,) = await on.joined("a")
    assert list(on.state.members) == ["a"]
    assert share.has("w1")
    assert share.has("w2")


# Watchers that are added and removed


async def test_a_claimed_watcher_is_its_own_at_once_and_in_the_record_soon(on: Deployment) -> None:
    one, other = await on.joined("a", "b")
    one.claim(TWO)
    assert one.has("w1")
    await one.written()
    assert on.owners == {"w1": ("a", None), "w2": ("a", None)}
    assert on.state.owners.of["w1"].group == "shop"
    await other.look()
    assert not other.has("w1")
    assert other.owner("w1") == "a"
    assert one.owner("w1") is None


async def test_a_claim_does_not_take_a_watcher_from_a_live_owner(on: Deployment) -> None:
    one, _ = await on.joined("a", "b")
    on.have(w1=Owner("b"))
    one.claim({"w1": "shop"})
    await one.written()
    assert on.owners == {"w1": ("b", None)}
    assert not one.has("w1")


async def test_a_claim_that_comes_late_takes_back_no_move_that_was_planned_meanwhile(on: Deployment) -> None:
    one, _ = await on.joined("a", "b")
    one.claim(TWO)
    on.have(w1=Owner("a", to="b"))
    one.let_go("w1")
    await one.written()
    assert on.owners["w1"] == ("b", None)
    assert on.owners["w2"][0] == "a"


async def test_claims_of_two_at_once_are_both_stored(on: Deployment) -> None:
    one, other = await on.joined("a", "b")
    one.claim({"w1": "shop"})
    other.claim({"w2": "stock"})
    await asyncio.gather(one.written(), other.written())
    assert on.owners == {"w1": ("a", None), "w2": ("b", None)}


async def test_a_removed_watcher_is_forgotten(on: Deployment) -> None:
    (share,) = await on.joined("a")
    share.claim(TWO)
    share.forget("w1")
    assert not share.has("w1")
    await share.written()
    assert on.owners == {"w2": ("a", None)}


async def test_what_cannot_be_stored_is_tried_again_and_the_watcher_is_its_own_meanwhile(on: Deployment) -> None:
    (share,) = await on.joined("a")
    on.stores["a"].reachable = False
    share.claim(TWO)
    await asyncio.sleep(SOON)
    assert share.has("w1")
    assert on.owners == {}
    on.stores["a"].reachable = True
    await share.written()
    assert on.owners == {"w1": ("a", None), "w2": ("a", None)}


async def test_stored_watchers_without_an_owner_get_one_and_removed_ones_lose_theirs(on: Deployment) -> None:
    on.have(gone=Owner("a"), kept=Owner("b"))
    share, _ = await on.joined("a", "b")
    await share.place({"kept": "x", **TWO}, {"gone", "kept"})
    assert set(on.owners) == {"kept", "w1", "w2"}
    assert {by for by, _ in on.owners.values()} <= {"a", "b"}


async def test_watchers_are_placed_though_another_one_changes_the_record_at_that_moment(on: Deployment) -> None:
    share, _ = await on.joined("a", "b")
    on.stores["a"].before_change = lambda: on.have(w1=Owner("b"))
    await share.place(TWO, frozenset())
    assert on.owners["w1"] == ("b", None)
    assert "w2" in on.owners


async def test_nothing_is_written_where_nothing_has_to_be_placed(on: Deployment) -> None:
    share, _ = await on.joined("a", "b")
    await share.place(TWO, frozenset())
    revision = on.state.owners.revision
    await share.place(TWO, frozenset(TWO))
    await share.look()
    assert on.state.owners.revision == revision


async def test_a_watcher_lacks_an_owner_only_where_somebody_could_own_it(on: Deployment) -> None:
    (share,) = await on.joined("a")
    assert share.lacks_owner(["w1"])
    share.claim({"w1": "shop"})
    assert not share.lacks_owner(["w1"])
    await on.stores["a"].drain("a", on=True)
    await share.look()
    assert not share.lacks_owner(["w2"])


# Moves


async def test_a_planned_move_waits_until_the_owner_has_let_go(on: Deployment) -> None:
    (one,) = await on.joined("a")
    one.claim(TWO)
    await one.written()
    (other,) = await on.joined("b")
    await one.look()
    (moving,) = [name for name, (by, to) in on.owners.items() if to == "b"]
    assert on.owners[moving] == ("a", "b")
    assert not one.has(moving)
    await other.look()
    assert not other.has(moving), "its owner has not let go of it"
    one.let_go(moving)
    await one.written()
    assert on.owners[moving] == ("b", None)
    await other.look()
    assert other.has(moving)
    assert one.owner(moving) == "b"


async def test_what_a_gone_member_owned_is_given_away_at_once(on: Deployment) -> None:
    one, other = await on.joined("a", "b")
    on.have(w1=Owner("b"), w2=Owner("b", to="a"))
    on.state.now += GONE_SECONDS + 1
    await one.look()
    assert on.owners == {"w1": ("a", None), "w2": ("a", None)}
    assert one.has("w1")
    await other.look()  # it was frozen
    assert not other.has("w1")
    assert not other.has("w2")


async def test_the_first_live_member_plans_and_the_others_do_not(on: Deployment) -> None:
    _, other, last = await on.joined("a", "b", "c")
    on.have(w1=Owner("nobody"))
    await last.look()
    await other.look()
    assert on.owners == {"w1": ("nobody", None)}
    on.state.now += GONE_SECONDS + 1
    await other.look()
    assert on.owners["w1"][0] == "b", "the first one is gone, and so is the last one"


async def test_who_is_let_go_of_and_was_given_to_another_meanwhile_goes_there(on: Deployment) -> None:
    one, *_ = await on.joined("a", "b", "c")
    on.have(w1=Owner("a", to="b"))
    await one._record.read()
    on.have(w1=Owner("a", to="c"))
    one.let_go("w1")
    await one.written()
    assert on.owners == {"w1": ("c", None)}


async def test_letting_go_of_what_another_one_owns_changes_nothing(on: Deployment) -> None:
    one, _ = await on.joined("a", "b")
    on.have(w1=Owner("b", to="a"))
    await one._record.read()
    one.let_go("w1")
    await one.written()
    assert on.owners == {"w1": ("b", "a")}


async def test_after_trouble_nobody_is_believed_to_be_gone_until_one_could_look_as_long(
    on: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await on.joined("a", "b")
    on.have(w1=Owner("b"))
    async with running(one) as asked:
        on.stores["a"].reachable = False
        await asyncio.sleep(SOON)
        on.state.now += 60
        on.stores["a"].reachable = True
        before = len(asked)
        await until(lambda: len(asked) > before + 2)
        assert on.owners == {"w1": ("b", None)}
        assert one.others() == ["b"]
        await other.look()
        await asyncio.sleep(SOON)
        assert on.owners == {"w1": ("b", None)}
    monkeypatch.setattr("app.control.share.GONE_SECONDS", SOON)
    async with running(one):
        on.state.now += 60
        await until(lambda: on.owners == {"w1": ("a", None)})


async def test_an_instance_that_cannot_publish_gives_its_watchers_to_one_that_can(on: Deployment) -> None:
    one, other = await on.joined("a", "b")
    on.have(w1=Owner("a"), w2=Owner("b"))
    one.unfit = lambda: "no connection to NATS"
    await one.look()
    assert on.state.members["a"].unfit == "no connection to NATS"
    assert on.owners == {"w1": ("a", "b"), "w2": ("b", None)}
    other.unfit = one.unfit
    await other.look()
    await one.look()
    assert on.owners == {"w1": ("a", "b"), "w2": ("b", None)}, "where nobody can publish nothing is planned"
    one.unfit = lambda: None
    await one.look()
    assert on.state.members["a"].unfit is None
    assert on.owners == {"w1": ("a", None), "w2": ("b", "a")}


async def test_a_short_trouble_with_nats_moves_nothing(on: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.control.share.UNFIT_SECONDS", 60)
    one, _ = await on.joined("a", "b")
    on.have(w1=Owner("a"))
    one.unfit = lambda: "no connection to NATS"
    await one.look()
    assert on.state.members["a"].unfit is None
    assert on.owners == {"w1": ("a", None)}


async def test_a_member_that_is_drained_by_hand_gives_up_all_and_gets_some_again(on: Deployment) -> None:
    one, other = await on.joined("a", "b")
    on.have(w1=Owner("a"), w2=Owner("b"))
    await on.stores["a"].drain("b", on=True)
    await one.look()
    assert on.owners == {"w1": ("a", None), "w2": ("b", "a")}
    await other.look()
    other.let_go("w2")
    await other.written()
    assert on.owners == {"w1": ("a", None), "w2": ("a", None)}
    await on.stores["a"].drain("b", on=False)
    await one.look()
    assert sorted(to or "-" for _, to in on.owners.values()) == ["-", "b"]


# The end


async def test_one_that_stops_hands_over_what_has_drained_and_takes_its_report_back(on: Deployment) -> None:
    _, other = await on.joined("a", "b")
    on.have(w1=Owner("b"), w2=Owner("b"))
    await other.stop()
    assert on.owners == {"w1": ("b", "a"), "w2": ("b", "a")}
    other.let_go("w1")
    await other.written()
    assert on.owners == {"w1": ("a", None), "w2": ("b", "a")}
    other.let_go("w2")
    await other.leave()
    assert on.owners == {"w1": ("a", None), "w2": ("a", None)}
    assert list(on.state.members) == ["a"]


async def test_one_that_stops_plans_again_where_another_one_was_faster(on: Deployment) -> None:
    _, other = await on.joined("a", "b")
    on.have(w1=Owner("b"))
    await other.look()
    on.stores["b"].before_change = lambda: on.have(w2=Owner("b"))
    await other.stop()
    assert on.owners == {"w1": ("b", "a"), "w2": ("b", "a")}


async def test_the_last_one_keeps_what_it_owns_for_its_next_start(on: Deployment) -> None:
    (share,) = await on.joined("a")
    on.have(w1=Owner("a"))
    await share.stop()
    share.let_go("w1")
    await share.leave()
    assert on.owners == {"w1": ("a", None)}
    (successor,) = await on.joined("a")
    assert successor.has("w1")


async def test_one_that_never_joined_stops_without_a_word(on: Deployment) -> None:
    share = on.share("a")
    on.stores["a"].reachable = False
    await share.stop()
    await share.leave()


async def test_one_whose_name_a_successor_took_lets_go_of_all_and_changes_nothing(on: Deployment) -> None:
    on.have(w1=Owner("a", to="b"))
    (frozen,) = await on.joined("a")
    on.state.members["a"] = replace(on.state.members["a"], session="successor")
    before = on.state.owners
    async with running(frozen) as asked:
        await until(frozen.name_taken.is_set)
        told = len(asked)
        await until(lambda: len(asked) > told)
    assert not frozen.has("w1")
    frozen.let_go("w1")
    frozen.claim({"w2": "stock"})
    await frozen.written()
    await frozen.leave()
    assert on.state.owners == before
    assert on.state.members["a"].session == "successor"


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
