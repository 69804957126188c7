"""Which collection a feed is behind for."""

from app.mongodb.feeds.hot import BEHIND_SECONDS, Hot


def behind(seconds: float, *came: tuple[str, int]) -> str | None:
    """A feed is behind from 0 on, gets this, and is asked so many seconds later."""
    hot = Hot()
    assert hot.found(0.0, caught_up=False) is None
    for collection, count in came:
        hot.came(collection, count)
    return hot.found(seconds, caught_up=False)


def test_the_one_that_half_of_it_is_for_is_found() -> None:
    assert behind(BEHIND_SECONDS, ("a", 5), ("b", 3), ("c", 2)) == "a"


def test_none_is_found_where_nobody_has_half() -> None:
    assert behind(BEHIND_SECONDS, ("a", 4), ("b", 3), ("c", 3)) is None


def test_none_is_found_soon() -> None:
    assert behind(BEHIND_SECONDS / 2, ("a", 5)) is None


def test_none_is_found_where_nothing_came() -> None:
    assert behind(BEHIND_SECONDS) is None


def test_the_time_begins_anew_where_it_has_caught_up_in_between() -> None:
    hot = Hot()
    hot.found(0.0, caught_up=False)
    hot.came("a", 5)
    assert hot.found(BEHIND_SECONDS, caught_up=True) is None
    hot.came("a", 5)
    assert hot.found(2 * BEHIND_SECONDS, caught_up=False) is None
    assert hot.found(3 * BEHIND_SECONDS, caught_up=False) is None, "nothing came since"


def test_it_is_found_once() -> None:
    hot = Hot()
    hot.found(0.0, caught_up=False)
    hot.came("a", 5)
    assert hot.found(BEHIND_SECONDS, caught_up=False) == "a"
    hot.came("a", 5)
    assert hot.found(2 * BEHIND_SECONDS, caught_up=False) is None
