"""What this instance's watchers weigh is measured, and told where it changes much."""

from types import SimpleNamespace
from typing import Any

from app.control.share import Share
from app.control.weights import Weights
from app.domain.instances import Member, Owner, Owners
from app.pipeline.run_statistics import RunStatistics
from tests.fakes import FakeInstances, FakeInstanceState


class Bench:
    """One instance that owns some watchers, and the weights that are in the record."""

    def __init__(self, **owners: Owner) -> None:
        self.state = FakeInstanceState(owners=Owners(1, owners))
        self.share = Share(FakeInstances(self.state), Member("a", "session"))
        self.own: dict[str, Any] = {
            name: SimpleNamespace(statistics=RunStatistics()) for name, owner in owners.items() if owner.by == "a"
        }
        self.weights = Weights(self.share, self.own)
        self.now = 0.0

    def has_another(self, name: str) -> None:
        self.state.members[name] = Member(name, "another", since=self.state.now, seen=self.state.now)

    async def pass_by(self, seconds: float, **changes: int) -> None:
        """Let so many changes be published meanwhile, and measure."""
        for name, count in changes.items():
            self.own[name].statistics.published += count
        self.now += seconds
        self.weights.measure(self.now)
        await self.share.written()

    def told(self, name: str) -> float:
        return self.state.owners.of[name].weight


async def test_a_watcher_that_is_busy_for_minutes_weighs_what_it_publishes_and_a_burst_does_not() -> None:
    bench = Bench(orders=Owner("a"), items=Owner("a"))
    await bench.share.join()
    await bench.pass_by(0)
    await bench.pass_by(10, orders=20)
    assert bench.told("orders") == 1.0
    for _ in range(180):
        await bench.pass_by(10, orders=1000)
    assert 50 <= bench.told("orders") <= 100
    assert bench.told("items") == 1.0
    revision = bench.state.owners.revision
    assert revision < 12  # told where it has doubled, not with each measure
    for _ in range(180):
        await bench.pass_by(10)
    assert bench.told("orders") <= 2.0


async def test_a_watcher_that_has_moved_goes_on_from_the_weight_that_was_told() -> None:
    bench = Bench(orders=Owner("a", weight=64.0), other=Owner("b", weight=5.0))
    bench.has_another("b")
    await bench.share.join()
    await bench.pass_by(0)
    for _ in range(6):
        await bench.pass_by(10, orders=640)
    assert bench.told("orders") == 64.0
    bench.share.weigh({"other": 500.0})  # what another instance owns is not its to tell
    await bench.share.written()
    assert bench.told("other") == 5.0


async def test_a_weight_never_takes_the_place_of_a_handover_that_is_not_stored_yet() -> None:
    bench = Bench(orders=Owner("a", to="b"))
    bench.has_another("b")
    await bench.share.join()
    bench.state.owners = Owners(bench.state.owners.revision + 1, {"orders": Owner("a", to="b")})
    await bench.share._record.read()
    bench.share.let_go("orders")
    bench.share.weigh({"orders": 500.0})
    await bench.share.written()
    assert bench.state.owners.of["orders"].by == "b"


async def test_without_a_state_database_nothing_is_told() -> None:
    bench = Bench(orders=Owner("a"))
    bench.share.within_reach(False)
    await bench.pass_by(10, orders=10_000)
    await bench.pass_by(10, orders=10_000)
    assert bench.told("orders") == 1.0
