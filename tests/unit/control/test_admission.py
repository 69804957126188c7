"""What may not be watched is refused before anybody reads it, and says so where it is stored already."""

import pytest

from app.control.admission import Rules
from app.domain.errors import Conflict, FieldProblem, Invalid, Unavailable
from app.domain.lifecycle import State
from app.domain.namespaces import Namespaces
from app.domain.watcher import Sink, Source, Start, StoredWatcher, Watcher
from app.jetstream.peers import subjects_of
from tests.fakes import FakeSource
from tests.unit.deployment import Fakes, until_state, watcher


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


async def test_what_rules_and_both_servers_refuse_is_one_error_and_nothing_is_stored(fakes: Fakes) -> None:
    registry = fakes.registry()
    registry.start()
    fakes.nats.refusal = Invalid(problems=(FieldProblem("sink.replicas", "is more than the servers"),))
    script = watcher("orders", pipeline=({"$match": {"$where": "true"}},))
    with pytest.raises(Invalid) as refused:
        await registry.add(script)
    assert [each.field for each in refused.value.problems] == ["source.pipeline", "sink.replicas"]
    fakes.mongo.refusal = Unavailable("MongoDB is away")
    with pytest.raises(Invalid) as refused:  # what can be corrected comes first
        await registry.add(watcher("orders"))
    assert [each.field for each in refused.value.problems] == ["sink.replicas"]
    fakes.nats.refusal = None
    with pytest.raises(Unavailable, match="MongoDB is away"):
        await registry.add(watcher("orders"))
    assert fakes.watchers.stored == {}
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


def test_a_watcher_that_would_take_the_subjects_between_instances_is_told_so() -> None:
    rules = Rules("changewire", between_instances=subjects_of("changewire"))

    def taken(subject: str, stream: str = "changewire") -> list[str]:
        wanted = Watcher("all", Source(database="shop"), Sink(stream=stream, subject=subject)).with_defaults()
        return [f"{each.field} {each.problem}" for each in rules.taken(wanted)]

    for subject in ("changewire.{collection}.{operation}", "{stream}.{collection}.b.{operation}"):
        (problem,) = taken(subject)
        assert problem.startswith("sink.subject takes subjects by which the instances ask each other")
    assert taken("{operation}.a.{collection}") == [], "no operation has the prefix as its name"
    assert taken("{stream}.{operation}") == []
    assert taken("{stream}.{collection}.{operation}", "SHOP") == []
