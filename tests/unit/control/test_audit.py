"""What a change tells the record of its request."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from app.control import audit
from app.control.registry import Addition, Registry
from app.domain.lifecycle import State
from app.domain.watcher import Start
from tests.unit.deployment import Fakes, until_state, watcher


@dataclass
class Recorded:
    """What a call did to one watcher."""

    watcher: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    facts: dict[str, Any]


async def test_the_record_of_a_call_holds_what_it_changed(fakes: Fakes, registry: Registry) -> None:
    async def recorded(call: Awaitable[object]) -> Recorded:
        record = audit.Record()
        token = audit.record.set(record)
        try:
            await call
        finally:
            audit.record.reset(token)
        change = record.changes[0] if record.changes else audit.Changed(None, None, None)
        return Recorded(change.watcher, change.before, change.after, record.facts)

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


async def test_the_record_of_a_list_holds_each_watcher_that_was_added(registry: Registry) -> None:
    record = audit.Record()
    token = audit.record.set(record)
    await registry.add_all([Addition(watcher("orders")), Addition(watcher("items"), paused=True)])
    audit.record.reset(token)
    assert [(each.watcher, (each.after or {})["paused"]) for each in record.changes] == [
        ("orders", False), ("items", True),
    ]  # fmt: skip
