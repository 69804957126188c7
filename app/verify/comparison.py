"""The comparison of a stream with the history it was made from: two ordered sequences, merged.

Tokens compare as strings in the order of the change stream, so neither side has to be held: both are read once, and
what is remembered are the faults. A deliberate rewind begins a new epoch, which goes back in the history; the
comparison follows it there. The rows of a snapshot have places in the same order (`rows.py`).
"""

import json
from collections.abc import AsyncIterable, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

from app.domain.dead_letters import brief
from app.domain.tokens import is_row
from app.verify.findings import Finding, Findings
from app.verify.rows import RowMessage, Rows

MISSING_REMEMBERED: Final = 100_000
"""How many changes that have not come (yet) are remembered, to tell a late one from a double."""
OLDER = "messages are older than what was compared with"
BETWEEN = "changes lie between two epochs: the watcher may have been moved past them"
REMOVED = "changes may have been removed from the stream by its limits"
GAP = "changes lie in a gap that the stream marks"
LETTERS = "changes are dead letters"
REPLAYED_REMEMBERED: Final = 1_000
"""Of how many changes that are not in their place the body is remembered, to be compared with a replay's."""
UNDECIDABLE = "changes depend on a document as it was then, which cannot be looked up any more"


@dataclass(frozen=True, slots=True)
class Event:
    """A selected change as MongoDB tells it now."""

    token: str
    operation: str
    body: dict[str, Any]


class Message(RowMessage, Protocol):
    """A message in the watcher's subjects; `token` is None where it is not the watcher's. Of a snapshot's row, or the
    message that ends a run, it is the place, `row`.

    `gap` is None but for a marker, after which the watcher went on at `token`: what is after the position `gap` is
    missing, and all of it where that is empty. `replayed` is set on a dead letter's replay, out of turn: `token` is its
    change's then, and `position` how far the watcher had got.
    """

    gap: str | None
    position: str

    def __str__(self) -> str:
        """Operation and key, for people."""


class History(Protocol):
    """The selected changes in their order, up to an end that is fixed beforehand."""

    async def open(self, at: str) -> str:
        """Go to the first change whose token is `at` or later; return from where on nothing is missing (`at`, or the
        oplog's beginning where that is later)."""

    async def peek(self) -> Event | None:
        """The change to come; None at the end."""

    def take(self) -> None:
        """Go on after it."""

    def broke(self, before: str) -> bool:
        """Whether, since it was last asked, a collection was dropped or renamed before a position."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is known beforehand. Tokens, or beginnings of tokens, which compare as well."""

    floor: str = ""
    """Nothing before this is compared."""
    covered: bool = False
    """Whether the stream has to hold everything from `floor` on, and not only from its first message on."""
    position: str | None = None
    """How far the watcher had got, where that is known."""
    position_epoch: int | None = None
    """The epoch of that position; None where it is the stream's last."""
    last_epoch: int | None = None
    """The epoch that the watcher is in: an id that claims a later one proves nothing. None: not known."""
    undecidable: Collection[str] = ()
    """Operations of which MongoDB cannot tell any more whether the watcher's pipeline chose them."""
    removes: bool = False
    """Whether the stream removes messages from its middle by itself."""
    letters: Collection[str] = ()
    """Changes that are set aside."""
    collections: bool = False
    """Whether the watcher has more than one collection, so that each is counted and named."""


@dataclass(slots=True)
class _Run:
    """The messages of one epoch: from where to where the tokens go, and where on the stream it is."""

    epoch: int
    low: str
    high: str = ""
    sequence: int = 0
    ready: bool = False


class Comparison:
    """One comparison; `run` it once."""

    def __init__(
        self,
        history: History,
        bounds: Bounds,
        *,
        difference: Callable[[Event, Any], Awaitable[str | None]],
        removed: Callable[[int], Awaitable[bool]],
        rows: Rows,
    ) -> None:
        """`difference` says in words what is wrong with an event's message, or None; `removed` whether the stream no
        longer holds the message with that sequence (0: its first one ever), which was there when it was read."""
        self.findings = rows.findings
        self.reached = ""
        """Up to where the history was compared."""
        self._history = history
        self._bounds = bounds
        self._floor = bounds.floor
        self._difference = difference
        self._removed = removed
        self._rows = rows
        self._runs: list[_Run] = []
        self._missing: dict[tuple[int, str], Finding] = {}
        self._missing_more = 0
        self._absent_events: dict[str, Event] = {}
        self._replayed: set[tuple[int, str]] = set()
        self._passed: set[str] = set()

    @property
    def begin(self) -> str:
        """From where on was compared: a token or the beginning of one; empty where nothing was."""
        lows = [max(run.low, self._floor) for run in self._runs if run.ready]
        return min(lows, default="")

    async def run(self, messages: AsyncIterable[Any]) -> Findings:
        """Compare, and return what was found; `Rows.finish` comes next. Raises what reading raises."""
        findings = self.findings
        async for message in messages:
            findings.messages += 1
            if message.token is None:
                findings.foreign += 1
            elif message.replayed:
                await self._take_replayed(message, message.token)
            else:
                await self._take(message, message.token)
        await self._finish()
        for (epoch, token), finding in self._missing.items():
            # A later epoch that goes over it again is the one that counts; what it lacks it has reported itself.
            if any(run.epoch > epoch and run.low <= token <= run.high for run in self._runs):
                continue
            if brief(token) in self._bounds.letters:
                findings.skip(LETTERS)
            elif not any((run.epoch, token) in self._replayed for run in self._runs):
                findings.faults["lost"].add(finding)
        findings.faults["lost"].total += self._missing_more
        findings.epochs = [run.epoch for run in self._runs]
        return findings

    async def _take(self, message: Message, token: str) -> None:
        run = self._run_of(message, token)
        if run is None:
            return
        if token <= run.high:
            self._behind(run, message, token)
        else:
            if token >= self._floor and not run.ready:
                await self._make_ready(run)
            if message.gap is not None:
                await self._over_gap(run, message, token, message.gap)
            elif message.row is not None:
                await self._row(run, message, token)
            elif token < self._floor:
                self.findings.skip(OLDER)
            else:
                await self._ahead(run, message, token)
            run.high = token
        run.sequence = message.sequence

    async def _row(self, run: _Run, message: Message, place: str) -> None:
        """A snapshot's row: all changes before its place are there, and have left its document so."""
        known = place >= self._floor
        if known:
            await self._absent(run, place, f"before #{message.sequence}")
            self.reached = place
        await self._rows.take(message, compares=known)

    async def _take_replayed(self, message: Message, token: str) -> None:
        """A change after its place, on purpose: once in an epoch, and not beside one in its place.

        Its id says how far the watcher had got, like those of all others: up to there nothing else may be missing."""
        position = message.position
        run = self._run_of(message, position)
        if run is None:
            return
        if run.low == position and not run.high:
            run.high = position  # it is the first message of its epoch: what was before it may be gone
        if position >= self._floor and not run.ready:
            await self._make_ready(run)
        if position > run.high:
            if run.ready:
                await self._absent(run, f"{position}!", f"before #{message.sequence}")
                self.reached = position
            run.high = position
        run.sequence = message.sequence
        if message.row is not None:
            await self._rows.replayed(message)
            return
        missing = self._missing.pop((run.epoch, token), None)
        if missing is None:
            if token in self._passed or token < max(run.low, self._floor):
                self.findings.skip(OLDER if token < max(run.low, self._floor) else UNDECIDABLE)
            else:
                self._fault("doubled", message, "is a replay of a change that was there before")
            return
        self._replayed.add((run.epoch, token))
        self.findings.notes.append(f"#{message.sequence} is the replay of a dead letter: {message}")
        event = self._absent_events.pop(token, None)
        if event is not None:
            await self._compare(event, message)

    async def _compare(self, event: Event, message: Message) -> None:
        self.findings.compared += 1
        if self._bounds.collections:
            self.findings.compared_of[namespace_of(event.body)] += 1
        difference = await self._difference(event, message)
        if difference is not None:
            self._fault("altered", message, difference)

    def _run_of(self, message: Message, position: str) -> _Run | None:
        """The run that a message belongs to; None, and a fault, where that is over."""
        last = self._bounds.last_epoch
        epoch = message.epoch if last is None else min(message.epoch, last)
        run = self._runs[-1] if self._runs else None
        if run is None or epoch > run.epoch:
            return self._begin(epoch, position)
        if epoch < run.epoch:
            self._fault("reordered", message, f"comes after epoch {run.epoch} has begun")
            return None
        return run

    def _begin(self, epoch: int, token: str) -> _Run:
        low = "" if self._bounds.covered and not self._runs else token
        self._runs.append(_Run(epoch, low))
        self._rows.forget_all()
        return self._runs[-1]

    async def _make_ready(self, run: _Run) -> None:
        """Bring the history to where the run begins: back by opening it again, or forward over what is between."""
        start = max(run.low, self._floor)
        run.ready = True
        if self.reached and start > self.reached:
            while (event := await self._history.peek()) is not None and event.token < start:
                self._history.take()
                self.findings.skip(BETWEEN)
        else:
            opened = await self._history.open(start)
            if opened > start:  # the oplog begins later
                self._floor = opened

    async def _ahead(self, run: _Run, message: Message, token: str) -> None:
        event = await self._absent(run, token, f"before #{message.sequence}")
        self.reached = token
        if event is None or event.token != token:
            if message.operation in self._bounds.undecidable:
                self.findings.skip(UNDECIDABLE)
            else:
                self._fault("unknown", message, "is not in MongoDB's history")
            return
        self._history.take()
        self._rows.change(message)
        await self._compare(event, message)

    async def _over_gap(self, run: _Run, message: Message, token: str, reached: str) -> None:
        """Pass over what the stream says is missing; what was reached before has to be there."""
        self._rows.forget_all()
        self.findings.notes.append(f"#{message.sequence} is {message}")
        if token < self._floor:
            return
        if reached > run.high:
            await self._absent(run, f"{reached}!", f"before #{message.sequence}")
        while (event := await self._history.peek()) is not None and event.token < token:
            self._history.take()
            if event.token > run.high:
                self.findings.skip(GAP)
        self.reached = token

    async def _absent(self, run: _Run, token: str, where: str) -> Event | None:
        """Pass over the changes before `token`, which ought to be there; return the one that comes then."""
        removed = self._bounds.removes
        asked = removed
        while (event := await self._history.peek()) is not None and event.token < token:
            self._history.take()
            if event.token <= run.high:
                continue  # the history was opened at a message that has been dealt with
            self._rows.passed(event.body)
            if not asked:
                asked, removed = True, await self._removed(run.sequence)
            if removed or event.operation in self._bounds.undecidable:
                self.findings.skip(REMOVED if removed else UNDECIDABLE)
                if len(self._passed) < MISSING_REMEMBERED:
                    self._passed.add(event.token)
            elif len(self._missing) < MISSING_REMEMBERED:
                place = f"after #{run.sequence}" if run.sequence else where
                what = described(event.operation, event.body, collection=self._bounds.collections)
                finding = Finding(event.token, f"{what}, {place}", run.epoch)
                self._missing[run.epoch, event.token] = finding
                if len(self._absent_events) < REPLAYED_REMEMBERED:
                    self._absent_events[event.token] = event
            else:
                self._missing_more += 1
        if self._history.broke(token):
            self._rows.forget_all()
        return event

    def _behind(self, run: _Run, message: Message, token: str) -> None:
        """A token that falls: a change that was missing at its place, or one that has been there."""
        if message.row is not None:
            self._rows.late(message)
        elif self._missing.pop((run.epoch, token), None) is not None or token < max(run.low, self._floor):
            self._fault("reordered", message, "comes after later changes")
        else:
            self._fault("doubled", message, "was there before")

    async def _finish(self) -> None:
        """Go on to the watcher's position, before which nothing may be missing, and count what waits after it."""
        bounds, position = self._bounds, self._bounds.position
        if not self._runs and bounds.covered and position is not None:
            self._begin(bounds.position_epoch or 0, "")
        run = self._runs[-1] if self._runs else None
        if run is None:
            if position is not None:
                await self._history.open(max(position, self._floor))
                await self._count_waiting(position)
            return
        if bounds.position_epoch is not None and bounds.position_epoch > run.epoch and position is not None:
            # It was moved, and has published nothing since: where that epoch began is not known.
            after = f"{position}!"  # ! is below 0: just after that token
            self._runs.append(_Run(bounds.position_epoch, after, after))
            await self._make_ready(self._runs[-1])
            await self._count_waiting(position)
            return
        if not run.ready:  # all its messages are older
            await self._make_ready(run)
        if position is not None and position > run.high:
            await self._absent(run, f"{position}!", "before the watcher's position")
            if is_row(position) and not await self._removed(run.sequence):
                finding = Finding(position, "rows of a snapshot, before the watcher's position", run.epoch)
                self.findings.faults["lost"].add(finding)
            self.reached = run.high = position
        await self._count_waiting(run.high)

    async def _count_waiting(self, position: str) -> None:
        while (event := await self._history.peek()) is not None:
            self._history.take()
            if event.token > position:
                self.findings.waiting += 1

    def _fault(self, kind: str, message: Message, what: str) -> None:
        finding = Finding(message.token, f"{message}: {what}", message.epoch, message.sequence)
        self.findings.faults[kind].add(finding)


def described(operation: str, body: dict[str, Any], *, collection: bool = False) -> str:
    """Operation and key, such as `insert {"_id": 7}`; where it is asked for, with the collection."""
    key = body.get("documentKey")
    what = operation if key is None else f"{operation} {json.dumps(key, ensure_ascii=False)}"
    return f"{what} of {namespace_of(body)}" if collection and "ns" in body else what


def namespace_of(body: dict[str, Any]) -> str:
    """Return what a change is a change of, such as `shop.orders`; of a whole database `shop`."""
    names = body.get("ns") or {}
    return ".".join(str(names[part]) for part in ("db", "coll") if part in names)
