"""A snapshot: every document of some collections as a row on the stream, each at an exact place among the changes.

A *run* reads one collection after the other in the order of `_id`, chunk by chunk. A chunk is read as of one cluster
time, and its rows stand on the stream between the last change up to that time and the first one after it. This module
holds what is stored of a run, and how it moves on. `pipeline/snapshot.py` reads and publishes.

What is stored is enough to make every row again that was ever sent: before the first row of a chunk goes out, the chunk
is *planned*: its mark, the key that it begins after, and the keys of all its rows. So after a crash a row is known by
its place, like a change by its token: what is on the stream is left out, the rest is read again as of the same time.
Where MongoDB no longer has that time, the chunk ends with its last row on the stream, whose key is known, and the next
one goes on after it.

Once the checkpoint is past a chunk its keys are dropped, and the rest is kept for a while: a stream that has lost its
end (nats-server writes lazily) gets rows again, as it gets changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from app.domain.tokens import RowPlace, cluster_time

OPERATION: Final = "snapshot"
DONE: Final = "snapshot_done"
ROW_OPERATIONS: Final = (OPERATION, DONE)
"""What a snapshot publishes: rows, and one message when a run is complete."""
HEADER: Final = "Changewire-Snapshot"
"""Each of these messages names its run in this header."""

KEPT_SECONDS: Final = 300
"""How long a chunk is kept that is done: about as long as MongoDB can be read as of its time."""
KEPT_CHUNKS: Final = 3_000
"""And how many at most."""
MOST_ROWS: Final = 10_000
"""The most rows of a chunk: their keys are stored with its plan."""

Kind = Literal["initial", "on_demand"]
State = Literal["running", "done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Part:
    """A collection that a run reads. `uuid` is what MongoDB calls it whatever its name (32 hexadecimal digits), None
    where that is not known. `capped`: MongoDB does not read it as of a cluster time. `clustered`: it has no index on
    `_id`. `left`: it was gone, or had a name that is not watched, when it came to be read; if it comes back, it is read
    as another one."""

    namespace: str
    uuid: str | None = None
    capped: bool = False
    clustered: bool = False
    left: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are read as of one time, planned before the first of them is sent.

    They stand after the high-water mark `mark`. `count` is how many they are, and `keys` are theirs, in their order:
    each a BSON document with the `_id` alone. `after` is the key that the chunk begins after (None: at the beginning),
    `until` the last one that was looked at (None: the collection's end). `since` is the stream's last sequence when it
    was planned. A chunk with no part ends the run: its only row says so. `settled`: the stored checkpoint is past it,
    and its keys are dropped.

    A chunk that was `cut` has so many rows, and no more are sent; those that were planned after it have none. Their
    keys stay known: rows that were sent before the cut, and not heard of, may still arrive, as long as nothing after
    them is on the stream. `plan` tells chunks that were planned after a cut from those before it.
    """

    number: int
    mark: str
    part: int | None
    after: bytes | None = None
    until: bytes | None = None
    keys: tuple[bytes, ...] = ()
    since: int = 0
    count: int = 1
    cut: int | None = None
    plan: int = 0
    settled: bool = False

    @property
    def rows(self) -> int:
        return self.count if self.cut is None else self.cut


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One run of a watcher's snapshot, as it is stored. Times are seconds since 1970.

    `filter` is a query on documents as extended JSON, `wanted` the collections that were asked for (none: all that are
    watched). `epoch` is the watcher's, None until the run begins to read. `parts` are read in their order; `part` is
    the index of the one that is being read, `after` the key up to which it was read, `next` the number of the next
    chunk. `chunks` are planned and may not be on the stream, or were done a short time ago. `documents` counts the rows
    that were planned. `last` is the position of the last row that was planned, `forgotten` that of the last chunk that
    is not kept any more. `plan` counts the cuts, `version` grows with each change.
    """

    watcher: str
    run: str
    kind: Kind
    requested_at: float
    filter: str | None = None
    wanted: tuple[str, ...] = ()
    state: State = "running"
    reason: str | None = None
    epoch: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    estimated_total: int | None = None
    parts: tuple[Part, ...] = ()
    part: int = 0
    after: bytes | None = None
    next: int = 0
    chunks: tuple[Chunk, ...] = field(default=(), repr=False)
    documents: int = 0
    plan: int = 0
    last: str = ""
    forgotten: str = ""
    version: int = 0

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def open(self) -> bool:
        """Whether anything is left to be done about it: read, or to know rows by that are on the stream."""
        return self.running or any(not chunk.settled for chunk in self.chunks)

    @property
    def unstored(self) -> bool:
        """Whether something has to be stored once it is published: that a chunk is done, or the run."""
        return any(not chunk.settled for chunk in self.chunks) or (self.running and self.end_planned)

    @property
    def end_planned(self) -> bool:
        """Whether the message that the run is complete is planned."""
        return bool(self.finish)

    @property
    def finish(self) -> str:
        """The place of the message that the run is complete; empty where it is not planned."""
        return next((self.end(chunk) for chunk in self.chunks if chunk.part is None and chunk.rows), "")

    @property
    def begun(self) -> bool:
        """Whether it is known which collections are read, and in which epoch."""
        return self.epoch is not None

    @property
    def read(self) -> bool:
        """Whether every collection was read to its end."""
        return self.begun and self.part >= len(self.parts)

    @property
    def names(self) -> list[str]:
        """The names of the collections that it reads."""
        return list(dict.fromkeys(part.namespace for part in self.parts))

    def place(self, chunk: Chunk, row: int) -> str:
        """Return the position of a chunk's row."""
        return str(self._place(chunk, row))

    def before(self, chunk: Chunk) -> str:
        """Return what the positions of a chunk's rows begin with (`RowPlace.before`)."""
        return self._place(chunk, 0).before

    def _place(self, chunk: Chunk, row: int) -> RowPlace:
        assert self.epoch is not None, "begin comes first"
        return RowPlace(chunk.mark, self.epoch, self.run, chunk.number, row)

    def end(self, chunk: Chunk) -> str:
        """Return the position of a chunk's last row; of one that was cut before the first, its mark."""
        return self.place(chunk, chunk.rows - 1) if chunk.rows else chunk.mark

    # How it moves on. Each returns what is to be stored.

    def begin(self, epoch: int, parts: Sequence[Part], estimated: int | None, now: float) -> "Snapshot":
        """It is known what is to be read."""
        return replace(
            self, epoch=epoch, parts=tuple(parts), estimated_total=estimated, started_at=now, version=self.version + 1
        )

    def planned(self, chunk: Chunk) -> "Snapshot":
        """A chunk was read, or it ends the run, and is about to be sent. A chunk that was read to the collection's end
        is that collection's last one."""
        after, part = chunk.until, self.part
        if chunk.part is not None and after is None:
            part += 1
        return replace(
            self, chunks=(*self.chunks, replace(chunk, plan=self.plan)), next=chunk.number + 1, after=after, part=part,
            documents=self.documents + len(chunk.keys), last=self.end(chunk), version=self.version + 1,
        )  # fmt: skip

    def passed(self, until: bytes | None) -> "Snapshot":
        """No row was found up to this key, or to the collection's end. Nothing of that has to be stored at once."""
        return replace(self, after=until, part=self.part + (until is None))

    def without(self) -> "Snapshot":
        """The collection that is being read is gone, or has a name that is not watched. The next one follows."""
        return replace(self._with(left=True), part=self.part + 1, after=None, version=self.version + 1)

    def also(self, parts: Sequence[Part]) -> "Snapshot":
        """These collections have to be read too."""
        return replace(self, parts=(*self.parts, *parts), version=self.version + 1)

    def touched(self) -> "Snapshot":
        """It is as it was, and stored all the same: MongoDB's time passes by what is written, and who planned before
        plans no more."""
        return replace(self, version=self.version + 1)

    def renamed(self, namespace: str) -> "Snapshot":
        """The collection that is being read has another name by now."""
        return replace(self._with(namespace=namespace), version=self.version + 1)

    def _with(self, **changed: Any) -> "Snapshot":
        """The part that is being read has other properties."""
        part = replace(self.parts[self.part], **changed)
        return replace(self, parts=(*self.parts[: self.part], part, *self.parts[self.part + 1 :]))

    def acknowledged(self, position: str) -> "Snapshot":
        """All up to a position is on the stream, and the stored checkpoint says so: the chunks up to there are done."""
        if all(chunk.settled or self._last(chunk) > position for chunk in self.chunks):
            return self
        chunks = [
            chunk if chunk.settled or self._last(chunk) > position else replace(chunk, keys=(), settled=True)
            for chunk in self.chunks
        ]
        newest, forgotten = cluster_time(chunks[-1].mark).seconds, self.forgotten
        while chunks[0].settled and (
            len(chunks) > KEPT_CHUNKS or newest - cluster_time(chunks[0].mark).seconds > KEPT_SECONDS
        ):
            forgotten = self.end(chunks.pop(0))
        return replace(self, chunks=tuple(chunks), forgotten=forgotten, version=self.version + 1)

    def _last(self, chunk: Chunk) -> str:
        """Return the position with which a chunk is done: its last row's, or where more may arrive, one after them."""
        return self.end(chunk) if chunk.cut is None else self.place(chunk, chunk.count)

    def cut(self, number: int, rows: int) -> "Snapshot":
        """A chunk ends with its first `rows` rows, and what was planned after it is planned again. Numbers are not
        used again. Where `rows` are some but not all, the keys are needed.

        They may be more than before: so many rows are on the stream, which were sent before the chunk was cut. So all
        that were planned together with them, and before them, are there too."""
        chunk = next(each for each in self.chunks if each.number == number)

        def now(each: Chunk) -> Chunk:
            if each.number == number:
                return replace(each, cut=None if rows == each.count else rows)
            if each.number > number:
                return replace(each, cut=0)
            return replace(each, cut=None) if rows > chunk.rows and each.plan == chunk.plan else each

        chunks = tuple(map(now, self.chunks))
        run = self.reopened() if self.state == "done" else self
        after, part = None, len(self.parts)  # where only the message that the run is complete is missing
        if chunk.part is not None:
            whole = rows == chunk.count
            after = chunk.until if whole else chunk.keys[rows - 1] if rows else chunk.after
            part = chunk.part + (whole and chunk.until is None)
        more = _documents(chunks) - _documents(self.chunks)
        return replace(
            run, chunks=chunks, after=after, part=part, documents=self.documents + more, plan=self.plan + 1,
            version=self.version + 1,
        )  # fmt: skip

    def reopened(self) -> "Snapshot":
        """The stream has lost rows of a run that was done: it goes on."""
        return replace(self, state="running", finished_at=None, version=self.version + 1)

    def ended(self, state: State, now: float, reason: str | None = None) -> "Snapshot":
        """It is over. Chunks whose rows may be on the stream stay known until the checkpoint is past them."""
        return replace(self, state=state, reason=reason, finished_at=now, version=self.version + 1)

    def given_up(self) -> "Snapshot":
        """Its rows are of another epoch, and say nothing any more."""
        return replace(self, chunks=(), version=self.version + 1)


def _documents(chunks: Sequence[Chunk]) -> int:
    return sum(chunk.rows for chunk in chunks if chunk.part is not None)


def next_run(before: Snapshot | None, now: float) -> str:
    """Return the name of a new run, greater than that of the one before: milliseconds, as hexadecimal digits."""
    milliseconds = int(now * 1000)
    if before is not None:
        milliseconds = max(milliseconds, int(before.run, 16) + 1)
    return f"{milliseconds:012x}"


def first_run(watcher: str, now: float) -> Snapshot:
    """Return the run that begins when a watcher is added."""
    return Snapshot(watcher, next_run(None, now), "initial", now)


@dataclass(slots=True)
class ChunkSize:
    """How many documents the next chunk asks for, by the size of those read last."""

    target: int
    """Bytes that a chunk is meant to have."""
    rows: int = 100

    def came(self, rows: int, size: int) -> None:
        """A chunk of so many rows and bytes was read."""
        if rows:
            mean = max(1, size // rows)
            # Not more than eight times as many at once: the next documents may be larger.
            self.rows = max(1, min(MOST_ROWS, self.target // mean, self.rows * 8))

    def took_too_long(self) -> None:
        """So many could not be read in time."""
        self.rows = max(1, self.rows // 4)
