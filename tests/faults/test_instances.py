"""The form with three instances says of a watcher that none runs, or that two run, and of instances out of balance."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.faults.crowd import Visit
from tests.faults.forms import INSTANCES
from tests.faults.instances import BATCHES_ONE, FAST_ONE, Instances
from tests.faults.run import Plan
from tests.service import Service


class Scripted(Instances):
    """Says what it is told instead of asking."""

    def __init__(self) -> None:
        super().__init__(patience=0.0, good=1.0, silence=1.0)
        self.said: dict[str, set[str]] = {}
        self.record: dict[str, Any] = {}

    async def running(self) -> dict[Service, set[str]]:
        return dict(self.said)  # type: ignore[return-value]  # names do

    async def _owners(self) -> Mapping[str, Mapping[str, Any]]:
        return self.record


@pytest.fixture
def scripted() -> Scripted:
    found = Scripted()
    names = sorted(found.wanted)
    found.said = {"one": set(names[:6]), "two": set(names[6:12]), "three": set(names[12:])}
    return found


def test_eighteen_watchers_are_shared_by_three_instances(scripted: Scripted) -> None:
    assert (len(scripted.wanted), len(scripted.instances)) == (18, 3)
    assert BATCHES_ONE in scripted.replicated
    assert FAST_ONE in scripted.one_replica
    assert Plan(1, names=tuple(INSTANCES)).form is Instances


async def test_each_watcher_has_to_run_once(scripted: Scripted) -> None:
    assert await scripted.spread() is None
    scripted.said["one"].add("s05")
    assert await scripted.spread() == "s05: run by more than one instance"
    for names in scripted.said.values():
        names.discard("s05")
    scripted.record = {"s05": {"by": "gone", "to": None}}
    assert "s05: run by no instance" in str(await scripted.spread())
    assert "gone" in str(await scripted.spread())
    await scripted.settled("after it")
    assert "s05: run by no instance" in scripted.problems[0]


async def test_a_watcher_that_rests_or_was_removed_need_not_run(scripted: Scripted) -> None:
    scripted.visits = [Visit("visitor0", "s00", "first")]
    assert "visitor0" in str(await scripted.spread())
    scripted.visits[0].removed = True
    assert await scripted.spread() is None
    scripted.said["three"].clear()
    scripted.resting = {*scripted.wanted}
    assert await scripted.spread() is None
