"""What is told of the instances, and who may be drained."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from app.control.membership import Membership
from app.control.share import Share
from app.domain.errors import Conflict, NotFound, StoreUnavailable, Unavailable
from app.domain.instances import FORMAT, Member, Owner, Owners, Standing
from tests.fakes import NullObserver

NOW = 1_700_000_000.0


class Reports:
    """The reports of some instances, and one record of owners."""

    def __init__(self, *members: Member) -> None:
        self.rows = {member.name: member for member in members}
        self.broken = False
        self.known = FORMAT
        self.record = Owners(1, {"orders": Owner("a"), "items": Owner("a"), "users": Owner("b")})

    def by(self) -> list[str]:
        return [owner.by for owner in self.record.of.values()]

    async def members(self) -> list[Member]:
        if self.broken:
            raise StoreUnavailable("no answer")
        return sorted(self.rows.values(), key=lambda member: member.name)

    async def join(self, member: Member, over: str | None) -> bool:
        self.rows[member.name] = replace(self.rows.get(member.name, member), session=member.session)
        return True

    async def beat(self, member: Member) -> bool:
        drained = self.rows[member.name].drained
        self.rows[member.name] = replace(member, drained=drained)
        return True

    async def drain(self, name: str, *, on: bool) -> bool:
        self.rows[name] = replace(self.rows[name], drained=on)
        return True

    async def owners(self, known: int) -> tuple[int, Owners | None]:
        return 0, None if known == self.record.revision else self.record

    async def change_owners(self, revision: int, put: Mapping[str, Owner], drop: Iterable[str]) -> bool:
        if revision != self.record.revision:
            return False
        kept = {name: owner for name, owner in self.record.of.items() if name not in set(drop)}
        self.record = Owners(revision + 1, {**kept, **put})
        return True

    async def format(self, known: int) -> int:
        return max(known, self.known)


async def joined(store: Reports, name: str = "a") -> tuple[Share, Membership]:
    share = Share(store, Member(name, "s", version="1"))  # type: ignore[arg-type]  # as much of it as is used here
    await share.join()
    return share, Membership(share, {}, lambda: NOW)


def member(name: str, **more: Any) -> Member:
    return Member(name, f"session of {name}", **more)


async def test_each_instance_is_told_with_what_it_owns_and_what_it_does() -> None:
    share, membership = await joined(
        Reports(
            member("b", drained=True, rate=4.5),
            member("c", unfit="NATS does not answer"),
            member("d", age=9.0),
            member("e", stopping=True, drained=True),
        )
    )
    share.rate = lambda: 7.0
    views = {view.member.name: view for view in await membership.views()}
    assert {name: view.member.standing for name, view in views.items()} == {
        "a": Standing.ACTIVE, "b": Standing.DRAINING, "c": Standing.UNFIT, "d": Standing.GONE, "e": Standing.STOPPING,
    }  # fmt: skip
    assert {name: view.watchers for name, view in views.items()} == {"a": 2, "b": 1, "c": 0, "d": 0, "e": 0}
    assert [name for name, view in views.items() if view.itself] == ["a"]
    assert (views["a"].member.rate, views["b"].member.rate) == (7.0, 4.5)
    assert {view.as_of for view in views.values()} == {None}


@pytest.mark.parametrize("ago", [1.0, 60.0], ids=["not reached now", "not reached for long"])
async def test_what_was_read_before_is_told_with_its_age_where_nobody_can_be_asked(ago: float) -> None:
    store = Reports(member("b"))
    share, membership = await joined(store)
    share.looked_at -= ago
    store.broken = True
    (mine, other) = await membership.views()
    passed = asyncio.get_running_loop().time() - share.looked_at
    assert mine.as_of is not None
    assert other.as_of is not None
    assert NOW - passed <= other.as_of <= NOW - ago
    assert other.member.standing is Standing.ACTIVE


async def test_without_a_state_database_there_is_only_this_instance() -> None:
    share = Share.of_everything()
    (view,) = await Membership(share, {}, lambda: NOW).views()
    assert (view.member.name, view.member.since, view.itself) == ("alone", NOW, True)
    with pytest.raises(Unavailable, match="without the state database"):
        await Membership(share, {}, lambda: NOW).drain("alone", on=True)


async def test_an_instance_is_drained_and_takes_watchers_again() -> None:
    store = Reports(member("b"))
    _, membership = await joined(store)
    assert (await membership.drain("a", on=True)).member.standing is Standing.DRAINING
    assert store.rows["a"].drained
    assert (await membership.drain("a", on=False)).member.standing is Standing.ACTIVE
    assert not store.rows["a"].drained
    with pytest.raises(NotFound, match="no instance z"):
        await membership.drain("z", on=True)


@pytest.mark.parametrize(
    "other",
    [{"drained": True}, {"stopping": True}, {"unfit": "no NATS"}, {"age": 60.0}],
    ids=lambda each: next(iter(each)),
)
async def test_one_that_no_other_could_replace_is_drained_only_by_force(other: dict[str, Any]) -> None:
    store = Reports(member("b", **other))
    _, membership = await joined(store)
    with pytest.raises(Conflict, match="no other instance could run the watchers of a"):
        await membership.drain("a", on=True)
    assert not store.rows["a"].drained
    view = await membership.drain("a", on=True, force=True)
    assert (view.member.standing, view.watchers) == (Standing.DRAINING, sum(by == "a" for by in store.by()))
    await membership.drain("a", on=False)  # taking it back needs nobody else


@pytest.mark.parametrize("force", [False, True])
async def test_one_that_is_gone_has_nothing_to_hand_over(force: bool) -> None:
    store = Reports(member("b", age=60.0))
    _, membership = await joined(store)
    with pytest.raises(Conflict, match="b was not heard of for 60 seconds"):
        await membership.drain("b", on=True, force=force)
    assert not store.rows["b"].drained


async def test_a_watcher_that_no_live_instance_owns_is_told_of_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Reports(member("b"), member("c", age=60.0))
    monkeypatch.setattr("app.control.owners_record.planned", lambda *_: {})  # nobody gives them away
    store.record = Owners(1, {"mine": Owner("a"), "other": Owner("b"), "lost": Owner("c")})
    share, membership = await joined(store)
    observer = NullObserver()
    membership.look(["mine", "other", "lost", "new"])
    assert membership.homeless() == []
    monkeypatch.setattr("app.control.membership.HOMELESS_SECONDS", 0.0)
    assert membership.homeless() == ["lost", "new"]
    membership.observe(observer)
    assert observer.shares == {"a": 0, "live": 2, "gone": 1, "homeless": 2}
    store.record = Owners(2, {**store.record.of, "lost": Owner("b"), "new": Owner("a")})
    await share.look()
    membership.look(["mine", "other", "lost", "new"])
    assert membership.homeless() == []
    share.within_reach(False)  # from then on every watcher is this instance's
    membership.look(["elsewhere"])
    assert membership.homeless() == []


async def test_an_instance_that_does_not_know_the_registrys_format_runs_and_changes_nothing() -> None:
    store = Reports()
    share, membership = await joined(store)
    assert share.has("orders")
    store.known = FORMAT + 1
    await share.check_format()
    assert share.outdated is not None
    assert f"format {FORMAT + 1}" in share.outdated
    before = store.record
    assert not share.has("orders")
    share.claim({"new": "shop"})
    share.let_go("orders")
    await share.place({"new": "shop"}, frozenset())
    await share.look()
    await share.written()
    assert store.record is before
    with pytest.raises(Unavailable, match=f"format {FORMAT + 1}"):
        await membership.drain("b", on=True)
    row = store.rows["a"]
    assert (row.idle, row.unfit, row.standing, row.eligible) == (True, share.outdated, Standing.UNFIT, False)
    await joined(store, "c")  # one that knows it gives the watchers away, at once
    assert "a" not in store.by()
    store.known = FORMAT
    await share.check_format()
    await share.look()
    assert not store.rows["a"].idle


async def test_what_a_person_should_know_of_this_instance_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Reports(member("b", drained=True))
    monkeypatch.setattr("app.control.owners_record.planned", lambda *_: {})
    share, membership = await joined(store)
    assert membership.notices() == []
    await membership.drain("a", on=True, force=True)
    store.record = Owners(9, {f"w{number}": Owner("nobody") for number in range(7)})
    share.unfit = lambda: "NATS does not answer"
    monkeypatch.setattr("app.control.share.UNFIT_SECONDS", 0.0)
    monkeypatch.setattr("app.control.membership.HOMELESS_SECONDS", 0.0)
    await share.look()
    membership.look(store.record.of)
    drained, unfit, homeless = membership.notices()
    assert "changewire instances undrain a" in drained
    assert "NATS does not answer" in unfit
    assert homeless == "no instance runs 7 of the watchers: w0, w1, w2, w3, w4, …"


async def test_a_report_that_is_under_way_does_not_take_back_that_the_instance_stops() -> None:
    store = Reports(member("b"))
    share, _ = await joined(store)
    share.unfit = lambda: "anything"  # so that the next look reports at once
    looking = asyncio.create_task(share.look(), name="look")
    await share.stop()
    await looking
    assert store.rows["a"].stopping
    assert share.me.stopping
