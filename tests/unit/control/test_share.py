"""One instance's share, against a store in memory whose clock the test moves: joining, claiming, moving, letting go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.control import process
from app.domain.errors import Conflict
from app.domain.instances import GONE_SECONDS, Member, Owner
from tests.unit.control.processes import ended
from tests.unit.control.shares import SOON, TWO, Deployment, running
from tests.unit.deployment import until

pytestmark = pytest.mark.usefixtures("soon")


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
