"""MongoDB's errors in the project's terms: which pass by themselves, and which need a person.

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
BAD_CREDENTIALS: Final = frozenset({11, 18, 8000})
"""UserNotFound, AuthenticationFailed, and Atlas's own."""

STANDALONE = (
    "this MongoDB is a standalone server, which has no change streams: it needs a replica set; a single node does: "
    "start it with --replSet and run rs.initiate()"
)
_ALTERED = (
    "the pipeline removes or changes the event's _id, which is the resume token; keep it as it is (in an inclusive "
    "$project it stays unless it is named)"
)
_REFUSED: Final[dict[int, str]] = {
    8: _ALTERED,
    47: "full_document_before_change is `required`, but a pre-image is missing: switch pre_and_post_images on, keep "
    "pre-images longer (changeStreamOptions.preAndPostImages.expireAfterSeconds), or ask for `whenAvailable`",
    73: "MongoDB has no change streams on this namespace (a system database or collection)",
    166: "the namespace is a view, which has no change stream; watch the collection it is made from",
    40573: STANDALONE,
}
_TRANSIENT: Final = frozenset(
    {6, 7, 24, 43, 46, 50, 63, 89, 91, 112, 133, 134, 150, 175, 189, 202, 211, 234, 237, 246, 262}
    | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
"""Hosts and networks, stale routing, locks, killed or unknown cursors, time limits, shutdown, stepdown."""
_TRANSIENT_LABELS: Final = ("ResumableChangeStreamError", "RetryableWriteError", "TransientTransactionError")
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
    """Whether an error of an ordinary command goes away by itself, as far as its class or code tells."""
    return not isinstance(error, OperationFailure) or (error.code or 0) in _TRANSIENT


def not_authorised(error: OperationFailure, *, grant: str) -> NotAuthorised:
    """Say what to grant, or that the account itself is refused. `grant` completes "grant it …"."""
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
        if error.code == NOT_AUTHORISED or error.code in BAD_CREDENTIALS:
            return not_authorised(error, grant=grant)
        if error.code == DATABASE_DIFFERS_IN_CASE:
            return SourceRefused(f"MongoDB allows no two databases that differ in case alone: {words(error)}")
        return kind(f"MongoDB failed while {doing}: {quiet_words(error)}")
    if isinstance(error, ServerSelectionTimeoutError):
        return kind(f"MongoDB cannot be reached: {words(error)}")
    return kind(f"MongoDB cannot be reached while {doing}: {words(error)}")


def of_stream(error: PyMongoError, namespace: str) -> ChangewireError | None:
    """Translate an error of a change stream's aggregate or getMore as far as its class or code tells what it is.

    None for an operation failure that neither tells, and for 280: whoever opened the stream finds that out by trying.
    """
    if not isinstance(error, OperationFailure):
        if isinstance(error, ConnectionFailure | InvalidOperation | ConfigurationError):
            return SourceUnavailable(f"MongoDB cannot be reached while reading {namespace}: {words(error)}")
        return SourceUnavailable(f"reading {namespace} failed: {words(error)}")
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
    if code in _REFUSED:
        return SourceRefused(f"{namespace}: {_REFUSED[code]}. MongoDB says: {quiet_words(error)}")
    if code in _TRANSIENT or any(error.has_error_label(label) for label in _TRANSIENT_LABELS):
        return SourceUnavailable(f"MongoDB interrupted reading {namespace}: {quiet_words(error)}")
    return None


def iso(seconds: float) -> str:
    """Write seconds since 1970 as `2026-01-01T00:00:00Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
