"""What follows from the members and the owners: who is to own what next, and who says so."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.domain.instances import GONE_SECONDS, Member, Owner, planned, speaker

NAMES = ["a", "b", "c", "d"]
WATCHERS = [f"w{number}" for number in range(12)]


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    return [
        Member(
            name,
            f"session of {name}",
            weight=draw(st.sampled_from([0.5, 1.0, 4.0])),
            stopping=draw(st.booleans()),
            drained=draw(st.booleans()),
            unfit=draw(st.sampled_from([None, None, "no NATS"])),
            age=draw(st.sampled_from([0.0, GONE_SECONDS, GONE_SECONDS + 0.1])),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    ]


owners = st.dictionaries(
    st.sampled_from(WATCHERS),
    st.builds(
        Owner,
        st.sampled_from([*NAMES, "nobody", ""]),
        st.sampled_from([None, None, *NAMES]),
        st.sampled_from([0.0, 1.0, 500.0]),
        st.sampled_from(["shop", "stock", "log"]),
    ),
)


def carried_out(record: dict[str, Owner], found: list[Member]) -> dict[str, Owner]:
    """The record once what is planned is stored, and each owner has let go of what it is to hand over."""
    record = record | planned(record, found)
    return {name: Owner(one.to or one.by, None, one.weight, one.group) for name, one in record.items()}


@given(owners, members())
def test_a_live_owner_keeps_its_watcher_until_it_has_let_go_of_it(
    record: dict[str, Owner], found: list[Member]
) -> None:
    live = {member.name for member in found if not member.gone}
    for name, then in planned(record, found).items():
        if record[name].by in live:
            assert then.by == record[name].by


@given(owners, members())
def test_what_gone_owners_had_is_given_away_at_once_where_somebody_can_take_it(
    record: dict[str, Owner], found: list[Member]
) -> None:
    live = {member.name for member in found if not member.gone}
    able = {member.name for member in found if member.eligible}
    after = record | planned(record, found)
    for name, one in after.items():
        if able and record[name].by not in live:
            assert one.by in able
            assert one.to is None


@given(owners, members())
def test_nothing_is_on_its_way_to_one_that_may_not_take_it_and_all_that_has_to_leave_does(
    record: dict[str, Owner], found: list[Member]
) -> None:
    able = {member.name for member in found if member.eligible}
    for one in (record | planned(record, found)).values():
        if able:
            assert one.to is None or one.to in able
            assert one.by in able or one.to in able
            assert one.to != one.by


@given(owners, members())
def test_where_nobody_can_take_watchers_nothing_is_planned(record: dict[str, Owner], found: list[Member]) -> None:
    assert planned(record, [member for member in found if not member.eligible]) == {}


@given(owners, members())
def test_only_what_changes_is_told_and_a_plan_that_is_stored_is_not_made_again(
    record: dict[str, Owner], found: list[Member]
) -> None:
    changed = planned(record, found)
    assert all(record[name] != one for name, one in changed.items())
    assert planned(record | changed, found) == {}


@given(owners, members())
def test_a_plan_that_is_carried_out_is_the_end_of_it(record: dict[str, Owner], found: list[Member]) -> None:
    assert planned(carried_out(record, found), found) == {}


@given(owners, members(), st.randoms())
def test_every_instance_plans_the_same(record: dict[str, Owner], found: list[Member], random: Any) -> None:
    entries, others = list(record.items()), list(found)
    random.shuffle(entries)
    random.shuffle(others)
    assert planned(dict(entries), others) == planned(record, found)
    assert speaker(others) == speaker(found)


@given(members())
def test_the_first_live_member_speaks(found: list[Member]) -> None:
    live = sorted(member.name for member in found if not member.gone)
    assert speaker(found) == (live[0] if live else None)


def test_a_member_is_gone_only_after_that_time() -> None:
    assert not Member("a", "s", age=GONE_SECONDS).gone
    assert Member("a", "s", age=GONE_SECONDS + 0.01).gone


def test_one_that_leaves_cannot_publish_or_is_gone_takes_no_watchers() -> None:
    assert Member("a", "s").eligible
    for member in (
        Member("a", "s", stopping=True),
        Member("a", "s", drained=True),
        Member("a", "s", unfit="no NATS"),
        Member("a", "s", age=GONE_SECONDS + 1),
    ):
        assert not member.eligible
