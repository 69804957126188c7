"""The promise of a snapshot, over servers that lose acks, forget the past and are shared with other instances.

One oracle is asked throughout (`snapshot_model.check`): applied in order, the stream is what has happened. No row is
older than a change before it or newer than one after it, none is there twice, and a complete run has all documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from app.formats.extended_json import encode
from tests.fakes import FakeCollections, FakeOplog, FakeStream
from tests.properties.snapshot_model import (
    DEEDS,
    KEYS,
    WATCHER,
    Befall,
    Begin,
    Cancel,
    Consume,
    Delete,
    Drop,
    Fault,
    Forget,
    Instance,
    Kill,
    Lose,
    Put,
    Rename,
    Replay,
    Step,
    Stop,
    Tick,
    Turns,
    World,
    check,
    come_to_an_end,
    first_start,
    move_to_the_beginning,
    play,
    run,
)

pytestmark = pytest.mark.usefixtures("both_modes", "no_pauses")

OFTEN = ("shop.a", "shop.a", "shop.b")
SUITE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


WRITES = st.one_of(
    st.builds(Put, st.sampled_from(OFTEN), st.integers(0, len(KEYS) - 1), kind=st.sampled_from("ab")),
    st.builds(Delete, st.sampled_from(OFTEN), st.integers(0, len(KEYS) - 1)),
    st.just(Tick()),
)
NAMES = st.one_of(
    st.builds(Rename, st.sampled_from(["shop.a", "shop.b", "shop.c"]), st.sampled_from(["shop.b", "shop.c", "shop.a"])),
    st.builds(Drop, st.sampled_from(["shop.a", "shop.b", "shop.c"])),
)
TURNS = st.builds(Turns, st.integers(1, 40))
KILLS = st.one_of(st.builds(Kill, st.integers(0, 1)), st.builds(Stop, st.integers(0, 1)))
PUBLISHES = st.builds(Befall, st.sampled_from(DEEDS))
WISHES = st.one_of(st.builds(Begin, st.sampled_from([None, None, "a"])), st.just(Cancel()))
FAULTS = st.builds(
    Fault, st.sampled_from(["store", "store", "checkpoint", "rows"]), st.booleans(), after=st.integers(0, 3)
)


def scripts(*more: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.one_of(WRITES, TURNS, TURNS, *more), max_size=40)


def world_of(seed: int, documents: int, batch: int, most: int) -> World:
    chance = random.Random(seed)
    world = World(FakeCollections(FakeOplog()), FakeStream("SHOP", ["SHOP.*"]), chance, batch, most)
    for index in range(documents):
        world.collections.put(chance.choice(OFTEN), KEYS[index % len(KEYS)], kind=chance.choice("ab"))
    if chance.random() < 0.3:
        world.collections.capped.add("shop.b")
    return world


SIZES = {
    "documents": st.integers(0, 24), "batch": st.integers(1, 8), "most": st.integers(1, 6),
    "seed": st.integers(0, 2**16),
}  # fmt: skip


async def play_alone(world: World, steps: Sequence[Step], *, window: bool) -> None:
    one = await first_start(world)
    await play(world, [one], [Begin(), *steps], window=window)
    await come_to_an_end(world, [one])
    check(world)


@SUITE
@given(steps=scripts(NAMES, KILLS, PUBLISHES, WISHES, FAULTS, st.just(Forget())), window=st.booleans(), **SIZES)
def test_each_document_once_at_its_exact_place_whatever_dies(
    steps: list[Step], window: bool, documents: int, batch: int, most: int, seed: int
) -> None:
    note(f"{documents=} {batch=} {most=} {seed=}\n" + "\n".join(map(repr, steps)))
    world = world_of(seed, documents, batch, most)
    world.stream.lateness = lambda: world.chance.random() < 0.5
    run(play_alone(world, steps, window=window))


@SUITE
@given(
    steps=scripts(
        KILLS, st.builds(Befall, st.sampled_from([deed for deed in DEEDS if deed != "late"])), WISHES, FAULTS,
        st.just(Forget()), st.builds(Consume, st.integers(1, 20)),
    ),
    **SIZES,
)  # fmt: skip
def test_each_document_once_though_messages_are_consumed(
    steps: list[Step], documents: int, batch: int, most: int, seed: int
) -> None:
    """On a work queue: what is consumed is gone from the stream, and only counted."""
    note(f"{documents=} {batch=} {most=} {seed=}\n" + "\n".join(map(repr, steps)))
    world = world_of(seed, documents, batch, most)
    world.stream.keeps = False
    run(play_alone(world, steps, window=False))


@SUITE
@given(steps=scripts(KILLS, PUBLISHES, WISHES, NAMES), window=st.booleans(), **SIZES)
@example(steps=[Delete("shop.a", 0), Turns(35), Put("shop.a", 0)], window=True, documents=2, batch=1, most=1, seed=0)
@example(
    steps=[Delete("shop.a", 0), Turns(36), Rename("shop.a", "shop.b")],
    window=True,
    documents=2,
    batch=1,
    most=1,
    seed=0,
)
@example(
    steps=[Delete("shop.a", 0), Turns(35), Drop("shop.a"), Put("shop.a", 0)],
    window=True,
    documents=2,
    batch=1,
    most=1,
    seed=0,
)
@example(  # a row arrives when its chunk was cut, and the position has moved on past its place
    steps=[
        Tick(), Tick(), Stop(0), Turns(36), Delete("shop.a", 0), Kill(0), Drop("shop.b"), Tick(), Turns(1), Turns(2),
        Put("shop.b", 0, kind="a"), Turns(16), Stop(0), Turns(40), Drop("shop.b"),
    ],
    window=True,
    documents=3,
    batch=1,
    most=1,
    seed=8635,
)  # fmt: skip
@example(  # a chunk's rows arrive from the other instance while this one finds that it cannot read them again
    steps=[
        Stop(1), Turns(36), Turns(1), Tick(), Tick(), Tick(), Kill(0), Drop("shop.b"), Begin("a"),
        Rename("shop.c", "shop.b"), Rename("shop.c", "shop.b"), Drop("shop.c"), Put("shop.b", 1, kind="b"), Turns(14),
        Begin(None), Turns(14), Turns(29), Drop("shop.b"), Stop(1), Turns(13),
    ],
    window=True,
    documents=3,
    batch=1,
    most=4,
    seed=8635,
)  # fmt: skip
def test_each_document_once_though_two_instances_publish(
    steps: list[Step], window: bool, documents: int, batch: int, most: int, seed: int
) -> None:
    async def scenario() -> None:
        one = await first_start(world)
        both = [one, Instance(world)]
        await play(world, both, [Begin(), *steps], window=window)
        await both[1].die()
        await come_to_an_end(world, both[:1])
        check(world)

    note(f"{documents=} {batch=} {most=} {seed=}\n" + "\n".join(map(repr, steps)))
    world = world_of(seed, documents, batch, most)
    world.stream.lateness = lambda: world.chance.random() < 0.5
    run(scenario())


@SUITE
@given(steps=scripts(KILLS, PUBLISHES, WISHES, st.just(Forget())), window=st.booleans(), **SIZES)
def test_each_document_once_though_an_instance_that_knows_of_no_run_publishes_too(
    steps: list[Step], window: bool, documents: int, batch: int, most: int, seed: int
) -> None:
    """Its capture was opened before the run began, and it was frozen meanwhile."""

    async def scenario() -> None:
        one = await first_start(world)
        both = [one, Instance(world, knows=False)]
        await play(world, both, [Begin(), *steps], window=window)
        await both[1].die()
        await come_to_an_end(world, both[:1])
        check(world)

    note(f"{documents=} {batch=} {most=} {seed=}\n" + "\n".join(map(repr, steps)))
    world = world_of(seed, documents, batch, most)
    run(scenario())


@SUITE
@given(
    steps=scripts(
        KILLS, PUBLISHES, FAULTS, st.just(Replay()),
        st.builds(Put, st.sampled_from(OFTEN), st.integers(0, len(KEYS) - 1), st.just(True)),
    ),
    big=st.integers(0, 3),
    **SIZES,
)  # fmt: skip
def test_each_document_once_though_some_are_set_aside_and_replayed(
    steps: list[Step], big: int, documents: int, batch: int, most: int, seed: int
) -> None:
    """A document that no message can hold is a dead letter, once, whether it comes as a change or as a row."""
    note(f"{documents=} {big=} {batch=} {most=} {seed=}\n" + "\n".join(map(repr, steps)))
    world = world_of(seed, documents, batch, most)
    world.payload = 2_000
    for index in range(big):
        Put("shop.a", index * 3, big=True).on(world)
    run(play_alone(world, steps, window=True))
    letters = [letter.token for _, letter in world.box.letters.values()]
    assert len(letters) == len(set(letters))


@SUITE
@given(steps=scripts(KILLS, FAULTS, st.builds(Lose, st.integers(1, 12)), st.just(Forget())), **SIZES)
def test_a_run_survives_a_stream_that_lost_its_end(
    steps: list[Step], documents: int, batch: int, most: int, seed: int
) -> None:
    """Rows that are lost are made again as of their time, or the run says that it cannot be completed."""
    note(f"{documents=} {batch=} {most=} {seed=}\n" + "\n".join(map(repr, steps)))
    world = world_of(seed, documents, batch, most)
    script = [part for step in steps for part in ((Kill(0), step) if isinstance(step, Lose) else (step,))]
    run(play_alone(world, script, window=True))


@SUITE
@given(
    steps=scripts(KILLS, PUBLISHES, FAULTS), later=scripts(KILLS, PUBLISHES, st.just(Begin())), again=st.booleans(),
    **SIZES,
)  # fmt: skip
def test_a_run_ends_where_its_watcher_is_moved_and_another_one_has_all_documents(
    steps: list[Step], later: list[Step], again: bool, documents: int, batch: int, most: int, seed: int
) -> None:
    """What it had published belongs to an epoch that is over, and so do the rows that it had planned."""
    note(f"{documents=} {batch=} {most=} {seed=} {again=}\n" + "\n".join(map(repr, (*steps, "moved", *later))))

    async def scenario() -> None:
        one = await first_start(world)
        await play(world, [one], [Begin(), *steps])
        await one.die()
        moved = world.run
        await move_to_the_beginning(world)
        await play(world, [one], [Begin(), *later] if again else later)
        await come_to_an_end(world, [one])
        check(world)
        if moved is not None and moved.begun and moved.running and world.run is not None and world.run.run == moved.run:
            assert world.run.state == "cancelled"
            assert "moved" in str(world.run.reason)

    world = world_of(seed, documents, batch, most)
    run(scenario())


def test_a_chunk_that_cannot_be_read_again_ends_after_the_rows_that_are_there_whenever_the_process_dies() -> None:
    """The first rows of a chunk arrive, and before it is known, the process dies and MongoDB forgets their time."""
    met: set[int] = set()
    for number in range(60):
        world = World(FakeCollections(FakeOplog()), FakeStream("SHOP", ["SHOP.*"]), random.Random(number), 5, 6)
        for key in KEYS:
            world.collections.put("shop.a", key)

        async def scenario(steps: int, world: World) -> None:
            one = await first_start(world)
            await play(world, [one], [Begin(), Befall("torn"), Turns(steps), Kill()], window=False)
            met.add(len(world.stream.messages))
            await play(world, [one], [Tick(), Tick(), Forget()])
            await come_to_an_end(world, [one])
            check(world)

        run(scenario(number, world))
    assert len(met) > 1, "killed before, and after a part of a chunk has arrived"


def test_rows_that_another_writer_went_past_are_sent_at_another_place_whichever_publish_it_was() -> None:
    """It knows of no run, and publishes a change right before rows whose place is before that."""
    for number in range(1, 12):
        world = World(FakeCollections(FakeOplog()), FakeStream("SHOP", ["SHOP.*"]), random.Random(number), 5, 3)
        for key in KEYS:
            world.collections.put("shop.a", key)
        left = number

        def rival(world: World = world) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                stream = world.stream
                stream.before_publish = None
                world.collections.put("shop.a", KEYS[0])
                change = encode(world.oplog.events[-1][1])
                stream.store([(WATCHER.subject(change.operation), change)], stream.last_sequence, "SHOP.*")

        async def scenario(world: World, rival: Callable[[], None]) -> None:
            one = await first_start(world)
            world.stream.before_publish = rival
            await play(world, [one], [Begin()])
            await come_to_an_end(world, [one])
            check(world)

        run(scenario(world, rival))
        assert left <= 0 or number > 4, "a run has that many publishes at least"
