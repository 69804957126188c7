"""MongoDB's errors in the project's terms: which pass by themselves, and which need a person.

A code stands in a table here only where it is known what it means; one that is in none passes, and is tried again.
Where the error has a label that says so (resumable, retryable, overload), it passes too, whatever its code. What is
"permanent" by its code is still looked at twice (`domain/second_look.py`): in a bad moment servers answer with these
codes as well, and with the loss of history the oplog is asked (`trial.py`).

pymongo's classes tell network trouble and failover; everything else is told by the server's code, never by its text.
The server's words reach the message, since they say most; what may quote a document is taken out of them.
Codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml, and what was measured on 6.0.5.
"""

import re
from datetime import UTC, datetime
from typing import Final

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from app.domain.errors import (
    ChangewireError,
    EventTooLarge,
    HistoryLost,
    NotAuthorised,
    SourceRefused,
    SourceUnavailable,
    TransientError,
)
from app.domain.watcher import Source
from app.mongodb import pipeline as mongo_pipeline

NAMESPACE_EXISTS: Final = 48
MAX_TIME_EXPIRED: Final = 50
TOKEN_NOT_FOUND: Final = 280
"""ChangeStreamFatalError: the token's event is not in what this stream sees; also an `_id` altered by the pipeline."""
HISTORY_LOST: Final = frozenset({286, 136})
"""ChangeStreamHistoryLost; CappedPositionLost, which a live cursor gets without a label."""
EVENT_TOO_LARGE: Final = 10334
"""BSONObjectTooLarge: an event, with its documents, is larger than a reply can be."""
NOT_AUTHORISED: Final = 13
DATABASE_DIFFERS_IN_CASE: Final = 13297
ATLAS: Final = 8000
"""AtlasError: Atlas's proxy refuses something for a reason that only its words tell: the account, or the command."""
BAD_CREDENTIALS: Final = frozenset({11, 18, ATLAS})
"""UserNotFound, AuthenticationFailed, and what Atlas says in place of them."""

STANDALONE = (
    "this MongoDB is a standalone server, which has no change streams: it needs a replica set; a single node does: "
    "start it with --replSet and run rs.initiate()"
)
_ALTERED = (
    "the pipeline removes or changes the event's _id, which is the resume token; keep it as it is (in an inclusive "
    "$project it stays unless it is named)"
)
_NO_IMAGE = (
    "an image of the document is `required`, but this pre-image or post-image is missing: switch pre_and_post_images "
    "on, keep pre-images longer (changeStreamOptions.preAndPostImages.expireAfterSeconds), or ask for `whenAvailable`"
)
_UNKNOWN_ERROR: Final = 8
"""What servers before 6.0 say of an `_id` that the pipeline removed; also of all that they have no code for."""
_NO_MATCHING_DOCUMENT: Final = 47
_REFUSED: Final[dict[int, str]] = {
    73: "MongoDB has no change streams on this namespace (a system database or collection)",
    166: "the namespace is a view, which has no change stream; watch the collection it is made from",
    40573: STANDALONE,
}
_PARSER: Final = frozenset({2, 9, 14, 15, 20, 72, 168, 224})
"""BadValue, FailedToParse, TypeMismatch, Overflow, IllegalOperation (a stage that change streams do not take),
InvalidOptions, InvalidPipelineOperator, QueryFeatureNotAllowed: what a pipeline, an option or a token is refused with,
beside the numbers of `_FIRST_LOCATION`. Other commands get them too: only a comparison tells what is refused."""
_FIRST_LOCATION: Final = 10_000
"""From here on a code without a name (`Location40324`) is the number of one check in the server's source, mostly its
parser's. Below, a code without a name is one that this server does not know: 462 on 6.0 is of a later version."""
_TRANSIENT: Final = frozenset(
    {6, 7, 24, 43, 46, 50, 63, 89, 91, 112, 133, 134, 150, 175, 189, 202, 211, 216, 234, 237, 246, 262, 365, 462}
    | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
"""Hosts and networks, stale routing, locks, killed or unknown cursors, time limits, shutdown, stepdown, overload."""
_PASSING_LABELS: Final = (
    "ResumableChangeStreamError",
    "RetryableWriteError",
    "RetryableError",
    "SystemOverloadedError",
    "TransientTransactionError",
)
# What an expression's error quotes comes out of documents: strings in quotes, sub-documents in braces.
_DRIVER_NOISE = re.compile(
    r",? Topology Description:.*|,? Timeout: [0-9.]+s| \(configured timeouts: [^)]*\)|\[Errno [0-9]+\] ", re.DOTALL
)
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|\{.*\}""", re.DOTALL)
_LONGEST = 600


def words(error: PyMongoError) -> str:
    """Return what the server (or the driver) says, without the reply that pymongo appends and in bounded length."""
    if isinstance(error, OperationFailure):
        details = error.details or {}
        text = str(details.get("errmsg") or error).partition(", full error:")[0]
        return f"{text[:_LONGEST]} (code {error.code})"
    return _DRIVER_NOISE.sub("", str(error)).replace(",", ", ").replace(",  ", ", ")[:_LONGEST]


def quiet_words(error: PyMongoError) -> str:
    """As `words`, without anything that may be quoted from a document."""
    return _QUOTED.sub("…", words(error)) if isinstance(error, OperationFailure) else words(error)


def passing(error: PyMongoError) -> bool:
    """Whether an error of an ordinary command goes away by itself, as far as its class, labels or code tell."""
    return not isinstance(error, OperationFailure) or (error.code or 0) in _TRANSIENT or labelled(error)


def labelled(error: PyMongoError) -> bool:
    """Whether the server says itself that trying again is right; where it is overloaded, later and not more often."""
    return any(error.has_error_label(label) for label in _PASSING_LABELS)


def of_parser(error: OperationFailure) -> bool:
    """Whether an error is one by which a pipeline, an option or a token is refused, if by comparison it is that."""
    code = error.code or 0
    if labelled(error) or code in _TRANSIENT:
        return False
    return code in _PARSER or (code >= _FIRST_LOCATION and code != EVENT_TOO_LARGE)


def not_authorised(error: OperationFailure, *, grant: str) -> NotAuthorised:
    """Say what to grant, or that the account itself is refused. `grant` completes "grant it …"."""
    if error.code == ATLAS:
        return NotAuthorised(
            f"MongoDB Atlas refuses what was asked with the account in MONGO_URI: {quiet_words(error)}"
        )
    if error.code in BAD_CREDENTIALS:
        return NotAuthorised(f"MongoDB refuses the account in MONGO_URI: {words(error)}")
    return NotAuthorised(f"the MongoDB account lacks a privilege; grant it {grant}. MongoDB says: {quiet_words(error)}")


def unavailable(
    error: PyMongoError, *, doing: str, grant: str, kind: type[TransientError] = SourceUnavailable
) -> ChangewireError:
    """Translate an error of an ordinary command: NotAuthorised, or `kind` for everything else.

    `doing` completes "MongoDB failed while …" and `grant` "grant it …".
    """
    if isinstance(error, OperationFailure) and not isinstance(error, WTimeoutError):
        if passing(error):
            return kind(f"MongoDB failed while {doing}: {quiet_words(error)}")
        if error.code == NOT_AUTHORISED or error.code in BAD_CREDENTIALS:
            return not_authorised(error, grant=grant)
        if error.code == DATABASE_DIFFERS_IN_CASE:
            return SourceRefused(f"MongoDB allows no two databases that differ in case alone: {words(error)}")
        return kind(f"MongoDB failed while {doing}: {quiet_words(error)}")
    if isinstance(error, ServerSelectionTimeoutError):
        return kind(f"MongoDB cannot be reached: {words(error)}")
    return kind(f"MongoDB cannot be reached while {doing}: {words(error)}")


def of_stream(error: PyMongoError, source: Source) -> ChangewireError | None:
    """Translate an error of a change stream's aggregate or getMore as far as its class or code tells what it is.

    None for an operation failure that neither tells, and for 280: who opened the stream finds that out by trying.
    """
    namespace = source.namespace
    if not isinstance(error, OperationFailure):
        if isinstance(error, ConnectionFailure | InvalidOperation | ConfigurationError):
            return SourceUnavailable(f"MongoDB cannot be reached while reading {namespace}: {words(error)}")
        return SourceUnavailable(f"reading {namespace} failed: {words(error)}")
    if passing(error):
        return SourceUnavailable(f"MongoDB interrupted reading {namespace}: {quiet_words(error)}")
    code = error.code or 0
    if code == NOT_AUTHORISED or code in BAD_CREDENTIALS:
        return not_authorised(error, grant=f"find and changeStream on {namespace} (the role read has both)")
    if code in HISTORY_LOST:
        return HistoryLost(f"the oplog no longer reaches back to the position of {namespace}: {words(error)}")
    if code == TOKEN_NOT_FOUND:
        altered = "modified by the pipeline" in words(error)
        return SourceRefused(f"{namespace}: {_ALTERED}. MongoDB says: {quiet_words(error)}") if altered else None
    if code == EVENT_TOO_LARGE:
        return EventTooLarge(
            f"an event of {namespace} exceeds the 16 MiB that MongoDB can send, even without its documents: take the "
            f"large fields out with a $project in the pipeline. MongoDB says: {quiet_words(error)}"
        )
    refused = _refusal(code, source)
    return None if refused is None else SourceRefused(f"{namespace}: {refused}. MongoDB says: {quiet_words(error)}")


def _refusal(code: int, source: Source) -> str | None:
    """What a code says of this source, where such a source can get it at all."""
    if code == _UNKNOWN_ERROR:
        return _ALTERED if mongo_pipeline.reshapes(source.pipeline) else None
    if code == _NO_MATCHING_DOCUMENT:
        return _NO_IMAGE if "required" in (source.full_document, source.full_document_before_change) else None
    return _REFUSED.get(code)


def iso(seconds: float) -> str:
    """Write seconds since 1970 as `2026-01-01T00:00:00Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
