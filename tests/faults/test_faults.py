"""The runner in its shortest form, and its plan; `make faults` is the long one."""

import json
from itertools import islice
from pathlib import Path

import pytest

from tests.faults.catalogue import FAULTS, LONG_FROZEN_SECONDS
from tests.faults.run import Plan, run
from tests.faults.testbed import Load

SHORT = (
    "nats-kill-leader",
    "mongo-stepdown",
    "zombie",
    "batch-reset-r1",
)
REST = (
    "link-nats-no-ack",
    "batch-foreign-r3",
    "batch-purged-r1",
    "stream-recreated-with-gap",
)
CROWDED = ("crowd-paused", "crowd-let-go")
SHARING = ("instances-killed", "instances-zombie-r3")
SNAPSHOT = ("snapshots-killed-within-rows",)
SNAPSHOT_REST = ("snapshots-stopped-after-plan", "snapshots-mongo-stepdown")
NEWER = ("mongo-kill-primary", "service-kill")
SILENCE_SECONDS = 2.0
"""The standby's patience: a fifth of its default, so that a takeover is soon."""

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(600)]


async def test_half_a_minute_of_faults_on_a_newer_mongod(
    newer_mongod: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "run.json"
    load = Load(writers=3, pause=0.05, bulk=100)
    plan = Plan(seed=1, names=NEWER, load=load, good=5.0, silence=SILENCE_SECONDS, mongod=newer_mongod, json=found)
    assert await run(plan) == 0, capsys.readouterr().out
    assert "mongod 6.0.5," not in json.loads(found.read_text())["versions"]


@pytest.mark.parametrize("names", [SHORT, REST], ids=["some", "the rest"])
async def test_a_minute_of_faults_loses_doubles_reorders_and_alters_nothing(
    capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    # Whatever else the machine does: few writers, and a lag that is judged generously.
    plan = Plan(seed=1, names=names, load=Load(writers=3, pause=0.05, bulk=100), good=5.0, silence=SILENCE_SECONDS)
    assert await run(plan) == 0, capsys.readouterr().out


async def test_forty_watchers_get_everything_while_some_of_them_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(seed=1, names=CROWDED, load=Load(writers=3, pause=0.05, bulk=100), good=5.0, silence=SILENCE_SECONDS)
    assert await run(plan) == 0, capsys.readouterr().out


async def test_three_instances_lose_nothing_while_one_dies_and_another_one_is_replaced_and_comes_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = Plan(seed=1, names=SHARING, load=Load(writers=3, pause=0.05, bulk=100), good=5.0)
    assert await run(plan) == 0, capsys.readouterr().out


@pytest.mark.parametrize("names", [SNAPSHOT, SNAPSHOT_REST], ids=["one", "the rest"])
async def test_snapshots_have_each_document_once_though_services_die_and_freeze_within_a_chunk(
    capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    load = Load(writers=3, pause=0.05, bulk=100)
    plan = Plan(seed=1, names=names, load=load, good=5.0, silence=SILENCE_SECONDS)
    assert await run(plan) == 0, capsys.readouterr().out


def schedule(seed: int, rounds: int) -> list[tuple[str, float]]:
    """The faults of so many rounds, each with its first draw."""
    found: list[tuple[str, float]] = []
    steps = Plan(seed, minutes=1).steps()
    while len(found) < rounds * len(FAULTS):
        step = next(steps)
        found += [(fault.name, step.draw.random()) for fault in step.faults]
    return found


def test_a_seed_replays_its_schedule_in_which_each_round_has_every_fault() -> None:
    assert schedule(5, 3) == schedule(5, 3)
    assert schedule(5, 1) != schedule(6, 1)
    names, count = [name for name, _ in schedule(5, 3)], len(FAULTS)
    assert len(names) == 3 * count
    for number in range(3):
        assert sorted(names[number * count : (number + 1) * count]) == sorted(FAULTS)


def test_each_fault_comes_alone_first_and_pairs_strike_different_sides() -> None:
    steps = list(islice(Plan(5, minutes=1).steps(), 3 * len(FAULTS)))
    assert all(len(step.faults) == 1 for step in steps[: len(FAULTS)])
    pairs = [step.faults for step in steps if len(step.faults) > 1]
    assert len(pairs) > 10
    assert all(one.side and other.side and one.side != other.side for one, other in pairs)


def test_a_short_run_begins_with_what_strikes_batches_and_freezes_nothing_for_long() -> None:
    steps = list(islice(Plan(5, minutes=5).steps(), len(FAULTS)))
    first = sum(fault.always for fault in FAULTS.values())
    assert sum(step.faults[0].always for step in steps[: first * 3 // 2]) == first
    assert all(step.hold != LONG_FROZEN_SECONDS for step in steps)


def test_without_a_bound_each_fault_comes_once_and_a_process_is_frozen_for_long() -> None:
    steps = list(Plan(5).steps())
    assert sorted(step.name for step in steps) == sorted(FAULTS)
    assert {step.hold for step in steps if "-freeze" in step.name} == {LONG_FROZEN_SECONDS}
