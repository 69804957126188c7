"""The service dies, at once and at the worst moments: each change is on the stream once and in order all the same.

`DUPLICATES` are the two cases: one in which the restart still finds its message ids in the duplicate window, and one in
which that window (a tenth of a second) has passed, so that nothing but the fence and the read-back can help.
"""

import asyncio
import random

import pytest

from tests.service import Change, Stage, Trap, until

WINDOW = 0.1
"""The duplicate window that passes, in seconds."""
KILLS = 6
"""How often the service is killed in each case."""
DUPLICATES = pytest.mark.parametrize(
    "window", [120, WINDOW], ids=["within the duplicate window", "after the duplicate window"]
)
PLACES = pytest.mark.parametrize("own_place", [True, False], ids=["a place of its own", "the place of all positions"])


async def let_pass(window: float) -> None:
    """Stay dead until JetStream has forgotten the ids; within a long window, be back at once."""
    if window == WINDOW:
        await asyncio.sleep(1.5 * WINDOW)  # the scenario itself: nothing tells when an id is forgotten


# At random points


@DUPLICATES
async def test_kills_at_random_points_under_load_lose_double_and_reorder_nothing(stage: Stage, window: float) -> None:
    service = await stage.service().start()
    await stage.add(service, duplicate_window_seconds=window)
    draw = random.Random(round(window))
    async with stage.load(pause=0.1):
        for _ in range(KILLS):
            # From the state on, not from the start: else most kills would hit the interpreter's start-up.
            await service.until_state(stage.watcher, "RUNNING")
            await asyncio.sleep(draw.uniform(0, 0.4))  # the random point
            service.kill()
            await let_pass(window)
            await service.start()
    await stage.check()


@pytest.mark.long
async def test_kills_while_the_service_starts_and_catches_up_lose_double_and_reorder_nothing(stage: Stage) -> None:
    service = await stage.service(batch_size=20).start()
    await stage.add(service, duplicate_window_seconds=WINDOW)
    draw = random.Random(7)
    await stage.write(3000, at_once=200)
    for _ in range(6):
        service.kill()
        service.spawn()
        await asyncio.sleep(draw.uniform(0.3, 1.5))  # the random point, anywhere from imports to full speed
    service.kill()
    await stage.write(100)
    await service.start()
    await stage.check()


# Before the first event


async def test_a_watcher_killed_before_its_first_event_delivers_what_was_changed_while_it_was_dead(
    stage: Stage,
) -> None:
    service = await stage.service().start()
    await stage.add(service)
    service.kill()
    await stage.write(500)
    await service.start()
    await stage.check()


async def test_a_watcher_killed_as_soon_as_it_was_added_delivers_what_was_changed_since(stage: Stage) -> None:
    service = await stage.service().start()
    await stage.add(service, running=False)
    service.kill()
    await stage.write(100)
    await service.start()
    await stage.check()


@PLACES
@pytest.mark.parametrize("moment", ["before-first-position", "after-first-position"])
async def test_a_watcher_killed_around_storing_its_first_position_delivers_what_was_changed_since(
    stage: Stage, moment: str, own_place: bool
) -> None:
    stage.own_place = own_place
    service = await stage.service(trap=Trap(moment)).start()
    await stage.add(service, running=False)
    await service.trapped()
    await stage.write(100)
    await service.start()
    await stage.check()


async def test_what_is_changed_right_after_a_watcher_was_added_arrives(stage: Stage) -> None:
    service = await stage.service().start()
    await stage.add(service, running=False)
    await stage.write(100, at_once=1)
    await stage.check()


# At the three moments, and their neighbours


async def die_at(stage: Stage, moment: str, *, nth: int, window: float) -> None:
    """Have the service die at that moment with changes in flight, change more, bring it back, and check."""
    service = await stage.service(batch_size=50, trap=Trap(moment, nth)).start()
    await stage.add(service, duplicate_window_seconds=window)
    async with stage.load():
        await service.trapped()
        assert not service.running
        await let_pass(window)
        await service.start()
    await stage.check()


@DUPLICATES
async def test_killed_before_the_publish(stage: Stage, window: float) -> None:
    await die_at(stage, "before-publish", nth=5, window=window)


async def test_killed_before_the_very_first_publish(stage: Stage) -> None:
    await die_at(stage, "before-publish", nth=1, window=WINDOW)


@DUPLICATES
async def test_killed_while_publishing_fails(stage: Stage, window: float) -> None:
    await die_at(stage, "publish-fails", nth=3, window=window)


async def test_killed_after_the_acknowledgement_was_lost_before_reading_back(stage: Stage) -> None:
    await die_at(stage, "before-read-back", nth=4, window=WINDOW)


@PLACES
@DUPLICATES
async def test_killed_between_the_publish_and_the_checkpoint(stage: Stage, window: float, own_place: bool) -> None:
    stage.own_place = own_place
    await die_at(stage, "before-checkpoint", nth=2, window=window)


async def test_killed_between_the_first_publish_and_the_first_checkpoint(stage: Stage) -> None:
    await die_at(stage, "after-publish", nth=1, window=WINDOW)


async def test_killed_at_the_moment_of_the_acknowledgement(stage: Stage) -> None:
    await die_at(stage, "after-publish", nth=6, window=WINDOW)


@PLACES
async def test_killed_after_the_checkpoint(stage: Stage, own_place: bool) -> None:
    stage.own_place = own_place
    await die_at(stage, "after-checkpoint", nth=2, window=WINDOW)


# Asked to end


async def test_sigterm_under_load_drains_and_the_checkpoint_is_the_end_of_the_stream(stage: Stage) -> None:
    service = await stage.service().start()
    await stage.add(service, duplicate_window_seconds=WINDOW)
    async with stage.load():
        for _ in range(2):
            await stage.until_length(await stage.length() + 300)
            assert await service.terminate() == 0, service.log_tail()
            *_, last = await stage.messages()
            stored = await stage.checkpoint()
            assert stored is not None
            assert stored["sequence"] == last.sequence
            assert stored["value"] >= last.id, "behind what is on the stream"
            await let_pass(WINDOW)
            await service.start()
    await stage.check()


async def test_sigterm_with_a_backlog_leaves_at_once_and_the_rest_follows(stage: Stage) -> None:
    slow = await stage.service("slow", batch_size=1).start()
    await stage.add(slow)
    slow.kill()
    await stage.write(3000, at_once=500)
    await slow.start()
    await stage.until_length(40)
    assert await slow.terminate() == 0, slow.log_tail()
    assert 0 < await stage.held() < 3000, "it has drained what it had not read yet"
    await stage.service().start()
    await stage.check()


async def test_a_drained_service_goes_on_after_the_last_change_and_publishes_nothing_again(stage: Stage) -> None:
    service = await stage.service().start()
    await stage.add(service, duplicate_window_seconds=WINDOW)
    await stage.write(200)
    await stage.until_length(200)
    assert await service.terminate() == 0
    await let_pass(WINDOW)
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    await stage.collection.insert_one({"_id": "last", "n": 0})
    stage.written.append(Change("insert", "last", 0))
    await stage.until_length(201)

    async def published() -> int:  # which is counted a moment after it is on the stream
        return int((await service.status(stage.watcher))["events"]["published"])

    assert await until(published, "a change is counted") == 1
    await until(lambda: service.up(), "/healthz is UP")
    await stage.check()
