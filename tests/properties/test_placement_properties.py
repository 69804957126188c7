"""Where watchers run, for any watchers, members and owners: balanced, and where they are today without a reason."""

import random

from hypothesis import given
from hypothesis import strategies as st

from app.domain.placement import CLEAR, TOLERANCE, UNITS, Load, place, shares
from tests.unit.domain.placed import fullness, moved

weights = st.one_of(st.just(1.0), st.integers(1, 20), st.integers(8, 40_000).map(lambda eighths: eighths / 8))
members_ = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([0.5, 1.0, 1.0, 2.0]), min_size=1, max_size=6)


@st.composite
def loads_(draw: st.DrawFn, most: int = 60) -> list[Load]:
    count, groups = draw(st.integers(0, most)), draw(st.integers(1, 12))
    return [Load(f"w{number}", f"g{draw(st.integers(1, groups))}", draw(weights)) for number in range(count)]


@st.composite
def owned(draw: st.DrawFn) -> tuple[list[Load], dict[str, float], dict[str, str]]:
    """Watchers and members, and owners that may be gone, of watchers that may be gone."""
    names = [*(f"w{number}" for number in range(60)), "removed"]
    owners = draw(st.dictionaries(st.sampled_from(names), st.sampled_from("abcdefgh"), max_size=60))
    return draw(loads_()), draw(members_), owners


@st.composite
def fine(draw: st.DrawFn, groups: int = 12) -> tuple[list[Load], dict[str, float]]:
    """Watchers of which none is heavier than 12 % of the smallest share: `CLEAR` × `TOLERANCE`."""
    members = draw(members_)
    lightest, heaviest = draw(st.sampled_from([(1.0, 1.0), (1.0, 3.0), (5.0, 10.0)]))
    least = heaviest * sum(members.values()) / (CLEAR * TOLERANCE * min(members.values()))
    count = round(least / lightest) + draw(st.integers(1, 40))
    groups = draw(st.integers(1, groups))
    rng = random.Random(draw(st.integers(0, 1000)))
    return [
        Load(f"w{number:04}", f"g{rng.randrange(groups)}", rng.uniform(lightest, heaviest)) for number in range(count)
    ], members


@given(owned())
def test_each_watcher_has_a_live_owner_and_nothing_else_is_owned(
    case: tuple[list[Load], dict[str, float], dict[str, str]],
) -> None:
    loads, members, owners = case
    placed = place(loads, members, owners)
    assert placed.keys() == {load.name for load in loads}
    assert set(placed.values()) <= members.keys()


@given(owned(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(
    case: tuple[list[Load], dict[str, float], dict[str, str]], rng: random.Random
) -> None:
    def shuffled(values: dict[str, float] | dict[str, str]) -> dict:
        items = list(values.items())
        rng.shuffle(items)
        return dict(items)

    loads, members, owners = case
    placed = place(loads, members, owners)
    assert place(rng.sample(loads, len(loads)), shuffled(members), shuffled(owners)) == placed


@given(owned())
def test_the_result_is_a_fixed_point(case: tuple[list[Load], dict[str, float], dict[str, str]]) -> None:
    loads, members, owners = case
    placed = place(loads, members, owners)
    assert place(loads, members, placed) == placed


@given(fine(), st.randoms(use_true_random=False))
def test_light_watchers_are_balanced_within_20_percent_whatever_was_before(
    case: tuple[list[Load], dict[str, float]], rng: random.Random
) -> None:
    loads, members = case
    before = {load.name: rng.choice("abcdefgh") for load in loads}
    for owners in {}, before, dict.fromkeys(before, "a"):
        full = fullness(loads, members, place(loads, members, owners))
        assert all(abs(each - 1) <= TOLERANCE + 0.01 for each in full.values()), full


@given(loads_(), st.integers(1, 6), st.randoms(use_true_random=False))
def test_watchers_of_any_size_are_as_balanced_as_their_sizes_allow(
    loads: list[Load], count: int, rng: random.Random
) -> None:
    members = dict.fromkeys("abcdef"[:count], 1.0)
    before = {load.name: rng.choice("abcdefgh") for load in loads}
    for owners in {}, before, dict.fromkeys(before, "a"):
        if not loads:
            continue
        placed = place(loads, members, owners)
        share = shares([round(load.weight * UNITS) for load in loads], members)["a"] / UNITS
        larger = [load for load in loads if load.weight > share]
        hosts = {placed[load.name] for load in larger}
        usual = max((load.weight for load in loads if load.weight <= share), default=0.0) / share
        bound = max(TOLERANCE, usual / CLEAR) + 0.01
        full = fullness(loads, members, placed)
        assert all(full[member] <= 1 + bound for member in members if member not in hosts), full
        assert all(each >= 1 - bound for each in full.values()), full


@given(st.integers(1, 8), st.integers(2, 5), st.randoms(use_true_random=False))
def test_nothing_moves_while_all_are_within_20_percent_and_no_group_is_divided(
    groups: int, count: int, rng: random.Random
) -> None:
    members = dict.fromkeys("abcdef"[:count], 1.0)
    loads = [
        Load(f"{member}{number}", f"{member}{number % groups}", rng.uniform(85, 115))
        for member in members
        for number in range(20)
    ]
    owners = {load.name: load.name[0] for load in loads}
    if all(abs(each - 1) <= TOLERANCE for each in fullness(loads, members, owners).values()):
        assert place(loads, members, owners) == owners


@given(fine(), st.sampled_from("abcdef"))
def test_a_member_that_leaves_moves_only_its_own(case: tuple[list[Load], dict[str, float]], gone: str) -> None:
    loads, members = case
    each_alone = [load._replace(group=load.name) for load in loads]
    before = place(each_alone, members, {})
    left = {member: weight for member, weight in members.items() if member != gone}
    if left:
        after = place(each_alone, left, before)
        assert moved(before, after).keys() == {name for name, owner in before.items() if owner == gone}


@given(fine())
def test_a_member_that_joins_gets_its_share_and_nobody_else_gets_anything(
    case: tuple[list[Load], dict[str, float]],
) -> None:
    loads, members = case
    each_alone = [load._replace(group=load.name) for load in loads]
    before = place(each_alone, members, {})
    joined = {**members, "z": min(members.values())}
    after = place(each_alone, joined, before)
    assert {to for _, to in moved(before, after).values()} <= {"z"}
    assert abs(fullness(each_alone, joined, after)["z"] - 1) <= TOLERANCE + 0.01
