"""Watchers added, changed, followed and restored, over servers in memory."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.control.changes import CHECKED_AT_ONCE
from app.control.refusals import MOST_TOLD
from app.control.registry import Addition, Registry
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import (
    Conflict,
    FieldProblem,
    Invalid,
    NotAuthorised,
    NotFound,
    Outdated,
    SinkUnavailable,
    SourceUnavailable,
    StoreUnavailable,
    Unavailable,
)
from app.domain.lifecycle import Desired, State
from app.domain.position import Checkpoint
from app.domain.watcher import Source, Start, Watcher
from tests.fakes import BEGIN, FakeCheckpoints
from tests.unit.deployment import Fakes, until, until_state, watcher

ORDERS = watcher("orders")


async def running(registry: Registry, one: Watcher = ORDERS, **options: Any) -> None:
    await registry.add(one, **options)
    await until_state(registry, one.name, State.RUNNING)


async def test_an_added_watcher_publishes_what_happens_from_then_on(fakes: Fakes, registry: Registry) -> None:
    fakes.oplog.happen()
    await running(registry)
    tokens = [fakes.oplog.happen() for _ in range(5)]
    await until(lambda: len(fakes.stream().messages) == 5)
    assert fakes.stream().published() == tokens
    async with asyncio.timeout(10):  # counted once acknowledged
        while (await registry.watcher("orders")).status.published != 5:
            await asyncio.sleep(0.001)


async def test_what_happens_between_adding_and_the_first_opening_is_not_lost(fakes: Fakes, registry: Registry) -> None:
    fakes.oplog.happen()
    await registry.add(ORDERS, paused=True)
    await registry.close()
    tokens = [fakes.oplog.happen() for _ in range(3)]
    again = fakes.registry()
    again.start()
    await until(lambda: again.ready() is None)
    await again.resume("orders")
    await until(lambda: len(fakes.stream().messages) == 3)
    assert fakes.stream().published() == tokens
    await until(lambda: fakes.watchers.stored["orders"].begin is None)
    await again.close()


async def test_a_watcher_that_is_removed_while_all_lags_are_asked_for_is_left_out(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("items", "orders"):
        await registry.add(watcher(name), paused=True)
    read, removals = FakeCheckpoints.read, list[str]()

    async def slow(checkpoints: FakeCheckpoints) -> Checkpoint | None:
        if not removals:
            removals.append("orders")
            await registry.remove("orders")
        return await read(checkpoints)

    monkeypatch.setattr(FakeCheckpoints, "read", slow)
    assert list(await registry.lags()) == ["items"]


async def test_a_pause_is_stored_and_nothing_is_missing_after_it(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    before = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    assert (await registry.pause("orders")).status.state is State.PAUSED
    assert fakes.watchers.stored["orders"].desired is Desired.PAUSED
    meanwhile = fakes.oplog.happen()
    assert (await registry.pause("orders")).status.state is State.PAUSED
    await registry.resume("orders")
    await until(lambda: len(fakes.stream().messages) == 2)
    assert fakes.stream().published() == [before, meanwhile]


async def test_a_dry_run_changes_nothing(fakes: Fakes, registry: Registry) -> None:
    view = await registry.add(ORDERS, dry_run=True)
    assert view.stored.watcher == ORDERS
    view, created = await registry.put(ORDERS, dry_run=True)
    assert created
    assert fakes.watchers.stored == {}
    await running(registry)
    replaced, created = await registry.put(replace(ORDERS, on_history_lost="fail"), paused=True, dry_run=True)
    assert not created
    assert replaced.stored.desired is Desired.PAUSED
    assert fakes.watchers.stored["orders"].desired is Desired.RUNNING
    assert not fakes.nats.streams["ORDERS"].messages


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Invalid(problems=(FieldProblem("source.pipeline", "unknown stage $foo"),)), Invalid),
        (Conflict("the stream's subjects do not cover ORDERS.*"), Conflict),
        (SinkUnavailable("connection refused"), Unavailable),
        (NotAuthorised("not allowed to read shop.orders"), Conflict),
    ],
)
async def test_what_a_server_refuses_is_not_added(
    fakes: Fakes, registry: Registry, refusal: Exception, kind: type[Exception]
) -> None:
    fakes.nats.refusal = refusal
    with pytest.raises(kind, match=str(refusal).split(":")[-1].strip(" $")[:10]):
        await registry.add(ORDERS)
    assert fakes.watchers.stored == {}
    assert await registry.watchers() == []


async def test_names_and_subjects_are_taken_once(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    with pytest.raises(Conflict, match="already"):
        await registry.add(ORDERS)
    with pytest.raises(Conflict, match="would publish to"):
        await registry.add(replace(watcher("items"), sink=ORDERS.sink))
    with pytest.raises(Invalid, match=r"source\.database"):
        await registry.add(replace(watcher("items"), source=Source("admin", "items")))
    with pytest.raises(NotFound, match="no watcher nobody"):
        await registry.watcher("nobody")
    for call in (registry.pause, registry.resume, registry.restart, registry.lag, registry.token, registry.remove):
        with pytest.raises(NotFound):
            await call("nobody")


async def test_two_that_overlap_and_are_added_at_once_do_not_both_get_in(fakes: Fakes, registry: Registry) -> None:
    rival = replace(watcher("rival"), sink=ORDERS.sink)
    results = await asyncio.gather(registry.add(ORDERS), registry.add(rival), return_exceptions=True)
    assert [type(result) for result in results].count(Conflict) == 1
    assert len(fakes.watchers.stored) == 1


async def test_a_replaced_watcher_goes_on_where_it_was(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    tokens = [fakes.oplog.happen("insert"), fakes.oplog.happen("delete")]
    await until(lambda: len(fakes.stream().messages) == 2)
    view, created = await registry.put(replace(ORDERS, sink=replace(ORDERS.sink, operations=("delete",))))
    assert not created
    assert view.stored.revision == 2
    fakes.oplog.happen("insert")
    tokens.append(fakes.oplog.happen("delete"))
    await until(lambda: len(fakes.stream().messages) == 3)
    assert fakes.stream().published() == tokens


async def test_a_watcher_that_changes_its_stream_goes_on_there(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    before = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    await registry.put(replace(ORDERS, sink=replace(ORDERS.sink, stream="ORDERS2")))
    after = fakes.oplog.happen()
    await until(lambda: fakes.stream("ORDERS2").messages)
    assert fakes.stream().published() == [before]
    assert fakes.stream("ORDERS2").published() == [after]


async def test_a_watcher_stays_with_its_collection(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    with pytest.raises(Conflict, match="stays with its collection"):
        await registry.put(replace(ORDERS, source=Source("shop", "other")))
    assert (await registry.watcher("orders")).stored.revision == 1


async def test_a_replacement_that_cannot_be_stored_leaves_the_old_one_running(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    store, fakes.watchers.replace = fakes.watchers.replace, _unreachable  # type: ignore[assignment, method-assign]
    with pytest.raises(Unavailable):
        await registry.put(replace(ORDERS, sink=replace(ORDERS.sink, operations=("delete",))))
    fakes.watchers.replace = store  # type: ignore[method-assign]
    await until_state(registry, "orders", State.RUNNING)
    token = fakes.oplog.happen("insert")
    await until(lambda: fakes.stream().messages)
    assert fakes.stream().published() == [token]


async def _unreachable(*_: Any, **__: Any) -> None:
    raise SourceUnavailable("connection refused")


async def test_removed_with_its_checkpoint_kept_it_continues_when_it_comes_back(
    fakes: Fakes, registry: Registry
) -> None:
    await running(registry)
    first = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    await registry.remove("orders")
    assert await registry.watchers() == []
    second = fakes.oplog.happen()
    await running(registry)
    await until(lambda: len(fakes.stream().messages) == 2)
    assert fakes.stream().published() == [first, second]


async def test_removed_with_its_checkpoint_an_explicit_start_begins_a_new_epoch(
    fakes: Fakes, registry: Registry
) -> None:
    await running(registry)
    first = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    await registry.remove("orders", delete_checkpoint=True)
    await running(registry, replace(ORDERS, start=Start("earliest")), explicit_start=True)
    await until(lambda: len(fakes.stream().messages) == 2)
    assert [message.change.id for message in fakes.stream().messages] == [first, f"{first}:1"]
    await until(lambda: not fakes.watchers.stored["orders"].new_start)


async def test_a_rewind_publishes_again_from_there_once(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    tokens = [fakes.oplog.happen() for _ in range(6)]
    await until(lambda: len(fakes.stream().messages) == 6)
    with pytest.raises(Conflict, match="pause it first"):
        await registry.set_token("orders", Start("token", tokens[2]))
    await registry.pause("orders")
    view = await registry.set_token("orders", Start("token", tokens[2]))
    assert (view.token, view.epoch, view.stream_sequence) == (tokens[2], 1, None)
    assert (await registry.token("orders")).token == tokens[2]
    await registry.resume("orders")
    await until(lambda: len(fakes.stream().messages) == 9)
    ids = [message.change.id for message in fakes.stream().messages]
    assert ids == tokens + [f"{token}:1" for token in tokens[3:]]


async def test_a_position_that_cannot_be_is_refused_and_the_old_one_stays(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    await registry.pause("orders")
    before = await registry.token("orders")
    fakes.oplog.first = 100
    with pytest.raises(Invalid, match="does not reach back"):
        await registry.set_token("orders", Start("timestamp", BEGIN + 1.0))
    assert await registry.token("orders") == before


async def test_a_reset_goes_back_to_the_watchers_own_start(fakes: Fakes, registry: Registry) -> None:
    fakes.oplog.happen()
    await running(registry, replace(ORDERS, start=Start("earliest")))
    await until(lambda: fakes.stream().messages)
    await registry.pause("orders")
    view = await registry.reset_token("orders")
    assert view.epoch == 1
    await registry.resume("orders")
    await until(lambda: len(fakes.stream().messages) == 2)


async def test_a_paused_watcher_is_not_restarted(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    assert (await registry.restart("orders")).status.state is State.STARTING
    await registry.pause("orders")
    with pytest.raises(Conflict, match="is paused"):
        await registry.restart("orders")


async def test_no_watcher_watches_where_another_keeps_its_position(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    tokens = Source("resume-tokens", "orders")
    with pytest.raises(Conflict, match=r"watch resume-tokens\.orders, where watcher orders keeps its position"):
        await registry.add(replace(watcher("tokens"), source=tokens))
    with pytest.raises(Conflict, match="which watcher orders watches: each checkpoint would be a change"):
        await registry.add(replace(watcher("items"), checkpoint=CheckpointPlace("shop", "orders")))
    assert list(fakes.watchers.stored) == ["orders"]


async def test_a_pause_does_not_wipe_what_went_wrong_before(fakes: Fakes, registry: Registry) -> None:
    fakes.stream().misfortune = SinkUnavailable("connection refused")
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RETRYING)
    fakes.stream().misfortune = None
    await until_state(registry, "orders", State.RUNNING)
    before = (await registry.watcher("orders")).status
    assert before.restarts
    await registry.pause("orders")
    after = (await registry.resume("orders")).status
    assert (after.restarts, after.last_error) == (before.restarts, before.last_error)


async def test_a_failed_watcher_makes_health_say_so_and_resume_tries_again(fakes: Fakes, registry: Registry) -> None:
    fakes.stream().subjects = ["OTHER.*"]
    fakes.stream().exists = True
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.FAILED)
    health = await registry.health()
    assert "do not cover" in str(health.components["watchers"].reason)
    assert health.components["watchers"].counts == {"FAILED": 1}
    fakes.stream().subjects = ["ORDERS.*"]
    await registry.resume("orders")
    await until_state(registry, "orders", State.RUNNING)


async def test_lag_is_told_for_paused_watchers_too(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    await registry.pause("orders")
    for _ in range(30):
        fakes.oplog.happen()
    await fakes.probes[-1].look()
    lag = await registry.lag("orders")
    assert lag.seconds is not None
    assert lag.seconds >= 29.0
    assert lag.oplog_headroom_seconds is not None
    assert lag.last_event_at is not None
    assert (await registry.lags()).keys() == {"orders"}
    registry.observe_positions()


async def test_a_watcher_without_a_position_has_no_lag(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS, paused=True)
    lag = await registry.lag("orders")
    assert (lag.seconds, lag.oplog_headroom_why) == (None, "the watcher has no position yet")
    assert (await registry.token("orders")).token is None


async def test_a_removal_whose_checkpoint_cannot_be_deleted_changes_nothing(fakes: Fakes, registry: Registry) -> None:
    await running(registry)
    fakes.mongo.undeletable = StoreUnavailable("no primary")
    with pytest.raises(Unavailable, match="no primary"):
        await registry.remove("orders", delete_checkpoint=True)
    await until_state(registry, "orders", State.RUNNING)
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [token])
    fakes.mongo.undeletable = None
    await registry.remove("orders", delete_checkpoint=True)
    assert fakes.watchers.stored == {}
    assert [place for place in fakes.mongo.places.values() if place] == []


async def test_a_change_that_expects_another_revision_changes_nothing(fakes: Fakes, registry: Registry) -> None:
    first = (await registry.add(watcher("orders"))).stored.revision
    await registry.pause("orders")
    now = (await registry.watcher("orders")).stored
    assert now.revision > first
    old = frozenset({first})
    for outdated in (
        registry.put(watcher("orders", full_document="default"), expected=old),
        registry.remove("orders", expected=old),
        registry.pause("orders", expected=old),
        registry.resume("orders", expected=old),
        registry.restart("orders", expected=old),
        registry.set_token("orders", Start("latest"), expected=old),
        registry.reset_token("orders", expected=old),
        registry.put(watcher("absent"), expected="any"),
        registry.put(watcher("absent"), expected=frozenset()),
    ):
        with pytest.raises(Outdated, match="nothing was changed"):
            await outdated
    assert list(fakes.watchers.stored.values()) == [now]
    view, added = await registry.put(
        watcher("orders", full_document="default"), paused=True, expected=frozenset({now.revision, first})
    )
    assert not added
    await registry.resume("orders", expected="any")
    await registry.remove("orders", expected=frozenset({view.stored.revision + 1}))


async def test_another_instances_change_is_seen_by_what_expects_a_revision(fakes: Fakes, registry: Registry) -> None:
    seen = (await registry.add(watcher("orders"), paused=True)).stored
    await fakes.watchers.replace(seen, expected_revision=seen.revision)
    with pytest.raises(Outdated):
        await registry.remove("orders", expected=frozenset({seen.revision}))
    assert "orders" in fakes.watchers.stored


# Several at once


def additions(*names: str) -> list[Addition]:
    return [Addition(watcher(name)) for name in names]


async def test_a_list_is_added_in_one_change_and_each_of_it_runs(fakes: Fakes, registry: Registry) -> None:
    views = await registry.add_all([*additions("b", "a"), Addition(watcher("c"), paused=True)])
    assert [view.stored.name for view in views] == ["b", "a", "c"]
    assert len({one.revision for one in fakes.watchers.stored.values()}) == 1
    for name, state in (("a", State.RUNNING), ("b", State.RUNNING), ("c", State.PAUSED)):
        await until_state(registry, name, state)


async def test_of_a_list_with_one_that_cannot_be_none_is_added(fakes: Fakes, registry: Registry) -> None:
    await registry.add(watcher("orders"))
    taken = replace(watcher("d"), sink=replace(watcher("d").sink, stream="ORDERS"))
    wrong = replace(watcher("d"), sink=replace(watcher("d").sink, stream="a.b"))
    twin = replace(watcher("d"), sink=replace(watcher("d").sink, stream="B"))
    for last, error, said in (
        (watcher("orders"), Conflict, r"\[2\] there is a watcher orders already"),
        (taken, Conflict, r"\[2\] d would publish to ORDERS\.\*, which watcher orders uses"),
        (twin, Conflict, r"\[2\] d would publish to B\.\*, which watcher b uses"),
        (wrong, Invalid, r"\[2\]\.sink\.stream"),
        (watcher("a"), Invalid, r"\[2\]\.name: is also the name of \[0\]"),
    ):
        for dry_run in (False, True):
            with pytest.raises(error, match=said):
                await registry.add_all([*additions("a", "b"), Addition(last)], dry_run=dry_run)
    assert list(fakes.watchers.stored) == ["orders"]
    assert [view.stored.name for view in await registry.watchers()] == ["orders"]


async def test_what_a_server_refuses_of_a_list_is_named_by_its_place(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fakes.mongo.check_source

    async def check(one: Watcher) -> str:
        if one.name == "b":
            raise Invalid(problems=(FieldProblem("source.pipeline", "is refused"),))
        return await plain(one)

    monkeypatch.setattr(fakes.mongo, "check_source", check)
    with pytest.raises(Invalid) as refused:
        await registry.add_all(additions("a", "b", "c"))
    assert [each.field for each in refused.value.problems] == ["[1].source.pipeline"]
    fakes.nats.refusal = Unavailable("NATS is gone")
    with pytest.raises(Unavailable, match="NATS is gone"):
        await registry.add_all(additions("a", "c"))
    assert fakes.watchers.stored == {}


async def test_servers_are_not_asked_about_what_nobody_is_told_any_more(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def check(one: Watcher) -> str:
        asked.append(one.name)
        raise Invalid(problems=(FieldProblem("source.pipeline", "is refused"),))

    monkeypatch.setattr(fakes.mongo, "check_source", check)
    names = [f"w{number:03}" for number in range(300)]
    with pytest.raises(Invalid) as refused:
        await registry.add_all(additions(*names))
    assert MOST_TOLD <= len(asked) < MOST_TOLD + CHECKED_AT_ONCE
    assert [each.watcher for each in refused.value.problems] == asked
    assert fakes.watchers.stored == {}


async def test_a_list_can_be_tried_out(fakes: Fakes, registry: Registry) -> None:
    views = await registry.add_all(additions("a", "b"), dry_run=True)
    assert [view.stored.name for view in views] == ["a", "b"]
    assert fakes.watchers.stored == {}
