"""Two writers of one stream: both right, one standing by, either replaceable; and zombies, which change nothing.

Rivals are two services that know nothing of each other: each has a state database of its own, and both publish the same
collection to the same stream from the same position. Members share a state database, so that one of them owns the
watcher; a frozen one does not know that it was replaced. The fence on the stream keeps both kinds right.
"""

import asyncio
from typing import Any

import pytest

from tests.service import Service, Stage, Trap, assert_same, until

TUNED: dict[str, Any] = {"standby_silence_seconds": 1, "reconcile_seconds": 0.5, "batch_size": 20}
WINDOW = 0.1
"""The duplicate window, in seconds, short enough to pass: it must never be what keeps two writers right."""


def rival(stage: Stage, name: str, *, trap: Trap | None = None) -> Service:
    """A service with a registry of its own."""
    return stage.service(name, trap=trap, state_db=f"{stage.state_database}_{name}", **TUNED)


async def rivals(stage: Stage) -> tuple[Service, Service]:
    """Two running services, the watcher running in both."""
    one, other = rival(stage, "one"), rival(stage, "other")
    await asyncio.gather(one.start(), other.start())
    for service in (one, other):
        await stage.add(service, duplicate_window_seconds=WINDOW)
    return one, other


async def members(stage: Stage) -> tuple[Service, Service]:
    """Two services of one registry: the one that owns the watcher, and the other one."""
    one, other = stage.service("one", **TUNED), stage.service("other", **TUNED)
    await asyncio.gather(one.start(), other.start())
    await stage.add(one, running=False, duplicate_window_seconds=WINDOW)
    owner = await stage.owner()
    return (one, other) if owner is one else (other, one)


async def fenced(stage: Stage, *services: Service) -> list[Service]:
    return [each for each in services if await each.state(stage.watcher) == "FENCED"]


# Rivals


async def test_two_rivals_at_once_put_each_change_on_the_stream_once_and_one_of_them_stands_by(stage: Stage) -> None:
    one, other = await rivals(stage)
    async with stage.load(pause=0):
        standing_by = await until(lambda: fenced(stage, one, other), "one of them is FENCED", within=40)
        assert len(standing_by) == 1, "both stand by"
        await stage.until_length(await stage.length() + 500)
    for service in (one, other):
        await service.until_state(stage.watcher, "RUNNING", "FENCED")
        assert (await service.call("GET", f"/watchers/{stage.watcher}/health")).status_code == 200
    await stage.check()


async def test_two_rivals_started_upon_the_same_backlog_put_each_change_on_the_stream_once(stage: Stage) -> None:
    one, other = await rivals(stage)
    one.kill()
    other.kill()
    await stage.write(2000, at_once=500)
    await asyncio.gather(one.start(), other.start())  # one that has not begun to listen may not be told to stop yet
    await stage.check()


async def test_the_standby_takes_over_when_the_active_one_is_killed_and_when_it_is_terminated(stage: Stage) -> None:
    services = await rivals(stage)
    async with stage.load():
        for how in ("SIGKILL", "SIGTERM"):
            (standby,) = await until(lambda: fenced(stage, *services), "one of them is FENCED", within=40)
            (active,) = [service for service in services if service is not standby]
            if how == "SIGKILL":
                active.kill()
            else:
                assert await active.terminate() == 0, active.log_tail()
            await standby.until_state(stage.watcher, "RUNNING", within=20)
            await stage.until_length(await stage.length() + 100)
            await active.start()
    await stage.check()


# Members: what is changed through any of them binds all, and who takes over too


async def test_a_paused_watcher_stays_paused_where_its_next_owner_is(stage: Stage) -> None:
    owner, other = await members(stage)
    await stage.write(500)
    await stage.until_length(500)
    await other.call("PUT", f"/watchers/{stage.watcher}/pause", status=202)
    owner.kill()
    await until(lambda: _owns(stage, other), "the other one owns it")
    await other.until_state(stage.watcher, "PAUSED")
    await stage.write(500)
    await asyncio.sleep(1)  # the scenario: the time in which a pause that does not bind would show
    assert await stage.held() == 500
    await other.call("PUT", f"/watchers/{stage.watcher}/resume", status=202)
    await stage.check()


async def test_a_removed_watcher_is_unknown_to_the_other_which_can_add_it_again(stage: Stage) -> None:
    owner, other = await members(stage)
    await stage.write(100)
    await stage.until_length(100)
    await other.call("DELETE", f"/watchers/{stage.watcher}", status=204)  # the owner carries it out
    for service in (owner, other):
        await until(lambda service=service: _unknown(stage, service), "nobody knows it any more")  # type: ignore[misc]
    await stage.add(other, running=False, duplicate_window_seconds=WINDOW)  # its checkpoint was kept
    await stage.write(100)
    await stage.check()


async def _unknown(stage: Stage, service: Service) -> bool:
    return (await service.call("GET", f"/watchers/{stage.watcher}")).status_code == 404


async def _owns(stage: Stage, service: Service) -> bool:
    return await stage.owners() == {stage.watcher: service.name}


async def test_changed_at_each_owner_under_load_the_changes_go_on_by_the_new_way_once_and_in_order(
    stage: Stage,
) -> None:
    first, second = await members(stage)
    streams = [stage.stream, f"{stage.stream}_B", f"{stage.stream}_C"]
    async with stage.load(pause=0.01):
        for owner, stream in ((first, streams[1]), (second, streams[2])):
            await until(lambda owner=owner: _owns(stage, owner), f"{owner.name} owns it")  # type: ignore[misc]
            await owner.until_state(stage.watcher, "RUNNING")
            await stage.until_length(await stage.length() + 200)
            changed = stage.described(duplicate_window_seconds=WINDOW) | {"name": stage.watcher}
            changed["sink"]["stream"] = stage.stream = stream
            await owner.call("PUT", f"/watchers/{stage.watcher}", changed, status=200)
            if owner is first:
                assert await first.terminate() == 0, first.log_tail()
        await stage.until_length(200)
    arrived = await asyncio.gather(*(stage.held(stream) for stream in streams[:2]))
    await stage.until_length(len(stage.written) - sum(arrived))
    assert await second.terminate() == 0, second.log_tail()
    messages = [message for stream in streams for message in await stage.messages(stream)]
    assert_same(stage.written, [message.change for message in messages])


async def test_removed_at_its_owner_and_added_at_the_other_for_another_stream_it_goes_on_there(stage: Stage) -> None:
    owner, other = await members(stage)
    before = stage.stream
    async with stage.load(pause=0.01):
        await stage.until_length(200)
        await owner.call("DELETE", f"/watchers/{stage.watcher}", status=204)
        stage.stream = f"{before}_B"
        await stage.add(other, running=False, duplicate_window_seconds=WINDOW)
        await stage.until_length(200)
    await stage.until_length(len(stage.written) - await stage.held(before))
    for service in (owner, other):
        assert await service.terminate() == 0, service.log_tail()
    messages = [*await stage.messages(before), *await stage.messages()]
    assert_same(stage.written, [message.change for message in messages])


# Zombies


async def test_a_writer_frozen_under_load_and_thawed_after_the_takeover_adds_nothing(stage: Stage) -> None:
    one, other = await rivals(stage)
    async with stage.load():
        await stage.until_length(200)
        one.freeze()
        await other.until_state(stage.watcher, "RUNNING", within=20)
        await stage.until_length(await stage.length() + 200)
        await asyncio.sleep(1.5 * WINDOW)  # the scenario: JetStream has forgotten what the zombie will send
        one.thaw()
        await one.until_state(stage.watcher, "RUNNING", "FENCED")
        await stage.until_length(await stage.length() + 200)
    await stage.check()


@pytest.mark.parametrize("moment", ["before-publish", "before-checkpoint"])
async def test_a_zombie_that_thaws_with_a_batch_in_its_hands_adds_nothing(stage: Stage, moment: str) -> None:
    zombie = rival(stage, "zombie", trap=Trap(moment, 3, "STOP"))
    await zombie.start()
    await stage.add(zombie, duplicate_window_seconds=WINDOW)
    async with stage.load():
        await zombie.trapped()
        heir = await rival(stage, "heir").start()
        await stage.add(heir, duplicate_window_seconds=WINDOW)
        await stage.until_length(await stage.length() + 300)
        await asyncio.sleep(1.5 * WINDOW)  # the scenario: JetStream has forgotten what the zombie will send
        before = await stage.checkpoint()
        zombie.thaw()
        await zombie.until_state(stage.watcher, "RUNNING", "FENCED")
        await stage.until_length(await stage.length() + 100)
        after = await stage.checkpoint()
        assert before is not None
        assert after is not None
        assert after["value"] >= before["value"], "the zombie has turned the checkpoint back"
        assert heir.running
    await stage.check()


def _has_let_go(service: Service) -> bool:
    """Whether it says that its watcher has stopped, drained or not."""
    return any(event in service.log.read_text() for event in ("watcher_stopped", "drain_cut_short"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "own_place"), [("before-publish", True), ("before-checkpoint", True), ("before-checkpoint", False)]
)
async def test_a_zombie_that_thaws_after_a_rewind_adds_nothing_of_its_old_epoch(
    stage: Stage, moment: str, own_place: bool
) -> None:
    stage.own_place = own_place
    zombie = stage.service("zombie", trap=Trap(moment, 3, "STOP"), **TUNED)
    await zombie.start()
    await stage.add(zombie, duplicate_window_seconds=WINDOW)
    beginning = await stage.checkpoint()
    assert beginning is not None
    async with stage.load():
        await zombie.trapped()
    held = await stage.length()
    other = await stage.service("other", **TUNED).start()
    await until(lambda: _owns(stage, other), "the other one owns it")
    await other.until_state(stage.watcher, "RUNNING")
    await other.call("PUT", f"/watchers/{stage.watcher}/pause", status=202)
    await other.until_state(stage.watcher, "PAUSED")
    published = [message.change for message in await stage.messages()]
    assert_same(stage.written[: len(published)], published)
    assert len(published) >= held
    await other.call("PUT", f"/watchers/{stage.watcher}/token", {"token": beginning["value"]}, status=200)
    await asyncio.sleep(1.5 * WINDOW)  # the scenario: JetStream has forgotten what the zombie will send
    zombie.thaw()  # its old epoch is over, and nothing of the new one is there yet: the worst moment
    await until(lambda: _has_let_go(zombie), "the zombie lets go")
    assert [message.change for message in await stage.messages()] == published, "the zombie has published"
    await other.call("PUT", f"/watchers/{stage.watcher}/resume", status=202)
    await stage.write(100)
    replayed = list(stage.written)
    stage.written = published + replayed
    await stage.until_length(len(stage.written))
    for service in (zombie, other):
        assert await service.terminate() == 0, service.log_tail()
    messages = await stage.messages()
    assert_same(published, [message.change for message in messages[: len(published)]])
    assert_same(replayed, [message.change for message in messages[len(published) :]])
    assert {message.id.partition(":")[2] for message in messages[: len(published)]} <= {""}
    assert {message.id.partition(":")[2] for message in messages[len(published) :]} == {"1"}


@pytest.mark.long
async def test_a_zombie_that_thaws_once_the_rewound_watcher_replays_adds_nothing_of_its_old_epoch(
    stage: Stage,
) -> None:
    zombie = stage.service("zombie", trap=Trap("before-publish", 3, "STOP"), **TUNED)
    await zombie.start()
    await stage.add(zombie, duplicate_window_seconds=WINDOW)
    beginning = await stage.checkpoint()
    assert beginning is not None
    await stage.write(1000, at_once=200)
    await zombie.trapped()
    other = await stage.service("other", **TUNED).start()
    await until(lambda: _owns(stage, other), "the other one owns it")
    await other.until_state(stage.watcher, "RUNNING")
    await other.call("PUT", f"/watchers/{stage.watcher}/pause", status=202)
    await other.until_state(stage.watcher, "PAUSED")
    published = [message.change for message in await stage.messages()]
    await other.call("PUT", f"/watchers/{stage.watcher}/token", {"token": beginning["value"]}, status=200)
    await other.call("PUT", f"/watchers/{stage.watcher}/resume", status=202)
    await asyncio.sleep(1.5 * WINDOW)  # the scenario: JetStream has forgotten what the zombie will send
    await stage.until_length(len(published) + 1)
    zombie.thaw()
    await until(lambda: _has_let_go(zombie), "the zombie lets go")
    await stage.until_length(len(published) + 1000)
    for service in (zombie, other):
        assert await service.terminate() == 0, service.log_tail()
    messages = await stage.messages()
    assert_same(published + stage.written, [message.change for message in messages])
    assert {message.id.partition(":")[2] for message in messages[len(published) :]} == {"1"}
