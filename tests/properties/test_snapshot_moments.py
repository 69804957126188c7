"""The end of a snapshot's run, and its place among others, tried at every moment: what is gone, comes back, or fails.

The oracle is that of `test_snapshot_properties.py`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection
from dataclasses import replace

import pytest

from app.domain.errors import SourceRefused
from tests.fakes import FakeCollections, FakeOplog, FakeRows, FakeStream
from tests.properties.snapshot_model import (
    KEYS,
    WATCHER,
    Begin,
    Delete,
    Drop,
    Put,
    Rename,
    Step,
    Tick,
    Turns,
    World,
    check,
    come_to_an_end,
    first_start,
    play,
    run,
)

pytestmark = pytest.mark.usefixtures("both_modes", "no_pauses")


def filled(*, others: bool = False, capped: Collection[str] = (), batch: int = 5) -> World:
    """A world whose documents are in `shop.b`; with `others`, two of three are in `shop.a`."""
    collections = FakeCollections(FakeOplog(), capped=set(capped))
    for index, key in enumerate(KEYS):
        collections.put("shop.a" if others and index % 3 else "shop.b", key)
    return World(collections, FakeStream("SHOP", ["SHOP.*"]), random.Random(0), batch)


@pytest.mark.parametrize("others", [True, False], ids=["of two collections", "of one collection"])
@pytest.mark.parametrize("gone", [Delete("shop.b", 0), Drop("shop.b"), Rename("shop.b", "elsewhere.b")])
def test_a_run_is_complete_only_after_what_was_gone_when_it_came_to_be_read(
    gone: Delete | Drop | Rename, others: bool
) -> None:
    """Of a capped collection a deleted document has no row, nor has any of a collection that is gone."""
    for number in range(8 if others else 5):
        capped = {"shop.b"} if isinstance(gone, Delete) else set()
        world = filled(others=others, capped=capped)

        async def scenario(number: int, world: World) -> None:
            one = await first_start(world)
            one.rows_faults.extend([*[None] * number, lambda: gone.on(world)])
            await play(world, [one], [Begin(), *(Turns(25), Tick()) * 6])
            assert not one.rows_faults, "it was reached"
            await come_to_an_end(world, [one])
            check(world)

        run(scenario(number, world))


@pytest.mark.parametrize("others", [True, False], ids=["of two collections", "of one collection"])
def test_a_collection_that_had_an_unwatched_name_when_it_came_to_be_read_is_read_once_it_is_back(others: bool) -> None:
    met: set[tuple[int, int]] = set()
    for first, later in itertools.product(range(8 if others else 5), range(1, 5)):
        world = filled(others=others)

        async def scenario(first: int, later: int, world: World) -> None:
            one = await first_start(world)
            out, back = Rename("shop.b", "elsewhere.b"), Rename("elsewhere.b", "shop.b")
            one.rows_faults.extend([*[None] * first, lambda: out.on(world), *[None] * later, lambda: back.on(world)])
            await play(world, [one], [Begin(), *(Turns(25), Tick()) * 6])
            reached = not one.rows_faults
            await come_to_an_end(world, [one])
            if reached:
                met.add((first, later))
                check(world)

        run(scenario(first, later, world))
    assert len(met) > 5, "it came back while the run was read"


def test_a_run_that_fails_while_changes_come_leaves_its_place_to_others() -> None:
    for number in range(6):
        world = filled(batch=1)

        async def scenario(number: int, world: World) -> None:
            one = await first_start(world)
            one.limits.at_once = 1
            one.rows_faults.extend([*[None] * (3 + number), SourceRefused("it cannot be read")])
            steps: list[Step] = [Begin()]
            for index in range(60):
                steps += [Put("shop.b", index % len(KEYS)), Turns(1)]
            await play(world, [one], [*steps, Turns(100)])
            assert world.run is not None
            assert world.run.state == "failed"
            assert one.limits.take("another"), "it is over"
            one.limits.release("another")
            await come_to_an_end(world, [one])
            check(world)

        run(scenario(number, world))


def test_a_collection_that_was_left_and_is_read_as_another_one_is_read_once_where_the_run_is_cut_back() -> None:
    world = filled()

    async def scenario() -> None:
        one = await first_start(world)
        await world.begin(None)
        assert world.run is not None
        (part,) = await FakeRows(world.collections, WATCHER.source).parts(())
        world.runs[WATCHER.name] = world.run.begin(0, [replace(part, left=True), part], None, 0.0)
        await play(world, [one], [Turns(100)])
        await come_to_an_end(world, [one])
        assert check(world) == {world.run.run: len(KEYS)}

    run(scenario())
