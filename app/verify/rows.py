"""The rows of snapshots on a stream: each document of a run once, in its place, and as the changes before it left it.

A row's id is its place: `<mark>:<epoch>:s:<run>:<chunk>.<row>`. Within a chunk the rows are numbered without a gap; the
numbers of chunks grow, and may leave some out. `comparison.py` sees to the order of rows among the changes.
"""

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from app.domain.snapshot import DONE
from app.domain.tokens import RowPlace, moment_before
from app.verify.bodies import text_of
from app.verify.documents import Documents
from app.verify.findings import Finding, Findings, SnapshotRun

MISSING_REMEMBERED: Final = 100_000
LETTERS: Final = "documents of snapshots are dead letters"
REMOVED: Final = "documents of snapshots may have been removed from the stream by its limits"


class RowMessage(Protocol):
    """A message in the watcher's subjects; `row` is set on a snapshot's. `event` is the body, empty where it is none,
    `pointer` where the whole of it is. `run` is what the header says."""

    sequence: int
    subject: str
    token: str | None
    epoch: int
    row: RowPlace | None
    run: str | None
    replayed: bool
    pointer: str | None
    reduced: frozenset[str]
    event: dict[str, Any]
    data: bytes

    @property
    def namespace(self) -> str | None: ...

    @property
    def operation(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Record:
    """The watcher's last run as the service has stored it."""

    run: str
    state: str
    reason: str | None
    epoch: int | None
    documents: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How messages are read. `subject` makes one from database, collection and operation; `whole` is a message's body,
    fetched where it is elsewhere, and raises ValueError with the reason; `removed` is that of `Comparison`.

    `letters` are changes and rows that were set aside. `compares`: the stream has every change of a document as it was,
    so that rows can be compared with them."""

    subject: Callable[[str, str, str], str]
    whole: Callable[[Any], Awaitable[dict[str, Any]]]
    removed: Callable[[int], Awaitable[bool]]
    letters: Collection[str] = ()
    compares: bool = False


class Rows:
    """The rows of one stream, in its order; `finish` comes last."""

    def __init__(self, reading: Reading) -> None:
        self.findings = Findings()
        self._reading = reading
        self._documents = Documents()
        self._keys: set[bytes] = set()
        """The documents of the latest run."""
        self._run: SnapshotRun | None = None
        self._last: RowPlace | None = None
        self._sequence = 0
        self._missing: dict[str, Finding] = {}
        """Places without a row, by their text: its replay may still come."""
        self._replayed: set[str] = set()
        self._letters = Counter(
            place.run for letter in reading.letters if (place := RowPlace.parse(letter)) is not None
        )

    # Changes

    def change(self, message: RowMessage) -> None:
        """A change, in its place."""
        if not self._reading.compares:
            return
        key = _key_of(message.event)
        if key is None:
            self.forget_all()  # a collection was dropped or renamed
            return
        if message.pointer is not None or message.reduced:
            self._documents.forget(key)
            return
        row = self._documents.change(key, message.event, message.data)
        if row is not None:
            what = f"the row #{row} has the effect of this change, which comes after it"
            self._fault("altered", message, what)

    def passed(self, event: Mapping[str, Any]) -> None:
        """A change is not in its place on the stream: what is known of its document holds no longer."""
        key = _key_of(event)
        if key is not None:
            self._documents.forget(key)

    def forget_all(self) -> None:
        """Nothing that is known of documents holds any longer: a collection may have the name of another one now, and
        its documents come in the same run."""
        self._documents.forget_all()
        self._keys.clear()

    # Rows

    async def take(self, message: RowMessage, *, compares: bool = False) -> None:
        """A row in its place, or the message that a run is complete; `compares`: the changes before it are known."""
        place = message.row
        assert place is not None, "a row has a place"
        run = self._of(place)
        if place.run != run.run:
            self._fault("reordered", message, f"comes after the run {run.run} has begun")
            return
        if message.operation == DONE:
            run.done = await self._done(message, place, run)
            self._sequence = message.sequence
            return
        if run.done is not None:
            self._fault("reordered", message, "comes after the end of its run")
        await self._between(place)
        self._last, self._sequence = place, message.sequence
        run.rows += 1
        self.findings.rows += 1
        key = _key_of(message.event)
        if key is None:
            self._fault("altered", message, "names no document")
        elif key in self._keys:
            self._fault("doubled", message, "is there in this run before, at another place")
        else:
            self._keys.add(key)
            await self._compare(message, place, key, compares=compares and self._reading.compares)

    def late(self, message: RowMessage) -> None:
        """A row, or a run's end, that comes after its place."""
        place, key = message.row, _key_of(message.event)
        assert place is not None, "a row has a place"
        run = self._of(place)
        if place.run == run.run and (key is None or key in self._keys):
            self._fault("doubled", message, "was there before")
            return
        self._fault("reordered", message, "comes after its place")
        if key is not None and place.run == run.run:
            self._keys.add(key)
            self._missing.pop(str(place), None)
            run.rows += 1
            self.findings.rows += 1

    async def take_or_replay(self, message: RowMessage) -> None:
        """The same, where nothing is known of the changes: a row that is where it is, or one after its place."""
        await (self.replayed if message.replayed else self.take)(message)

    async def replayed(self, message: RowMessage) -> None:
        """A row that was set aside, after its place."""
        place, key = message.row, _key_of(message.event)
        assert place is not None, "a row has a place"
        run = self._of(place)
        if str(place) in self._replayed or (place.run == run.run and key in self._keys):
            self._fault("doubled", message, "is the replay of a row that was there before")
            return
        self._replayed.add(str(place))
        self._missing.pop(str(place), None)
        self._letters[place.run] += str(place) not in self._reading.letters
        self.findings.notes.append(f"#{message.sequence} is the replay of a dead letter: {message}")
        if (problem := await self._body_problem(message, place)) is not None:
            self._fault("altered", message, problem)

    def _of(self, place: RowPlace) -> SnapshotRun:
        """Return the latest run, which is that of a place or a later one."""
        if self._run is None or place.run > self._run.run:
            self._run = SnapshotRun(place.run, place.epoch)
            self._keys, self._last = set(), None
            self.findings.snapshots.append(self._run)
        return self._run

    async def _between(self, place: RowPlace) -> None:
        """Report the rows of a chunk that are missing before one."""
        same = self._last is not None and self._last.chunk == place.chunk
        begin = self._last.row + 1 if self._last is not None and same else 0
        if self._last is not None and place.chunk < self._last.chunk:
            what = f"a row of chunk {place.chunk} comes after chunk {self._last.chunk}"
            self.findings.faults["reordered"].add(Finding(str(place), what, place.epoch, self._sequence))
        for missing in _rows(place, begin):
            if str(missing) in self._reading.letters:
                continue
            if len(self._missing) >= MISSING_REMEMBERED or await self._reading.removed(self._sequence):
                return  # the run's end tells how many there are in all
            what = f"row {missing.row} of chunk {missing.chunk} of the snapshot {missing.run}"
            self._missing[str(missing)] = Finding(str(missing), what, missing.epoch)

    async def _compare(self, message: RowMessage, place: RowPlace, key: bytes, *, compares: bool) -> None:
        problem = await self._body_problem(message, place)
        if problem is not None:
            self._fault("altered", message, problem)
        document = message.event.get("fullDocument")
        if not compares or message.pointer is not None or not isinstance(document, dict):
            self._documents.forget(key)
            return
        names = self._documents.row(key, document, message.data, message.sequence)
        if names is not None:
            self.findings.rows_compared += 1
        if names == ["_id"]:
            self._fault("altered", message, "is of a document that a change before it has deleted")
        elif names:
            some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            self._fault("altered", message, f"is not as the changes before it have left it, in {some}")

    async def _body_problem(self, message: RowMessage, place: RowPlace) -> str | None:
        """Say what is wrong with a row by itself: header, subject and body."""
        database, _, collection = (message.namespace or "").partition(".")
        subject = self._reading.subject(database, collection, message.operation)
        if message.subject != subject:
            return f"is on the subject {message.subject}, not {subject}"
        if message.run != place.run:
            return f"has the header Changewire-Snapshot: {message.run}"
        body = message.event
        if message.pointer is not None:
            try:
                body = await self._reading.whole(message)
            except ValueError as error:
                return str(error)
        at = moment_before(place.mark)
        right = {"$timestamp": {"t": at.seconds, "i": at.increment}}
        if body.get("_id") != {"_data": str(place)}:
            return "has another place in its body than in its id"
        if body.get("clusterTime", right) != right:  # a pipeline may leave it out
            return "has another cluster time than its place"
        return None

    async def _done(self, message: RowMessage, place: RowPlace, run: SnapshotRun) -> int | None:
        problem = await self._body_problem(message, place)
        counts = message.event.get("snapshot")
        counts = counts if isinstance(counts, dict) else {}
        if problem is None and (counts.get("run") != run.run or not isinstance(counts.get("documents"), int)):
            problem = "does not name its run and the number of documents"
        if run.done is not None:
            self._fault("doubled", message, "was there before")
        elif problem is not None:
            self._fault("altered", message, problem)
        documents = counts.get("documents")
        return documents if isinstance(documents, int) else 0

    # The end

    async def finish(self, record: Record | None, epoch: int | None) -> None:
        """Compare what came of each run with what the stream and the service say of it. `record` is the last run's,
        `epoch` the watcher's."""
        findings, known = self.findings, record.run if record is not None else None
        lost = Counter(place.run for text in self._missing if (place := RowPlace.parse(text)) is not None)
        for finding in self._missing.values():
            findings.faults["lost"].add(finding)
        for run in findings.snapshots:
            if record is not None and run.run == known:
                run.state = record.state
            if run.done is not None:
                await self._count(run, run.done, lost[run.run])
                run.state = "done" if run.state is None else run.state
        if record is None or record.epoch is None or record.epoch != epoch:
            return
        last = next((run for run in findings.snapshots if run.run == known), None)
        ended = last is not None and last.done is not None
        if record.state == "done" and not ended and not await self._reading.removed(0):
            what = f"the message that the snapshot {record.run} of {record.documents:,} documents is complete"
            findings.faults["lost"].add(Finding(None, what, record.epoch))
        elif record.state == "failed" and ended:
            what = f"the snapshot {record.run} has failed, and the stream says that it is complete"
            findings.faults["unknown"].add(Finding(None, what, record.epoch))
        elif record.state in ("cancelled", "failed"):
            findings.notes.append(f"the snapshot {record.run} was {record.state}: {record.reason}")

    async def _count(self, run: SnapshotRun, documents: int, lost: int) -> None:
        """Compare a run with the number of documents that its end tells; `lost` are those that are reported."""
        letters = self._letters[run.run]
        left = documents - run.rows - letters - lost
        if letters:
            self.findings.skip(LETTERS, letters)
        if left > 0 and await self._reading.removed(0):
            self.findings.skip(REMOVED, left)
        elif left > 0:
            self.findings.faults["lost"].add(
                Finding(None, f"{left:,} of {documents:,} documents of the snapshot {run.run}", run.epoch)
            )
            self.findings.faults["lost"].total += left - 1
        elif left < 0 and not lost:
            what = f"the snapshot {run.run} has {-left:,} documents more than the {documents:,} that it counts"
            self.findings.faults["unknown"].add(Finding(None, what, run.epoch))

    def _fault(self, kind: str, message: RowMessage, what: str) -> None:
        finding = Finding(message.token, f"{message}: {what}", message.epoch, message.sequence)
        self.findings.faults[kind].add(finding)


def _key_of(event: Mapping[str, Any]) -> bytes | None:
    """Return what tells a document from those of all collections; None where an event is of none."""
    try:
        names, key = event["ns"], event["documentKey"]["_id"]
        text = f"{names['db']}.{names['coll']}\0{text_of(key)}"
    except (KeyError, TypeError):
        return None
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _rows(place: RowPlace, begin: int) -> Iterator[RowPlace]:
    """The places of the chunk before this one, from a number on."""
    return (replace(place, row=row) for row in range(begin, place.row))
