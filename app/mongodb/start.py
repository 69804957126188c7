"""The token of a start position: now, the oplog's beginning, a time, or a token that is verified."""

import asyncio
from typing import Final

from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from app.domain.errors import HistoryLost, NotAuthorised, SourceUnavailable, TokenRefused
from app.domain.tokens import ClusterTime, cluster_time
from app.domain.watcher import Start
from app.mongodb.codes import EVENT_TOO_LARGE, MAX_TIME_EXPIRED, Meaning, meaning_of
from app.mongodb.diagnosis import explained, history_lost, says_lost
from app.mongodb.errors import of_stream
from app.mongodb.stream import after_token, at
from app.mongodb.trial import PROBE_MS, StreamTrial
from app.mongodb.words import iso

EARLIEST_ATTEMPTS: Final = 8
"""A busy server cuts its oplog's beginning off in bursts, also between a look at it and the opening there."""
_READABLE: Final = frozenset({MAX_TIME_EXPIRED, EVENT_TOO_LARGE})
"""What a probe that reads an event may fail with although the stream reads on: a long scan, a large event."""


async def locate(trial: StreamTrial, start: Start) -> str:
    """See `ports.ChangeSource`."""
    try:
        match start.at:
            case "latest":
                return await trial.probe({})
            case "earliest":
                return await _locate_earliest(trial)
            case "timestamp":
                return await _locate_time(trial, float(start.value or 0))
            case "token":
                token = str(start.value)
                await verify(trial, token)
                return token
    except PyMongoError as error:
        raise await explained(trial, error, {}) from error


async def verify(trial: StreamTrial, token: str) -> None:
    """Look whether MongoDB reads on after a token.

    Raises HistoryLost, TokenRefused, and what `ports.ChangeSource.open` raises."""
    moment, start = cluster_time(token), after_token(token)
    try:
        await trial.probe(start, batch_size=1, maxTimeMS=PROBE_MS)
    except OperationFailure as error:
        unseen = meaning_of(error) is Meaning.TOKEN_NOT_FOUND
        if unseen and of_stream(error, trial.request.source) is None:
            await _probe_time(trial, moment)
        elif error.code not in _READABLE:
            raise await explained(trial, error, start) from error
    except PyMongoError as error:
        raise await explained(trial, error, start) from error


async def _locate_earliest(trial: StreamTrial) -> str:
    attempt = 0
    while True:
        try:
            return await _probe_time(trial, await _oplog_first(trial))
        except (HistoryLost, SourceUnavailable) as error:
            attempt += 1
            if not says_lost(error.__cause__) or attempt == EARLIEST_ATTEMPTS:
                raise
        await asyncio.sleep(0.05 * (attempt - 1))


async def _oplog_first(trial: StreamTrial) -> ClusterTime:
    first = await trial.reach.oplog_first(0)
    if first is None:
        raise NotAuthorised(
            "start `earliest` has to read the oplog's first entry (local.oplog.rs), which this account may not "
            "or which mongos does not show: grant it read on local, or start at a timestamp"
        )
    return ClusterTime(first.time, first.inc)


async def _locate_time(trial: StreamTrial, seconds: float) -> str:
    with trial.translated("asking for the time"):
        now: Timestamp = (await trial.reach.hello.ask())["operationTime"]
    if seconds > now.time:
        start, clock = iso(seconds), iso(now.time)
        raise TokenRefused(f"the start {start} lies in the future; MongoDB's clock says {clock}")
    return await _probe_time(trial, ClusterTime(max(1, int(seconds)), 1))


async def _probe_time(trial: StreamTrial, moment: ClusterTime) -> str:
    """Return the high-water mark of a cluster time. Raises HistoryLost where the oplog does not reach back to it."""
    start = at(moment)
    try:
        await trial.probe(start, batch_size=1, maxTimeMS=PROBE_MS)
    except OperationFailure as error:
        if says_lost(error):
            raise await history_lost(trial, start, error) from error
        if error.code not in _READABLE:
            raise
    return await trial.probe(start)
