"""What MongoDB is asked before a watcher is added or a token is set. Nothing is changed and nothing is kept open.

Each check ends in an answer to the request: Invalid, on the field that the user has to change, or Unavailable.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from app.domain.errors import FieldProblem, Invalid, PermanentError, TransientError, Unavailable
from app.domain.javascript import javascript_in
from app.domain.names import SYSTEM_DATABASES
from app.domain.tokens import cluster_time
from app.domain.watcher import Source, Watcher
from app.mongodb import images
from app.mongodb import pipeline as mongo_pipeline
from app.mongodb.bounded import run_bounded
from app.mongodb.codes import MAX_TIME_EXPIRED, refuses_account
from app.mongodb.described import described_by, description
from app.mongodb.errors import stream_translated, where_allowed
from app.mongodb.probe import PROBE_SECONDS
from app.mongodb.reach import Reach
from app.mongodb.start import verify
from app.mongodb.stream import MONGODB_5_1, parse_pipeline
from app.mongodb.token_owner import owner_of
from app.mongodb.trial import StreamTrial
from app.mongodb.words import iso

DATABASES_SECONDS: Final = 10.0
"""For how long a database that was seen is taken to be there: unless it is dropped, no twin of it can come."""


class WatcherChecks:
    """The checks of one deployment."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._client = reach.client
        self._databases: tuple[float, frozenset[str]] = float("-inf"), frozenset()
        """The databases that were seen to exist, and when."""

    async def check_source(self, watcher: Watcher) -> str:
        """See `ports.Mongo`."""
        if watcher.source.database in SYSTEM_DATABASES:
            problem = f"is {watcher.source.database}, a system database, which has no change streams for users"
            raise _invalid("source.database", problem)
        pipeline = parse_pipeline(watcher.source.pipeline)
        trial = StreamTrial(watcher, self._reach)
        with _refusals(watcher, "source"):
            await trial.prepare(may_create=False)
            await self._refuse_other_case(watcher)
            objection = await trial.objection()
            if objection is not None:
                part, words = objection
                field = "source.pipeline" if part == "pipeline" else "source"
                raise _invalid(field, f"MongoDB refuses the {part}: {words}")
            await self._refuse_missing_images(watcher)
        lost = mongo_pipeline.objection(pipeline)
        if lost is None and mongo_pipeline.reshapes(pipeline) and trial.request.wire_version >= MONGODB_5_1:
            lost = await self._lost_on_samples(watcher, pipeline)  # $documents, which this takes, came with 5.1
        if lost is not None:
            raise _invalid("source.pipeline", lost)
        return trial.position

    async def check_token(self, watcher: Watcher, token: str) -> None:
        """See `ports.Mongo`."""
        trial = StreamTrial(watcher, self._reach)
        with _refusals(watcher, "token"):
            moment = cluster_time(token)
            now = await trial.prepare(may_create=False)
            if moment.seconds > now:
                when, clock = iso(moment.seconds), iso(now)
                raise _invalid(
                    "token", f"is of another deployment: it lies in the future, {when}; MongoDB's clock says {clock}"
                )
            with pymongo.timeout(PROBE_SECONDS):
                owner = await owner_of(self._client, watcher.source, token)
            if owner is not None and not _is_place_in(owner, watcher.source):
                raise _invalid("token", f"belongs to {owner}, not to {watcher.source.namespace}")
            await verify(trial, token)

    async def _refuse_other_case(self, watcher: Watcher) -> None:
        """Refuse a database that MongoDB would refuse to create: no two may differ in case alone."""
        wanted = {"source.database": watcher.source.database}
        if watcher.checkpoint is not None:
            wanted["checkpoint.database"] = watcher.checkpoint.database
        wanted = {field: name for field, name in wanted.items() if name}
        seen, known = self._databases
        if time.monotonic() - seen < DATABASES_SECONDS and known.issuperset(wanted.values()):
            return  # where a name exists there is no twin of it
        lower = [name.lower() for name in wanted.values()]
        listed = await self._ask_or_none(
            "admin",
            {"listDatabases": 1, "nameOnly": True, "filter": {"$expr": {"$in": [{"$toLower": "$name"}, lower]}}},
        )
        existing = [str(entry["name"]) for entry in (listed or {}).get("databases", ())]
        self._databases = time.monotonic(), frozenset(existing)
        for field, name in wanted.items():
            twin = next((other for other in existing if other.lower() == name.lower()), name)
            if name not in existing and twin != name:
                problem = f"is {name}, but there is a database {twin}: MongoDB allows no two that differ in case alone"
                raise _invalid(field, f"{problem}; write {twin}, or choose another name")

    async def _refuse_missing_images(self, watcher: Watcher) -> None:
        """Refuse images that are required and that nobody switches on: the first change would end the stream."""
        source = watcher.source
        required = [
            field for field in ("full_document", "full_document_before_change") if getattr(source, field) == "required"
        ]
        if not required or source.pre_and_post_images:
            return
        for database, name in source.named:
            await self._refuse_without_images(database, name, f"source.{required[0]}")

    async def _refuse_without_images(self, database: str, name: str, field: str) -> None:
        listed = await self._ask_or_none(database, described_by(name))
        if listed is None:
            return
        found, quoted = description(listed), json.dumps(name)
        if images.are_kept(found):
            return
        if found is None:
            command, state = "create", "does not exist yet and would keep no images"
        else:
            command, state = "collMod", "keeps no pre- and post-images"
        raise _invalid(
            field,
            f"is `required`, but {database}.{name} {state}: set source.pre_and_post_images to true, run "
            f"db.runCommand({{{command}: {quoted}, {images.OPTION_TEXT}}}) in {database}, or ask for "
            "`whenAvailable`",
        )

    async def _ask_or_none(self, database: str, command: dict[str, Any]) -> Mapping[str, Any] | None:
        """Run a command whose answer helps, and is not open to every account. Raises SourceUnavailable."""
        with where_allowed("looking at its databases", seconds=PROBE_SECONDS):
            reply: Mapping[str, Any] = await self._client[database].command(command)
            return reply
        return None

    async def _lost_on_samples(self, watcher: Watcher, pipeline: list[dict[str, Any]]) -> str | None:
        """Run the pipeline over made-up events, and tell what it takes from them.

        What only chooses events is left out, since it may choose none of them. A pipeline that cannot run on made-up
        values proves nothing: the stream itself watches for what is missing (`watcher_stream.py`). One that does not
        come to an end is not tried again.
        """
        stages = [stage for stage in pipeline if "$match" not in stage]
        samples = [mongo_pipeline.sample(watcher, operation) for operation in mongo_pipeline.SAMPLED]
        javascript = javascript_in(pipeline)
        left = 1 if javascript else 1 + len(samples)
        events: list[dict[str, Any]] = []
        for some in [samples, *([one] for one in samples)][:left]:  # what fails on a delete may run on an insert
            try:
                events += await self._run(watcher, some, stages)
            except OperationFailure as error:
                if error.code != MAX_TIME_EXPIRED:
                    continue
                if javascript:
                    problem = (
                        f"runs JavaScript ({javascript}) that did not end within {PROBE_SECONDS} s on made-up events"
                    )
                    raise _invalid("source.pipeline", problem) from error
                break
            except PyMongoError:
                break
            if some is samples:
                break
        return next(filter(None, (mongo_pipeline.loss(event, samples) for event in events)), None)

    async def _run(
        self, watcher: Watcher, samples: list[dict[str, Any]], pipeline: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        command = {"aggregate": 1, "pipeline": [{"$documents": samples}, *pipeline], "cursor": {}}
        reply = await run_bounded(self._client, watcher.source.database or "admin", command, seconds=PROBE_SECONDS)
        return list(reply["cursor"]["firstBatch"])


def _is_place_in(owner: str, source: Source) -> bool:
    """Whether a token of this collection may be a position of the source; in a scope, also one that is left out now."""
    database = owner.partition(".")[0]
    return owner == source.namespace or (source.is_scope and source.database in ("", database))


def _invalid(field: str, problem: str) -> Invalid:
    return Invalid(problems=(FieldProblem(field, problem),))


@contextlib.contextmanager
def _refusals(watcher: Watcher, field: str) -> Iterator[None]:
    """Turn what a stream says when it is opened into the answer to a request.

    Trouble with the server or with the service's own account is Unavailable, all else Invalid on `field`.
    """
    try:
        with stream_translated(watcher.source):
            yield
    except TransientError as error:
        raise Unavailable(str(error)) from error
    except PermanentError as error:
        if refuses_account(error.__cause__):
            raise Unavailable(str(error)) from error
        raise _invalid(field, str(error)) from error
