"""The runner in its shortest form, and its plan; `make faults` is the long one."""

from itertools import islice

import pytest

from tests.faults.catalogue import FAULTS
from tests.faults.run import Plan, run

SHORT = ("nats-kill-leader", "mongo-stepdown", "link-nats-no-ack", "zombie")


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_a_minute_of_faults_loses_doubles_reorders_and_alters_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(Plan(seed=1, names=SHORT)) == 0, capsys.readouterr().out


def schedule(seed: int) -> list[tuple[str, float]]:
    rounds = Plan(seed, minutes=1).rounds()
    return [(fault.name, draw.random()) for fault, _, draw in islice(rounds, 2 * len(FAULTS))]


def test_a_seed_replays_its_schedule_in_which_each_round_has_every_fault() -> None:
    assert schedule(5) == schedule(5)
    assert schedule(5) != schedule(6)
    names = [name for name, _ in schedule(5)]
    assert sorted(names[: len(FAULTS)]) == sorted(names[len(FAULTS) :]) == sorted(FAULTS)


def test_without_a_bound_each_fault_comes_once() -> None:
    assert len(list(Plan(5).rounds())) == len(FAULTS)
