"""A model of collections, changes and a snapshot's runs, with all that can go wrong between them, and the oracle.

The oracle is the strongest thing that can be said of a stream: changes and rows are applied in the stream's order to
what was there when the watcher began. Each change is there once, in the oplog's order; each row is the document exactly
as the changes before it have left it; a run that is complete has every document.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from bson import json_util

from app.domain.errors import ChangewireError, PermanentError, SourceUnavailable, StoreUnavailable
from app.domain.position import Checkpoint
from app.domain.snapshot import Snapshot, next_run
from app.domain.tokens import parse_message_id
from app.domain.watcher import Sink, Source, StoredWatcher, Watcher
from app.formats.extended_json import encode, identify, names_of, reduced
from app.pipeline.batch_encoder import Codec
from app.pipeline.capture import Capture
from app.pipeline.dependencies import Shared, Tuning
from app.pipeline.run import Ports, Run
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from app.pipeline.snapshot_limits import SnapshotLimits
from tests.fakes import (
    BEGIN,
    Deed,
    FakeBox,
    FakeCheckpoints,
    FakeCollections,
    FakeLetters,
    FakeOplog,
    FakeRows,
    FakeSink,
    FakeSnapshots,
    FakeSource,
    FakeStream,
    NullObserver,
    Unheard,
    mark_token,
)
from tests.fakes.collections import order_of

WATCHER = Watcher(
    "shop",
    Source("shop"),
    Sink(
        stream="SHOP",
        subject="{stream}.{operation}",
        operations=("insert", "update", "replace", "delete", "drop", "rename"),
        oversize="dead_letter",
    ),
).with_defaults()
PLACES = ("shop.a", "shop.b", "elsewhere.a")
KEYS: tuple[Any, ...] = (1, "1", None, -2.5, {"a": 1}, True, b"\x01", "b", 3, 2, {"a": "b"}, "a")
"""Of several types, and not in their order."""
LEAST = 60
"""Turns in which an opening finds out what the stream has lost."""
PATIENCE = 6_000
"""Turns of the event loop after which what has not ended never will."""


@dataclass
class World:
    """What all writers have in common: the servers."""

    collections: FakeCollections
    stream: FakeStream
    chance: random.Random
    batch: int = 5
    most: int = 3
    payload: int = 1024 * 1024
    place: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Snapshot] = field(default_factory=dict)
    box: FakeBox = field(default_factory=FakeBox)
    before: dict[str, dict[Any, int]] = field(default_factory=dict)
    first: int = 0
    """The moment in which the watcher began."""
    epoch: int = 0
    """Messages of earlier ones say nothing any more."""
    requested: int = 0
    unfiltered: set[str] = field(default_factory=set)
    """The runs that read every document."""

    @property
    def oplog(self) -> FakeOplog:
        return self.collections.oplog

    def state(self) -> dict[str, dict[Any, int]]:
        """The number of each document by its key's order, by the collection's name."""
        found: dict[str, dict[Any, int]] = {name: {} for name in self.collections.catalog.there}
        for namespace, _, document in self.collections.now():
            found[namespace][order_of(document["_id"])] = document["n"]
        return found

    @property
    def run(self) -> Snapshot | None:
        return self.runs.get(WATCHER.name)

    async def begin(self, filter_: dict[str, Any] | None, wanted: Sequence[str] = ()) -> bool:
        """Begin a run as the service does; False where it has to be refused."""
        store = FakeSnapshots(self.runs)
        before = await store.read(WATCHER.name)
        if before is not None and before.open:
            return False
        self.requested += 1
        text = json.dumps(filter_) if filter_ else None
        run = Snapshot(
            WATCHER.name, next_run(before, self.requested), "on_demand", 0.0, filter=text, wanted=tuple(wanted)
        )
        if filter_ is None and not wanted:
            self.unfiltered.add(run.run)
        return await store.put(run, before)

    async def cancel(self) -> bool:
        store = FakeSnapshots(self.runs)
        for _ in range(5):
            run = await store.read(WATCHER.name)
            if run is None or not run.running:
                return False
            if await store.change(run, run.ended("cancelled", 0.0, "somebody has cancelled it")):
                return True
        return False


class Instance:
    """One instance: opens captures, and is killed. `knows`: false for one that was opened before any run began."""

    def __init__(self, world: World, *, knows: bool = True) -> None:
        self.world = world
        self.knows = knows
        self.run_state, self.statistics = RunState(), RunStatistics()
        self.store_faults: deque[Any] = deque()
        self.checkpoint_faults: deque[Any] = deque()
        self.rows_faults: deque[Any] = deque()
        self.limits = SnapshotLimits()
        self.capture: Capture | None = None
        self.task: asyncio.Task[None] | None = None
        self.ended: list[str] = []

    def work(self) -> Run:
        world = self.world
        rows = FakeRows(world.collections, WATCHER.source, world.most)
        snapshots = FakeSnapshots(world.runs if self.knows else {})
        checkpoints = FakeCheckpoints(world.place)
        rows.faults, snapshots.faults, checkpoints.faults = self.rows_faults, self.store_faults, self.checkpoint_faults
        ports = Ports(
            FakeSource(world.oplog, world.batch, 1e-9),
            FakeSink(world.stream, WATCHER, world.payload),
            FakeLetters(world.box, WATCHER),
            checkpoints,
            rows,
            snapshots,
        )
        shared = Shared(
            codec=Codec(encode, reduced, identify, names_of),
            observer=NullObserver(),
            clock=lambda: float(BEGIN + world.oplog.moment),
            tuning=Tuning(losses=1_000),
            snapshots=self.limits,
        )
        return Run(StoredWatcher(WATCHER), ports, shared, self.run_state, self.statistics)

    def live(self) -> None:
        """Open the next capture where none runs."""
        if self.task is not None and self.task.done():
            self._look_at_end(self.task)
            self.task = None
        if self.task is None:
            self.capture = Capture(self.work())
            self.task = asyncio.create_task(self.capture.run(lambda: None))

    def look(self) -> None:
        if self.capture is not None and self.knows:
            self.capture.look_at_snapshot()

    def stop(self) -> None:
        if self.capture is not None:
            self.capture.stop()

    async def die(self) -> None:
        """Be killed: what is under way on the servers stays, all memory is gone."""
        if self.task is not None:
            while not self.task.done():
                self.task.cancel()
                await asyncio.sleep(0)
            self._look_at_end(self.task)
        self.task = self.capture = None
        self.run_state, self.statistics = RunState(), RunStatistics()

    def _look_at_end(self, task: asyncio.Task[None]) -> None:
        """A capture may end by what the script did to it; anything else is a mistake of its own."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.ended.append(repr(error))
            if not isinstance(error, ChangewireError) or isinstance(error, PermanentError):
                raise error


async def first_start(world: World) -> Instance:
    """Let the watcher store its first position: what happens from here on is to be published."""
    world.before, world.first = world.state(), world.oplog.moment
    one = Instance(world)
    one.live()
    while "newest" not in world.place:
        await asyncio.sleep(0)
    return one


async def move_to_the_beginning(world: World) -> None:
    """Have the watcher publish everything again, as a person may who moves its position; it is not running."""
    world.epoch += 1
    position = Checkpoint(mark_token(world.first + 1), epoch=world.epoch, watcher=WATCHER.name, route=WATCHER.route)
    assert await FakeCheckpoints(world.place).begin(position)


# What is done to the world, one step at a time


@dataclass(frozen=True)
class Put:
    place: str
    key: int
    big: bool = False
    kind: str = "a"

    def on(self, world: World) -> None:
        more = {"filling": "x" * 4_000} if self.big else {}
        world.collections.put(self.place, KEYS[self.key], kind=self.kind, **more)


@dataclass(frozen=True)
class Delete:
    place: str
    key: int

    def on(self, world: World) -> None:
        world.collections.delete(self.place, KEYS[self.key])


@dataclass(frozen=True)
class Rename:
    place: str
    to: str

    def on(self, world: World) -> None:
        world.collections.rename(self.place, self.to)


@dataclass(frozen=True)
class Drop:
    place: str

    def on(self, world: World) -> None:
        world.collections.drop(self.place)


@dataclass(frozen=True)
class Tick:
    def on(self, world: World) -> None:
        world.collections.tick()


@dataclass(frozen=True)
class Forget:
    """MongoDB's history of documents begins now: no earlier moment can be read as of."""

    def on(self, world: World) -> None:
        world.collections.history = world.oplog.moment


@dataclass(frozen=True)
class Lose:
    """The stream loses its last messages, as a server does that had not synced when the power went."""

    count: int

    def on(self, world: World) -> None:
        world.stream.late.clear()
        if (most := len(world.stream.messages) - 1) > 0:
            world.stream.lose_end(min(self.count, most))


@dataclass(frozen=True)
class Consume:
    count: int

    def on(self, world: World) -> None:
        if not world.stream.keeps:
            world.stream.consume(self.count)


@dataclass(frozen=True)
class Befall:
    """The next publishes come to this."""

    deed: Deed

    def on(self, world: World) -> None:
        world.stream.faults.append(self.deed)


@dataclass(frozen=True)
class Begin:
    kind: str | None = None


@dataclass(frozen=True)
class Cancel:
    pass


@dataclass(frozen=True)
class Kill:
    who: int = 0


@dataclass(frozen=True)
class Stop:
    who: int = 0


@dataclass(frozen=True)
class Replay:
    pass


@dataclass(frozen=True)
class Fault:
    """A call to a server fails, after so many that do not; `unheard`: it has done its work."""

    where: str
    unheard: bool = False
    after: int = 0

    def add(self, one: Instance) -> None:
        faults: deque[Any] = {
            "store": one.store_faults, "checkpoint": one.checkpoint_faults, "rows": one.rows_faults,
        }[self.where]  # fmt: skip
        error: Any = SourceUnavailable("no answer") if self.where == "rows" else StoreUnavailable("no answer")
        faults.extend([None] * self.after)
        faults.append(Unheard(error) if self.unheard and self.where == "store" else error)


@dataclass(frozen=True)
class Turns:
    count: int


Step = (
    Put
    | Delete
    | Rename
    | Drop
    | Tick
    | Forget
    | Lose
    | Consume
    | Befall
    | Begin
    | Cancel
    | Kill
    | Stop
    | Replay
    | Fault
    | Turns
)
WRITES = (Put, Delete, Rename, Drop, Tick, Forget, Lose, Consume, Befall)


async def play(world: World, instances: Sequence[Instance], steps: Sequence[Step], *, window: bool = True) -> None:
    """Carry a script out, with the instances running beside it."""
    for step in steps:
        if isinstance(step, WRITES):
            step.on(world)
        elif isinstance(step, Begin):
            await world.begin({"kind": step.kind} if step.kind else None)
            look(instances)
        elif isinstance(step, Cancel):
            await world.cancel()
            look(instances)
        elif isinstance(step, Kill):
            one = instances[step.who % len(instances)]
            await one.die()
            if not window:
                world.stream.forget_ids()
        elif isinstance(step, Stop):
            instances[step.who % len(instances)].stop()
        elif isinstance(step, Fault):
            step.add(instances[0])
        elif isinstance(step, Replay):
            await replay(world, instances[0])
        else:
            await turns(instances, step.count)
        await turns(instances, 1)


def look(instances: Sequence[Instance]) -> None:
    for each in instances:
        each.look()


async def turns(instances: Sequence[Instance], count: int) -> None:
    for _ in range(count):
        for each in instances:
            each.live()
        await asyncio.sleep(0)


async def replay(world: World, one: Instance) -> None:
    """Ask for the replay of a dead letter, whatever comes of it."""
    if one.capture is None or not world.box.letters:
        return
    sequence = world.chance.choice(list(world.box.letters))
    asked = asyncio.ensure_future(_asked(one.capture, sequence))
    for _ in range(200):
        if asked.done():
            break
        await turns([one], 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)


async def _asked(capture: Capture, sequence: int) -> None:
    try:
        await capture.replay(sequence)
    except ChangewireError:
        return


async def come_to_an_end(world: World, instances: Sequence[Instance]) -> None:
    """Heal everything, and run until all is published and no run is open."""
    world.stream.faults.clear()
    for each in instances:
        for faults in (each.store_faults, each.checkpoint_faults, each.rows_faults):
            faults.clear()
    for turn in range(PATIENCE):
        if turn % 25 == 0:
            world.collections.tick()
        await turns(instances, 1)
        if turn < LEAST or (world.run is not None and world.run.open):
            continue
        if len(changes_of(world)) >= len(world.oplog.events) - world.first and _stored(world):
            break
    else:
        raise AssertionError(
            f"not at an end: {len(changes_of(world))} of {len(world.oplog.events)} changes, {world.run}, "
            f"{[each.ended[-3:] for each in instances]}"
        )
    world.stream.lateness = lambda: True
    world.stream.arrive_late()
    for each in instances:
        await each.die()


def _stored(world: World) -> bool:
    return world.place["newest"].token >= (world.oplog.events[-1][0] if world.oplog.events else "")


# The oracle


def messages_of(world: World) -> list[Any]:
    """What was published in the present epoch."""
    changes = [message.change for message in (*world.stream.consumed, *world.stream.messages)]
    return [change for change in changes if (id_ := parse_message_id(change.id)) is None or id_.epoch == world.epoch]


def changes_of(world: World) -> list[str]:
    """The tokens of the changes that are on the stream in their turn, or among the dead letters."""
    there = [
        change.token
        for change in messages_of(world)
        if change.operation not in ("snapshot", "snapshot_done") and _in_turn(change.id)
    ]
    letters = {letter.token for _, letter in world.box.letters.values() if ":" not in letter.token}
    replayed = {each for each in world_replayed(world) if ":" not in each}
    return [*there, *(letters - set(there)), *(replayed - letters - set(there))]


def world_replayed(world: World) -> set[str]:
    """What the dead letters that were replayed are known by."""
    found = set()
    for change in messages_of(world):
        id_ = parse_message_id(change.id)
        if id_ is not None and id_.original is not None:
            found.add(id_.original)
    return found


def _in_turn(id_: str) -> bool:
    parsed = parse_message_id(id_)
    return parsed is not None and parsed.original is None


def check(world: World, *, unique: bool = True) -> Counter[str]:
    """Check the whole stream, and return how many rows each run has."""
    messages = messages_of(world)
    oplog = world.oplog.tokens[world.first :]
    there = [
        each.token for each in messages_of(world) if each.operation not in ("snapshot", "snapshot_done")
        and _in_turn(each.id)
    ]  # fmt: skip
    set_aside = ({letter.token for _, letter in world.box.letters.values()} | world_replayed(world)) - set(there)
    assert there == [token for token in oplog if token not in set_aside], "the changes are not each once, in order"
    state = {name: dict(documents) for name, documents in world.before.items()}
    known: dict[str, set[Any]] = {name: set() for name in state}
    uuids = {name: name for name in state}  # what a collection was called when it was first seen
    rows: set[tuple[Any, ...]] = set()
    counts: Counter[str] = Counter()
    done: dict[str, int] = {}
    last = (0, "")
    for change in messages:
        id_ = parse_message_id(change.id)
        assert id_ is not None
        if id_.original is not None:
            continue
        assert (id_.epoch, id_.position) > last, f"{change.id} after {last}"
        last = id_.epoch, id_.position
        event = json_util.loads(change.body)
        if change.operation == "snapshot_done":
            done[run := event["snapshot"]["run"]] = event["snapshot"]["documents"]
            if run in world.unfiltered and not set_aside:
                read = (name for name in state if name.startswith("shop."))
                missing = {name: keys for name in read if (keys := state[name].keys() - known[name])}
                assert not missing, f"{change.id}: the run is complete, and at this place are also {missing}"
            continue
        name = f"{event['ns']['db']}.{event['ns']['coll']}"
        if change.operation == "snapshot":
            run, key = dict(change.headers)["Changewire-Snapshot"], order_of(event["documentKey"]["_id"])
            assert run not in done, f"{change.id} comes after the end of its run"
            assert event["_id"]["_data"] == change.id
            assert name in state, f"{change.id} is of a collection that is not there at this place"
            assert key in state[name], f"{change.id} is of a document that is not there at this place"
            assert event["fullDocument"]["n"] == state[name][key], f"{change.id} is not as it was at this place"
            assert not unique or (run, uuids[name], key) not in rows, f"{change.id}: {key} is there twice"
            rows.add((run, uuids[name], key))
            counts[run] += 1
            known[name].add(key)
        elif change.operation == "drop":
            state.pop(name, None), known.pop(name, None), uuids.pop(name, None)
        elif change.operation == "rename":
            to = f"{event['to']['db']}.{event['to']['coll']}"
            _rename(state, name, to)
            _rename(known, name, to)
            _rename(uuids, name, to)
            if not name.startswith("shop."):  # what was done to it meanwhile is not known
                uuids[to] = f"{to} since {change.token}"
        else:
            key = order_of(event["documentKey"]["_id"])
            documents = state.setdefault(name, {})
            uuids.setdefault(name, f"{name} since {change.token}")
            if change.operation == "delete":
                documents.pop(key, None)
                known.setdefault(name, set()).discard(key)
            else:
                documents[key] = event["fullDocument"]["n"]
                known.setdefault(name, set()).add(key)
    if not set_aside:
        watched = {name: documents for name, documents in world.state().items() if name.startswith("shop.")}
        assert {name: documents for name, documents in state.items() if name in watched} == watched
    run = world.run
    if run is not None and run.state == "done" and run.epoch == world.epoch:
        assert run.run in done, "the run is done, and no message says so"
        letters = [letter for _, letter in world.box.letters.values() if f":s:{run.run}:" in letter.token]
        replayed = [each for each in world_replayed(world) if f":s:{run.run}:" in each]
        if unique:
            assert done[run.run] == counts[run.run] + len(letters) + len(replayed)
        _check_complete(world, run, known, {_letter_key(letter) for letter in letters})
    return counts


def _rename(by_name: dict[str, Any], name: str, to: str) -> None:
    if name in by_name:
        by_name[to] = by_name.pop(name)


def _letter_key(letter: Any) -> Any:
    return order_of(json_util.loads(encode(letter.raw, "").body)["documentKey"]["_id"])


def _check_complete(world: World, run: Snapshot, known: dict[str, set[Any]], letters: set[Any]) -> None:
    """Every document that is there and matches is known by the stream alone, or set aside."""
    wanted = json.loads(run.filter) if run.filter else {}
    for namespace, _, document in world.collections.now():
        if not namespace.startswith("shop."):
            continue
        key = order_of(document["_id"])
        if any(document.get(name) != value for name, value in wanted.items()):
            continue
        assert key in known.get(namespace, set()) or key in letters or _set_aside(world, document), (
            f"{namespace} {document['_id']} is not on the stream"
        )


def _set_aside(world: World, document: dict[str, Any]) -> bool:
    return "filling" in document


DEEDS = get_args(Deed)


def run(coroutine) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await coroutine

    asyncio.run(bounded())
