"""Compare a watcher's stream with the history of what it watches, as far as the oplog reaches, or with a list.

Reports which changes are lost, doubled, reordered or altered on the stream, with their tokens, and which messages are
unknown to MongoDB. It reads MongoDB and NATS with its own code, so the service does not have to be running. Changes
that the watcher has not reached yet are `waiting`. Changes that cannot be compared any more are counted with the
reason. See docs/verify.md.

Servers and credentials come from the settings of the service (MONGO_URI, NATS_URL, CHANGEWIRE_STATE_DB, ...).

Exit codes: 0 if nothing is wrong; 1 if something is wrong, or could not be compared; 2 for wrong arguments or settings.
"""

import asyncio
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import FAILED, MISUSE, OK, CommandError, candidates, load_settings, say, say_json, typed
from app.domain.plain import plain

if TYPE_CHECKING:
    from collections.abc import Collection

    from app.config.settings import Settings
    from app.domain.watcher import Watcher
    from app.verify.comparison import Bounds, Event
    from app.verify.report import Report
    from app.verify.rows import Record, Rows
    from app.verify.state import Client, Position
    from app.verify.streams import StreamInfo, StreamMessage, Streams

SERVER_SECONDS = 5
_WRITES = frozenset({"insert", "update", "replace", "delete"})
READ_SECONDS = 600
"""While it looks for the next change of a quiet collection, a server may scan much of its oplog before it answers."""


app = typed.application(None)


def _moment(text: str) -> float:
    from app.domain.watcher import start_from_document

    try:
        moment = float(start_from_document({"timestamp": text}).value or 0)
    except ValueError:
        moment = -1
    if not 0 <= moment < 1 << 32:
        raise typer.BadParameter("must be a time with an offset, such as 2026-01-01T00:00:00Z")
    return moment


@app.command(help=__doc__)
def verify(
    watcher: Annotated[
        str,
        typer.Argument(
            metavar="WATCHER",
            help="The watcher's name.",
            show_default=False,
            autocompletion=candidates.watchers,
        ),
    ],
    since: Annotated[
        float | None,
        typer.Option(
            parser=_moment,
            metavar="TIMESTAMP",
            help="Compare from this time on, such as 2026-01-01T00:00:00Z. It states that the watcher was running by "
            "then, so changes before the stream's first message count too (default: from the stream's first message).",
            show_default=False,
        ),
    ] = None,
    writes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Compare with this list instead; each line: {"operation": …, "id": …}.',
            show_default=False,
            autocompletion=candidates.files,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    import nats.errors
    import nats.js.errors
    from pymongo.errors import PyMongoError

    from app.config.logging import redact
    from app.verify.errors import BadList, CannotCompare
    from app.verify.streams import words

    if since is not None and writes is not None:
        raise typer.BadParameter("give either --since or --writes")
    settings = load_settings()
    try:
        report = asyncio.run(_verify(settings, watcher, since, writes))
    except CannotCompare as error:
        raise CommandError(str(error), MISUSE if isinstance(error, BadList) else FAILED) from error
    except PyMongoError as error:
        raise CommandError(redact(_mongo_words(error))) from error
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
        raise CommandError(redact(f"NATS failed: {words(error)}")) from error
    if as_json:
        say_json(report.as_json())
    else:
        say("\n".join(plain(line) for line in report.lines()))
    return OK if report.findings.right else FAILED


def _of_file(settings: "Settings", name: str) -> "Watcher | None":
    """The watcher from connector.yaml, which overrides the stored one and is available without the state database."""
    watchers = () if settings.connector is None else settings.connector.watchers
    return next((one for one in watchers if one.name == name), None)


async def _verify(settings: "Settings", name: str, since: float | None, listed: Path | None) -> "Report":
    from pymongo import AsyncMongoClient
    from pymongo.errors import ConfigurationError

    from app.config.addresses import mongo_uri_problem
    from app.verify.report import Report
    from app.verify.state import read_position, read_run, read_watcher
    from app.verify.streams import Streams
    from app.verify.writes import compare_writes, read_writes

    writes = None if listed is None else read_writes(listed)
    options: dict[str, Any] = {
        "appname": "changewire verify",
        "serverSelectionTimeoutMS": SERVER_SECONDS * 1000,
        "connectTimeoutMS": SERVER_SECONDS * 1000,
        "socketTimeoutMS": READ_SECONDS * 1000,
        "heartbeatFrequencyMS": 1000,  # a frozen server is noticed by its heartbeat, not by the long timeout
    }
    uri = settings.mongo_uri.get_secret_value()
    try:
        mongo: Client = AsyncMongoClient(uri, **options)
    except (ConfigurationError, ValueError, TypeError) as error:
        problem = mongo_uri_problem(uri) or "is not a MongoDB connection string"  # the error may quote a password
        raise CommandError(f"invalid settings\n  MONGO_URI: {problem}", MISUSE) from error
    async with mongo as client:
        watcher = _of_file(settings, name)
        if watcher is None:
            watcher = await read_watcher(client, settings.state_db, name)
        async with Streams(settings) as streams:
            # In this order: all that was reached by the position is on the stream by then, and no message that is
            # there can be of an epoch that the second look at the checkpoint does not know.
            before = await read_position(client, watcher, settings.state_db)
            info = await streams.info(watcher.sink.stream)
            after = await read_position(client, watcher, settings.state_db)
            reading, run = _Reading(streams, watcher, info), await read_run(client, settings.state_db, watcher.name)
            if writes is None:
                history = _History(client, reading, since, settings.state_db)
                return await history.compare(before, after, run)
            messages = streams.messages(watcher, info.last)
            rows = reading.rows(await streams.letters(watcher))
            findings = await compare_writes(messages, writes, watcher, rows)
            await rows.finish(run, None if run is None else run.epoch)
            if info.first > 1:
                findings.notes.append(f"the stream begins at #{info.first}: writes published before count as lost")
            return Report(watcher.name, watcher.source.namespace, watcher.sink.stream, str(listed), findings)


@dataclass
class _Reading:
    """One watcher's messages."""

    streams: "Streams"
    watcher: "Watcher"
    info: "StreamInfo"

    def rows(self, letters: "Collection[str]", *, compares: bool = False) -> "Rows":
        from app.verify.rows import Reading, Rows

        return Rows(Reading(self.watcher.subjects.subject, self.whole, self.removed, letters, compares))

    async def whole(self, message: "StreamMessage") -> dict[str, Any]:
        """Return a message's body, fetched where it is elsewhere. Raises ValueError with the reason."""
        from app.verify.bodies import from_json

        if message.pointer is None:
            return message.event
        try:
            return from_json(await self.streams.object(message.pointer))
        except json.JSONDecodeError as error:
            raise ValueError(f"its object {message.pointer} is not JSON") from error

    async def removed(self, sequence: int) -> bool:
        """See `Comparison`."""
        return (await self.streams.info(self.watcher.sink.stream)).first > max(sequence, 1)


@dataclass
class _History:
    """The comparison of one watcher's stream with what MongoDB tells."""

    client: "Client"
    reading: _Reading
    since: float | None
    state_database: str

    async def compare(self, before: "Position | None", after: "Position | None", run: "Record | None") -> "Report":
        from app.verify.bodies import Selection
        from app.verify.comparison import Comparison
        from app.verify.history import WatchedHistory
        from app.verify.report import Report, seconds_of
        from app.verify.state import parse_pipeline, read_clock

        watcher, info = self.reading.watcher, self.reading.info
        selection, streams = Selection(watcher.source), self.reading.streams
        clock, wire_version = await read_clock(self.client)
        if self.since is not None and self.since > clock.seconds:
            raise CommandError("--since is in the future of MongoDB's clock", MISUSE)
        notes: list[str] = []
        bounds = await self._bounds(before, after, selection.undecidable, notes)
        bounds = replace(bounds, letters=await streams.letters(watcher))
        # A pipeline or a choice of operations leaves changes out, after which a document is another one.
        compares = not watcher.source.pipeline and set(watcher.sink.operations) >= _WRITES
        rows = self.reading.rows(bounds.letters, compares=compares)

        async def difference(event: "Event", message: "StreamMessage") -> str | None:
            return await self._difference(event, message, selection.difference)

        pipeline = parse_pipeline(watcher)
        history = WatchedHistory(
            self.client, watcher, pipeline, end=clock, wire_version=wire_version, state_database=self.state_database
        )
        comparison = Comparison(history, bounds, difference=difference, removed=self.reading.removed, rows=rows)
        try:
            findings = await comparison.run(streams.messages(watcher, info.last))
        finally:
            await history.close()
        await rows.finish(run, findings.epochs[-1] if findings.epochs else bounds.position_epoch)
        findings.notes[:0] = notes
        begin = seconds_of(comparison.begin)
        end = None if begin is None else seconds_of(comparison.reached)
        source = watcher.source.namespace
        return Report(watcher.name, source, watcher.sink.stream, f"the history of {source}", findings, begin, end)

    async def _bounds(
        self, before: "Position | None", after: "Position | None", undecidable: frozenset[str], notes: list[str]
    ) -> "Bounds":
        from app.domain.tokens import ClusterTime
        from app.verify.comparison import Bounds
        from app.verify.history import bound, oplog_begin

        begin = await oplog_begin(self.client)
        since = None if self.since is None else bound(ClusterTime(int(self.since), 0))
        position = before if before is not None and self._counts(before, notes) else None
        watcher, info = self.reading.watcher, self.reading.info
        last_epoch = after.epoch if after is not None and after.belongs_to(watcher) else None
        if info.first > 1:
            notes.append(f"the stream begins at #{info.first}: what it held before cannot be compared")
        return Bounds(
            floor=max(since or "", begin or ""),
            covered=since is not None and info.first <= 1,
            position=None if position is None else position.token,
            position_epoch=None if position is None else position.epoch,
            last_epoch=last_epoch,
            undecidable=undecidable,
            removes=info.removes,
            collections=watcher.source.is_scope,
        )

    def _counts(self, position: "Position", notes: list[str]) -> bool:
        """Whether a stored position tells how far this stream goes."""
        info = self.reading.info
        if not position.belongs_to(self.reading.watcher):
            notes.append("the stored position belongs to another collection, stream or selection, and is ignored")
        elif position.stream_created not in (None, info.created):
            notes.append("the stream was deleted and recreated after the position was stored")
        elif position.sequence is not None and info.last < position.sequence:
            notes.append(f"the stream lost its end: #{position.sequence} was acknowledged, #{info.last} is the last")
        else:
            return True
        return False

    async def _difference(self, event: "Event", message: "StreamMessage", differ: Any) -> str | None:
        names = event.body.get("ns") or {}
        subject = self.reading.watcher.subjects.subject(names.get("db", ""), names.get("coll", ""), event.operation)
        if message.subject != subject:
            return f"is on the subject {message.subject}, not {subject}"
        try:
            body = await self.reading.whole(message)
        except ValueError as error:
            return str(error)
        if not body:
            return "is not a JSON object"
        fields = differ(event.body, body, message.reduced)
        return None if fields is None else f"differs in {fields}"


def _mongo_words(error: Exception) -> str:
    from pymongo.errors import OperationFailure

    if isinstance(error, OperationFailure):
        text = str((error.details or {}).get("errmsg") or error).partition(", full error:")[0]
        hint = "; give a later time with --since" if error.code in (286, 136) else ""
        return f"MongoDB refused the request: {text[:600]} (code {error.code}){hint}"
    text = str(error).partition(", Timeout:")[0].partition(" (configured timeouts:")[0]
    text = re.sub(r"\[Errno [0-9]+\] Connect call failed \(.*?\)", "connection refused", text)  # as asyncio says it
    return f"MongoDB cannot be reached: {text[:600]}"
