"""The benchmark's section of several instances: what it takes for balanced, when a change has arrived, and its rows."""

from typing import Any, cast

import pytest

from bench import __main__
from bench.instances_rows import result_of
from bench.members import balanced
from bench.stage import Incomplete, Place, Stage
from bench.traffic import Traffic


def record(**counts: int) -> dict[str, dict[str, Any]]:
    """So many watchers of each owner, of one weight."""
    return {
        f"{name}-{each}": {"by": name, "to": None, "weight": 2.0, "group": ""}
        for name, count in counts.items()
        for each in range(count)
    }


class TestBalanced:
    def test_shares_may_differ_by_a_fifth_and_one_watcher(self) -> None:
        assert balanced(record(one=20, two=20, three=20), ["one", "two", "three"])
        assert balanced(record(one=25, two=20, three=15), ["one", "two", "three"])
        assert not balanced(record(one=26, two=20, three=14), ["one", "two", "three"])

    def test_each_instance_has_to_own_a_watcher(self) -> None:
        assert not balanced(record(one=1), ["one", "two"])

    def test_an_owner_has_to_run(self) -> None:
        assert not balanced(record(one=10, two=10, gone=1), ["one", "two"])

    def test_no_watcher_may_be_on_its_way(self) -> None:
        owners = record(one=10, two=10)
        owners["one-3"]["to"] = "two"
        assert not balanced(owners, ["one", "two"])

    def test_a_watcher_that_is_larger_than_a_share_counts_by_its_weight(self) -> None:
        owners = record(one=1, two=30)
        assert not balanced(owners, ["one", "two"])
        owners["one-0"]["weight"] = 60.0
        assert balanced(owners, ["one", "two"])


class _Bus:
    def new_inbox(self) -> str:
        return "inbox"


class _Stage:
    bus = _Bus()


@pytest.fixture
def traffic() -> Traffic:
    """Two places; change n was acknowledged in second n, and arrived 0.1 s later."""
    made = Traffic(cast("Stage", _Stage()), [Place("shop", f"c{each}", f"S{each}") for each in range(2)], 1, 0)
    made.acknowledged = [float(number) for number in range(10)]
    made.arrived = {number: number + 0.1 for number in range(10)}
    return made


class TestTraffic:
    def test_the_worst_delay_is_that_of_what_arrived_since(self, traffic: Traffic) -> None:
        traffic.arrived[2] = 7.5
        assert traffic.worst(0) == traffic.worst(7.5) == 5.5
        assert traffic.worst(7.6) == pytest.approx(0.1)
        assert traffic.worst(20) == 0

    def test_a_change_that_is_here_before_it_is_acknowledged_is_left_out(self, traffic: Traffic) -> None:
        traffic.arrived[10] = 10.0
        assert traffic.worst(9.5) == 0

    async def test_watchers_publish_again_with_the_first_change_made_after_the_kill(self, traffic: Traffic) -> None:
        # Number 4 was on its way in second 3.5; of the first place it is 6 then, of the second 5.
        traffic.arrived[6] = 9.5
        assert await traffic.again([1], since=3.5) == pytest.approx(1.6)
        assert await traffic.again([0, 1], since=3.5) == 6.0
        assert await traffic.again([], since=3.5) == 0

    async def test_what_does_not_arrive_is_told_in_numbers(self, traffic: Traffic) -> None:
        del traffic.arrived[6]
        with pytest.raises(Incomplete, match=r"^1 watchers publish nothing after 0 s$"):
            await traffic.again([0, 1], since=3.5)
        with pytest.raises(Incomplete, match=r"^1 of 10 changes have not arrived after 0 s$"):
            await traffic.all_here()
        traffic.arrived[6] = 6.1
        await traffic.all_here()


def measured(**lists: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("joins", "kills", "stops", "rolling", "mongod", "drains", "checked")
    return {"watchers": 60, "rate": 200, "events": 30_000} | {name: lists.get(name, []) for name in names}


def rows(data: dict[str, Any]) -> dict[str, list[str]]:
    return {what: figures for what, *figures in result_of(data).table[1:]}


def verdicts(data: dict[str, Any]) -> list[bool]:
    return [each.met for each in result_of(data).targets]


def used(what: str, rate: int, mongod: float) -> dict[str, Any]:
    """`mongod`: ms per change, and per cent of a core."""
    cpu_ms = {"mongod": mongod, "service": 3.0}
    cpu = {"mongod": mongod / 100, "service": 0.03}
    return {"what": what, "rate": rate, "cpu": cpu, "cpu_ms": cpu_ms, "others_share": 0.02}


def drained(instances: int, rate: float, service: float) -> dict[str, Any]:
    cpu = {"service": service, "mongod": 10.0, "nats": 10.0, "bench": 99.0}
    return {"instances": instances, "rate": rate, "cpu_us": cpu, "others_share": 0.01}


class TestRows:
    def test_nothing_measured_is_no_row(self) -> None:
        assert rows(measured()) == {}

    def test_kills_are_judged_by_their_median_and_their_worst(self) -> None:
        data = measured(kills=[{"seconds": seconds, "worst": 5.0} for seconds in (5.0, 5.5, 8.5)])
        title = "kill -9, until the last of its watchers publishes again, s"
        assert rows(data)[f"{title}: median of 3"] == ["≤ 7", "5.50"]
        assert rows(data)[f"{title}: p99"] == ["≤ 8", "8.50"]
        assert verdicts(data) == [True, False]

    def test_what_is_done_on_purpose_is_judged_by_its_time_and_by_the_worst_delay(self) -> None:
        data = measured(
            joins=[{"seconds": seconds, "worst": 0.4} for seconds in (2.0, 3.0)],
            stops=[{"seconds": 0.5, "worst": 1.25}],
            rolling=[{"worst": 1.5}, {"worst": 2.5}],
        )
        assert rows(data) == {
            "SIGTERM, until the last of its watchers has another owner, s": ["≤ 1", "0.50"],
            "SIGTERM, worst delay of a change, s": ["≤ 1", "1.25"],
            "join, from the start of the process until balanced, s": ["≤ 8", "2.50 (worst of 2: 3.00)"],
            "join, worst delay of a change, s": ["≤ 1", "0.40"],
            "rolling restart of three, worst delay of a change, s": ["≤ 2", "2.50"],
        }
        assert verdicts(data) == [True, False, True, True, False]

    def test_mongod_is_judged_per_change_and_shown_per_second_where_nothing_is_written(self) -> None:
        runs = [used("one", 200, 1.0), used("two", 200, 1.25), used("one", 0, 2.0), used("two", 0, 4.0)]
        assert rows(measured(mongod=runs)) == {
            "200 changes/s: mongod / service with one instance, ms a change": ["", "1.00 / 3.00"],
            "200 changes/s: mongod with two, against one": ["≤ 1.1 ×", "1.25 × (1.25 / 3.00)"],
            "nothing written: mongod / service with one instance, of a core": ["", "2.0% / 3.0%"],
            "nothing written: mongod with two, against one": ["", "2.00 × (4.0% / 3.0%)"],
        }
        assert verdicts(measured(mongod=runs)) == [False]

    def test_two_that_drain_are_judged_by_the_processor_time_of_all_processes(self) -> None:
        runs = [drained(1, 1000.0, 20.0), drained(2, 1500.0, 22.0)]
        found = rows(measured(drains=runs))
        assert found["two drain against one, events/s"] == ["", "1.50 ×"]
        title = "two drain against one, processor time per event of all processes"
        assert found[title] == ["≤ 1.1 ×", "1.05 × (1.10 / 1.00 / 1.00)"]
        assert verdicts(measured(drains=runs)) == [True]
        assert rows(measured(drains=runs[:1])) == {}

    def test_each_change_counts(self) -> None:
        data = measured() | {"checked": [27_000, 300]}
        assert rows(data) == {"each change once and in order on its stream": ["all", "27,300 of 27,300"]}


def test_a_short_run_kills_less_often() -> None:
    assert __main__.parse([]).kills == 20
    assert __main__.parse(["--quick"]).kills == 2
