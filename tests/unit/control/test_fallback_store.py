"""Without the right to the state database: what runs all the same, and what is refused."""

from collections.abc import Awaitable

import pytest

from app.domain.errors import NotAuthorised, StateOutOfReach, Unavailable
from app.domain.lifecycle import State
from app.domain.watcher import StoredWatcher
from tests.unit.deployment import Fakes, until, until_state, watcher


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
