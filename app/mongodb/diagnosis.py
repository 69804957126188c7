"""What an error of a change stream means.

Most errors tell by their code (`codes.py`). Two kinds do not, and are looked into: the server says that the history is
lost, which it also says of a position that is still there when it is asked in a bad moment; and the server's parser
refuses something without telling whether that is the pipeline, an option or the token.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

from pymongo.errors import NetworkTimeout, OperationFailure, PyMongoError

from app.domain.errors import ChangewireError, HistoryLost, SourceRefused, SourceUnavailable, TokenRefused
from app.mongodb.codes import Meaning, meaning_of
from app.mongodb.errors import of_stream, unreadable
from app.mongodb.stream import moment_of
from app.mongodb.trial import PROBE_MS, StreamTrial
from app.mongodb.words import iso, quiet_words, words

AGAIN_SECONDS: Final = 1.0
"""After so long MongoDB is asked again what it said, where nothing else tells whether that is so."""


async def explained(trial: StreamTrial, error: PyMongoError, start: Mapping[str, Any]) -> ChangewireError:
    """Say what an error of the stream, opened at `start`, is; where the code does not tell, try what is refused."""
    if isinstance(error, NetworkTimeout):
        trial.reach.slow.add(trial.namespace)
    known = of_stream(error, trial.request.source)
    if known is not None and not isinstance(known, HistoryLost):
        return known
    if isinstance(error, OperationFailure):
        if says_lost(error) or meaning_of(error) is Meaning.TOKEN_NOT_FOUND:
            return await history_lost(trial, start, error)
        if meaning_of(error) is Meaning.PARSER:
            with contextlib.suppress(PyMongoError):  # where a try fails too, the first error is the one to tell
                return await _refusal(trial, error, start)
    return unreadable(error, trial.request.source)


async def _refusal(trial: StreamTrial, error: OperationFailure, start: Mapping[str, Any]) -> ChangewireError:
    """Find out by comparison what an error of the parser is about. Raises what pymongo raises, where a try fails
    otherwise than by such an error, and `error` where everything opens."""
    refused = await trial.objection()
    if refused is not None:
        return SourceRefused(f"MongoDB refuses the {refused[0]} of {trial.namespace}: {refused[1]}")
    if "startAfter" in start:
        again = await trial.refused(start, pipeline=False)
        if again is not None and again.code == error.code:
            return TokenRefused(f"MongoDB does not take the resume token: {words(again)}")
    raise error


async def history_lost(trial: StreamTrial, start: Mapping[str, Any], error: OperationFailure) -> ChangewireError:
    """Say that the history is lost where the oplog bears that out. Where the oplog may not be read, MongoDB has to say
    it again; else the position may still be there, and this is a passing trouble."""
    moment, first = moment_of(start), None
    with contextlib.suppress(ChangewireError):
        first = await trial.reach.oplog_first(0)
    if first is not None:
        lost = moment is not None and (first.time, first.inc) > (moment.seconds, moment.increment)
        begins = f"it begins at {iso(first.time)}"
    else:
        lost = moment is not None and await _says_so_again(trial, start)
        begins = "its first entry may not be read"
    said = quiet_words(error)
    if moment is None or not lost:
        return SourceUnavailable(
            f"MongoDB says that the history of {trial.namespace} is lost, but the oplog still reaches back to the "
            f"position ({begins}); it is read again from there. MongoDB says: {said}"
        )
    return HistoryLost(
        f"the oplog no longer reaches back to where {trial.namespace} was read up to, "
        f"{iso(moment.seconds)}: {begins}. The changes in between cannot be read any more; rewind "
        "the watcher to say where it continues, and consider a larger oplog (replSetResizeOplog). "
        f"MongoDB says: {said}"
    )


async def _says_so_again(trial: StreamTrial, start: Mapping[str, Any]) -> bool:
    await asyncio.sleep(AGAIN_SECONDS)
    try:
        await trial.probe(start, batch_size=1, maxTimeMS=PROBE_MS)
    except OperationFailure as error:
        return says_lost(error) or meaning_of(error) is Meaning.TOKEN_NOT_FOUND
    except PyMongoError:
        return False
    return False


def says_lost(error: BaseException | None) -> bool:
    """Whether the server says that its oplog no longer reaches back, and not at the same time to try again."""
    return isinstance(error, PyMongoError) and meaning_of(error) is Meaning.HISTORY_LOST
