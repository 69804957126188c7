"""When a feed opens again with another filter, and what that filter lets through."""

import pytest

from app.mongodb.feeds.filters import FEW, LEAST, NAMED, WASTE, Filter, Waste

ALL = Filter()


def wasted(came: int, dropped: dict[str, int]) -> Waste:
    waste = Waste()
    waste.came(came)
    for name, count in dropped.items():
        waste.dropped(name, count)
    return waste


def test_without_a_filter_everything_is_covered() -> None:
    assert ALL.covers("orders")
    assert ALL.stages() == ()


def test_collections_by_name_are_asked_for_with_the_renames_that_concern_them() -> None:
    only = Filter(only=frozenset({"orders", "users"}))
    assert only.covers("orders")
    assert not only.covers("logs")
    wanted = {"$in": ["orders", "users"]}
    assert only.stages() == ({"$match": {"$or": [{"ns.coll": wanted}, {"to.coll": wanted}]}},)


def test_collections_that_are_left_out_still_bring_their_renames() -> None:
    without = Filter(without=frozenset({"logs"}))
    assert without.covers("orders")
    assert not without.covers("logs")
    assert without.stages() == ({"$match": {"$or": [{"ns.coll": {"$nin": ["logs"]}}, {"operationType": "rename"}]}},)


@pytest.mark.parametrize(
    ("came", "dropped"),
    [
        (LEAST - 1, LEAST - 1),  # too few to know
        (LEAST, int(LEAST * WASTE) - 1),  # most of it is wanted
    ],
)
def test_no_other_filter_where_little_is_known_or_little_is_wasted(came: int, dropped: int) -> None:
    assert wasted(came, {"logs": dropped}).better(ALL, {"orders"}) is None


def test_few_wanted_collections_are_asked_for_by_name() -> None:
    assert wasted(LEAST, {"logs": LEAST}).better(ALL, {"orders"}) == Filter(only=frozenset({"orders"}))


def test_where_many_are_wanted_those_that_waste_most_are_left_out() -> None:
    wanted = {f"c{number}" for number in range(FEW + 1)}
    dropped = {f"logs{number}": 100 + number for number in range(NAMED + 5)}
    better = wasted(LEAST, dropped).better(ALL, wanted)
    assert better is not None
    assert better.only is None
    assert better.without == {f"logs{number}" for number in range(5, NAMED + 5)}


def test_collections_that_are_left_out_stay_so_until_somebody_wants_them() -> None:
    wanted = {f"c{number}" for number in range(FEW + 1)}
    before = Filter(without=frozenset({"old", "c0"}))
    better = wasted(LEAST, {"logs": LEAST}).better(before, wanted)
    assert better is not None
    assert better.without == {"logs", "old"}


def test_events_of_a_collection_that_is_wanted_by_now_are_no_waste() -> None:
    assert wasted(LEAST, {"orders": LEAST}).better(ALL, {"orders"}) is None


def test_counting_begins_again_after_each_decision() -> None:
    waste = wasted(LEAST, {"logs": 10})
    assert waste.better(ALL, {"orders"}) is None
    waste.dropped("logs", LEAST)
    waste.came(LEAST - 1)
    assert waste.better(ALL, {"orders"}) is None, "the events of the first decision are counted again"
    waste.came(1)
    assert waste.better(ALL, {"orders"}) is not None
