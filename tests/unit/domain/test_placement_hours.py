"""Hours of placement, a step a minute: what noise, days, and members that come and go may move, and what not."""

import math
import random
from collections.abc import Iterator, Mapping

import pytest

from app.domain.measured import worth_telling
from app.domain.placement import TOLERANCE, Load, place, shares
from tests.unit.domain.placed import fullness, moved, parts

NOISE = 0.15


class Rates:
    """The smoothed rates of some watchers: each wanders by `NOISE` about its own, which follows its group's day."""

    def __init__(self, count: int, groups: int, seed: int, day: float = 0.0) -> None:
        self._rng = random.Random(seed)
        self._usual = {f"w{number:03}": self._rng.uniform(1, 40) for number in range(count)}
        self.group = {name: f"g{number % groups}" for number, name in enumerate(self._usual)}
        self._noise = dict.fromkeys(self._usual, 0.0)
        self._day = day
        """How far a day takes a rate up and down, as a part of it."""
        self._noon = {f"g{number}": self._rng.choice([0, 8, 16]) for number in range(groups)}

    def at(self, minute: int) -> dict[str, float]:
        rates = {}
        for name, usual in self._usual.items():
            wandered = 0.8 * self._noise[name] + self._rng.gauss(0, 0.04)
            self._noise[name] = max(-NOISE, min(NOISE, wandered))
            hours = minute / 60 - self._noon[self.group[name]]
            daily = 1 + self._day * math.cos(hours / 24 * 2 * math.pi)
            rates[name] = max(1.0, usual * daily * (1 + self._noise[name]))
        return rates

    def loads(self, rates: Mapping[str, float]) -> list[Load]:
        return [Load(name, self.group[name], rate) for name, rate in rates.items()]

    def told(self, minutes: int) -> Iterator[list[Load]]:
        """Each minute's weights as the others know them: told only after they have changed a lot."""
        told: dict[str, float] = {}
        for minute in range(minutes):
            for name, rate in self.at(minute).items():
                if name not in told or worth_telling(told[name], rate):
                    told[name] = rate
            yield self.loads(told)


def even(count: int) -> dict[str, float]:
    return {f"m{number}": 1.0 for number in range(count)}


@pytest.mark.parametrize(
    ("count", "groups", "members"), [(60, 6, 3), (60, 60, 3), (60, 1, 3), (200, 10, 5), (20, 20, 3)]
)
def test_noise_moves_nothing_in_ten_hours(count: int, groups: int, members: int) -> None:
    for seed in range(2):
        rates = Rates(count, groups, seed)
        start = place(rates.loads(rates.at(0)), even(members), {})
        for minute in range(1, 600):
            assert place(rates.loads(rates.at(minute)), even(members), start) == start


def test_after_members_came_and_went_noise_moves_only_what_brings_a_group_together() -> None:
    """For a reunion two members have to be near their shares: noise may show that they are. It is not undone."""
    moves = 0
    for seed in range(5):
        rates = Rates(60, 6, seed)
        owners: dict[str, str] = {}
        for members in (1, 2, 3, 4, 3, 2, 3):
            owners = place(rates.loads(rates.at(0)), even(members), owners)
            for minute in range(60):
                loads = rates.loads(rates.at(minute))
                placed = place(loads, even(members), owners)
                assert placed == owners or parts(loads, placed) < parts(loads, owners)
                moves, owners = moves + len(moved(owners, placed)), placed
    assert moves < 2 * 35, "in 35 hours"


@pytest.mark.parametrize("count", [5, 7, 10, 20, 60])
def test_noise_is_never_told_so_even_few_heavy_watchers_stay(count: int) -> None:
    for seed in range(3):
        owners: dict[str, str] = {}
        for loads in Rates(count, 3, seed).told(600):
            placed = place(loads, even(3), owners)
            assert not owners or placed == owners
            owners = placed


def test_a_day_that_all_have_in_common_moves_nothing() -> None:
    rates = Rates(60, 6, seed=1, day=0.6)
    rates._noon = dict.fromkeys(rates._noon, 12)
    owners = place(rates.loads(rates.at(0)), even(3), {})
    for minute in range(24 * 60):
        assert place(rates.loads(rates.at(minute)), even(3), owners) == owners


@pytest.mark.parametrize(
    ("count", "groups", "members", "often"), [(60, 6, 3, 1.5), (60, 60, 3, 0.1), (200, 10, 5, 1.5)]
)
def test_days_at_different_times_move_what_they_have_to(count: int, groups: int, members: int, often: float) -> None:
    """The rates of a group change by a factor of four, and while one has its noon another has its night."""
    for seed in 1, 2:
        rates, owners, moves = Rates(count, groups, seed, day=0.6), dict[str, str](), 0
        for loads in rates.told(24 * 60):
            placed = place(loads, even(members), owners)
            moves += len(moved(owners, placed))
            owners = placed
            full = fullness(loads, even(members), owners)
            assert all(abs(each - 1) <= TOLERANCE + 0.01 for each in full.values()), full
        assert moves <= often * count, "moves for each watcher in a day"


def test_members_that_come_and_go_all_day_move_their_shares() -> None:
    rates, members, owners = Rates(60, 60, seed=4), even(3), dict[str, str]()
    rng = random.Random(5)
    for minute in range(24 * 60):
        loads = rates.loads(rates.at(minute))
        before = set(members)
        if minute % 30 == 10:
            if len(members) > 2 and (len(members) > 4 or rng.random() < 0.5):
                del members[rng.choice(sorted(members))]
            else:
                members[f"m{minute}"] = 1.0
        placed = place(loads, members, owners)
        ways = moved(owners, placed)
        came_or_went = before ^ members.keys()
        assert all(came_or_went & set(way) for way in ways.values()), "nobody else exchanges anything"
        if came_or_went:
            weight = sum(load.weight for load in loads if load.name in ways)
            fewest = min(len(before), len(members))
            share = shares([load.weight for load in loads], even(fewest))["m0"]
            assert weight <= (1 + TOLERANCE) * share
        owners = placed
