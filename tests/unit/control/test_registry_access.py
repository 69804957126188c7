"""What the registry refuses on somebody's order, and what it tells a call's record: namespaces, revisions, audit."""

from collections.abc import Awaitable

import pytest

from app.control import audit
from app.control.registry import Registry
from app.domain.errors import Conflict, Invalid, NotAuthorised, Outdated, StateOutOfReach, Unavailable
from app.domain.lifecycle import State
from app.domain.namespaces import Namespaces
from app.domain.watcher import Start, StoredWatcher, Watcher
from tests.fakes import FakeSource
from tests.unit.deployment import Fakes, until, until_state, watcher


def opened(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The watchers whose collection is read from now on."""
    names: list[str] = []
    plain = fakes.mongo.source

    def source(one: Watcher) -> FakeSource:
        names.append(one.name)
        return plain(one)

    monkeypatch.setattr(fakes.mongo, "source", source)
    return names


async def test_a_collection_that_may_not_be_watched_is_refused_before_anybody_reads_it(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = opened(fakes, monkeypatch)
    registry = fakes.registry(allowed=Namespaces.parse("shop.orders,crm.*"))
    registry.start()
    fakes.mongo.refusal = AssertionError("the collection was looked at")
    for change in (registry.add, registry.put):
        with pytest.raises(Invalid) as refused:
            await change(watcher("people"))
        assert [each.field for each in refused.value.problems] == ["source.collection"]
        assert "shop.orders, crm.*" in str(refused.value)
    assert (read, fakes.watchers.stored) == ([], {})
    fakes.mongo.refusal = None
    await registry.add(watcher("orders"))
    await until_state(registry, "orders", State.RUNNING)
    await registry.close()


async def test_watchers_of_file_and_store_that_may_not_be_any_longer_say_so_and_the_others_run(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = opened(fakes, monkeypatch)
    fakes.watchers.put(StoredWatcher(watcher("people")), StoredWatcher(watcher("orders")))
    registry = fakes.registry(
        from_file=[watcher("letters"), watcher("invoices")], allowed=Namespaces.parse("shop.orders,shop.invoices")
    )
    registry.start()
    for name in ("orders", "invoices"):
        await until_state(registry, name, State.RUNNING)
    for name in ("people", "letters"):
        await until_state(registry, name, State.FAILED)
        view = await registry.watcher(name)
        assert "may be watched: shop.orders, shop.invoices" in str(view.status.reason)
        assert (await registry.resume(name)).status.state is State.FAILED
        assert (await registry.restart(name)).status.state is State.FAILED
        with pytest.raises(Conflict, match="cannot be moved"):
            await registry.set_token(name, Start("earliest"))
    assert set(read) == {"orders", "invoices"}
    await registry.remove("people")
    await registry.close()


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


async def test_the_record_of_a_call_holds_what_it_changed(fakes: Fakes, registry: Registry) -> None:
    async def recorded(call: Awaitable[object]) -> audit.Record:
        record = audit.Record()
        token = audit.record.set(record)
        try:
            await call
        finally:
            audit.record.reset(token)
        return record

    long = tuple({"$match": {"n": number}} for number in range(1000))
    added = await recorded(registry.add(watcher("orders")))
    assert (added.watcher, added.before) == ("orders", None)
    assert added.after is not None
    assert (added.after["source.collection"], added.after["paused"]) == ("orders", False)
    replaced = await recorded(registry.put(watcher("orders", full_document="default", pipeline=long)))
    assert replaced.before is not None
    assert replaced.after is not None
    assert set(replaced.after) == {"source.full_document", "source.pipeline", "revision"}
    assert replaced.before["source.full_document"] == "updateLookup"
    assert replaced.after["source.pipeline"].endswith(" characters)")
    assert len(replaced.after["source.pipeline"]) < 3000
    paused = await recorded(registry.pause("orders"))
    assert paused.before is not None
    assert (paused.before["paused"], (paused.after or {})["paused"]) == (False, True)
    assert (await recorded(registry.pause("orders"))).after is None
    await until_state(registry, "orders", State.PAUSED)
    moved = await recorded(registry.set_token("orders", Start("earliest")))
    assert moved.facts.keys() == {"token", "epoch", "start"}
    trial = await recorded(registry.put(watcher("orders"), dry_run=True))
    assert (trial.after, trial.facts) == (None, {"dry_run": True})
    removed = await recorded(registry.remove("orders", delete_checkpoint=True))
    assert removed.after is None
    assert removed.before is not None
    assert removed.facts == {"checkpoint": "deleted"}


async def test_without_the_right_to_the_state_database_the_files_watchers_run_and_nothing_is_changed(
    fakes: Fakes,
) -> None:
    fakes.watchers.put(StoredWatcher(watcher("people")))
    fakes.watchers.misfortune = StateOutOfReach("grant it readWrite on changewire")
    registry = fakes.registry(from_file=[watcher("orders")])
    registry.start()
    await until_state(registry, "orders", State.RUNNING)
    health = await registry.health()
    assert health.up
    assert any("readWrite on changewire" in warning for warning in health.components["watchers"].warnings)
    first = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [first])
    changes: list[Awaitable[object]] = [
        registry.add(watcher("more")), registry.pause("orders"), registry.remove("orders"), registry.restart("orders"),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(Unavailable, match="readWrite on changewire"):
            await change
    fakes.watchers.misfortune = None  # granted
    await until_state(registry, "people", State.RUNNING)
    await until_state(registry, "orders", State.RUNNING)
    assert (await registry.health()).components["watchers"].warnings == ()
    assert set(fakes.watchers.stored) == {"people", "orders"}
    second = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [first, second])
    await registry.pause("orders")
    await registry.close()


@pytest.mark.parametrize(
    ("misfortune", "in_file"),
    [(StateOutOfReach("grant it"), False), (NotAuthorised("MongoDB refuses the account"), True)],
)
async def test_without_a_file_or_for_another_reason_nothing_stands_in_for_the_state_database(
    fakes: Fakes, misfortune: Exception, in_file: bool
) -> None:
    fakes.watchers.misfortune = misfortune
    registry = fakes.registry(from_file=[watcher("orders")] if in_file else None)
    registry.start()
    await until(lambda: str(misfortune) in (registry.ready() or ""))
    assert not (await registry.health()).up
    await registry.close()
