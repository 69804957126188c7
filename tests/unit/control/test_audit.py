"""What a change tells the record of its request."""

from collections.abc import Awaitable

from app.control import audit
from app.control.registry import Registry
from app.domain.lifecycle import State
from app.domain.watcher import Start
from tests.unit.deployment import Fakes, until_state, watcher


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
