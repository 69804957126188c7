"""Where watchers run: groups together, and what a member that comes or goes moves.

The properties, for any watchers and members, are in `tests/properties`; simulated hours in `test_placement_hours.py`.
"""

import random
from collections import Counter

import pytest

from app.domain.placement import AIM, Load, place, shares
from tests.unit.domain.placed import EVEN, fullness, homes, moved, parts, watchers


def test_without_members_nobody_owns_anything() -> None:
    assert place(watchers(5, 2), {}, {"w0000": "a"}) == {}
    assert place([], EVEN, {"w0000": "a"}) == {}


def test_a_watcher_larger_than_a_share_is_alone_and_the_others_share_the_rest() -> None:
    loads = [*watchers(30, 3), Load("huge", "g000", 500.0)]
    placed = place(loads, EVEN, dict.fromkeys([load.name for load in loads], "a"))
    assert placed["huge"] == "a", "it stays where it is"
    assert Counter(placed.values()) == {"a": 1, "b": 15, "c": 15}


def test_fewer_watchers_than_members_are_alone() -> None:
    assert set(place(watchers(2, 1, 7.0), EVEN, {}).values()) == {"a", "b"}
    assert len(set(place(watchers(2, 1, 7.0), EVEN, {"w0000": "c", "w0001": "c"}).values())) == 2


def test_a_member_owns_by_its_weight() -> None:
    placed = place(watchers(60, 1), {"large": 2.0, "small": 1.0}, {})
    assert Counter(placed.values()) == {"large": 40, "small": 20}


@pytest.mark.parametrize("groups", [3, 6, 9, 12])
def test_groups_that_fit_are_not_divided(groups: int) -> None:
    loads = watchers(60 * groups, groups)
    assert all(len(each) == 1 for each in homes(loads, place(loads, EVEN, {})).values())


def test_a_group_larger_than_a_share_is_in_as_few_parts_as_can_be() -> None:
    loads = [*(Load(f"big{number:02}", "big", 1.0) for number in range(45)), *watchers(15, 3)]
    found = homes(loads, place(loads, EVEN, {}))
    assert len(found.pop("big")) == 3, "45 do not fit into two shares of 20"
    assert all(len(each) == 1 for each in found.values())
    loads = [*(Load(f"big{number:02}", "big", 1.0) for number in range(30)), *watchers(30, 6)]
    found = homes(loads, place(loads, EVEN, {}))
    assert len(found.pop("big")) == 2
    assert all(len(each) == 1 for each in found.values())


def test_balance_goes_before_togetherness() -> None:
    loads = watchers(40, 4)
    placed = place(loads, EVEN, {})
    assert all(abs(each - 1) <= AIM for each in fullness(loads, EVEN, placed).values())
    assert parts(loads, placed) <= 6


def test_groups_that_were_added_everywhere_come_together() -> None:
    loads = watchers(240, 12)
    scattered = {load.name: "abc"[number // 7 % 3] for number, load in enumerate(loads)}
    placed = place(loads, EVEN, scattered)
    assert (parts(loads, scattered), parts(loads, placed)) == (36, 12)


def test_the_placement_of_a_thousand_watchers_needs_few_comparisons() -> None:
    """How long it takes is measured elsewhere; here, that it ends for the sizes that are promised."""
    for groups in 1, 50, 1000:
        loads = watchers(1000, groups)
        members = dict.fromkeys("abcde", 1.0)
        placed = place(loads, members, {})
        assert max(Counter(placed.values()).values()) <= 220
        assert place(loads, members, dict.fromkeys(placed, "a")).keys() == placed.keys()


def test_with_groups_what_comes_or_goes_moves_its_share_and_seldom_anything_else() -> None:
    """Only for the reunion of a group two others exchange watchers: where what has moved made room for it."""
    quiet, moves = 0, []
    for seed in range(200):
        rng = random.Random(seed)
        count, groups, heaviest = rng.choice([30, 60, 200]), rng.choice([1, 3, 6, 10, 30]), rng.choice([1.0, 5.0, 20.0])
        loads = [Load(f"w{n}", f"g{rng.randrange(groups)}", rng.uniform(1, heaviest)) for n in range(count)]
        members = {f"m{number}": 1.0 for number in range(rng.randint(1, 5))}
        joined = {**members, "z": 1.0}
        share = shares([load.weight for load in loads], joined)["z"]
        before = place(loads, members, {})
        between = place(loads, joined, before)
        after = place(loads, members, between)
        for one, other in (before, between), (between, after):
            ways = moved(one, other)
            moves.append(sum(load.weight for load in loads if load.name in ways) / share)
            quiet += all("z" in way for way in ways.values())
    assert quiet >= 0.9 * len(moves)
    assert sorted(moves)[len(moves) // 2] <= 1
    assert max(moves) <= 2
