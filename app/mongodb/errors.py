"""The translation of MongoDB's errors into the project's: every one goes through here.

What an error means is in one table (`codes.py`). This module says it in the project's terms, by what was being
done: an ordinary command (`translated`, `where_allowed`), or a change stream (`of_stream`). What is "permanent" by its
code is still looked at twice (`domain/second_look.py`): in a bad moment servers answer with these codes as well. Two
kinds of a stream's errors cannot be told by their code and are looked into (`diagnosis.py`).
"""

import contextlib
from collections.abc import Iterator
from typing import Final

import pymongo
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
from app.mongodb.codes import ATLAS, NO_REPLICA_SET, Meaning, meaning_of, passes, refuses_account
from app.mongodb.words import quiet_words, words

STANDALONE: Final = (
    "this MongoDB is a standalone server, which has no change streams: it needs a replica set; a single node does: "
    "start it with --replSet and run rs.initiate()"
)
_NO_CHANGE_STREAM: Final[dict[int, str]] = {
    73: "MongoDB has no change streams on this namespace (a system database or collection)",
    166: "the namespace is a view or a time series, which has no change stream; watch what the view is made from",
    NO_REPLICA_SET: STANDALONE,
}
_ALTERED: Final = (
    "the pipeline removes or changes the event's _id, which is the resume token; keep it as it is (in an inclusive "
    "$project it stays unless it is named)"
)
_NO_IMAGE: Final = (
    "an image of the document is `required`, but this pre-image or post-image is missing: switch pre_and_post_images "
    "on, keep pre-images longer (changeStreamOptions.preAndPostImages.expireAfterSeconds), or ask for `whenAvailable`"
)


@contextlib.contextmanager
def translated(
    doing: str,
    *,
    grant: str = "",
    kind: type[TransientError] = SourceUnavailable,
    lacking: type[NotAuthorised] = NotAuthorised,
    seconds: float | None = None,
) -> Iterator[None]:
    """Translate the errors of ordinary commands, and bound them in time where `seconds` says so.

    `doing` completes "MongoDB failed while …", `grant` completes "grant it …". Raises NotAuthorised where the account
    is refused, `lacking` where it lacks a privilege, SourceRefused for a name that MongoDB does not take, and `kind`
    for everything else."""
    try:
        with contextlib.nullcontext() if seconds is None else pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        raise of_command(error, doing=doing, grant=grant, kind=kind, lacking=lacking) from error


@contextlib.contextmanager
def where_allowed(
    doing: str, *, kind: type[TransientError] = SourceUnavailable, seconds: float | None = None
) -> Iterator[None]:
    """As `translated`, for a question that not every account may ask: what the server refuses ends in silence, and the
    code within has no answer. Raises `kind` for trouble that passes."""
    try:
        with contextlib.nullcontext() if seconds is None else pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        if passes(error):
            raise of_command(error, doing=doing, kind=kind) from error


@contextlib.contextmanager
def stream_translated(source: Source) -> Iterator[None]:
    """Translate what a change stream says, as `of_stream` does; SourceUnavailable for what that cannot tell."""
    try:
        yield
    except PyMongoError as error:
        raise of_stream(error, source) or unreadable(error, source) from error


def of_command(
    error: PyMongoError,
    *,
    doing: str,
    grant: str = "",
    kind: type[TransientError] = SourceUnavailable,
    lacking: type[NotAuthorised] = NotAuthorised,
) -> ChangewireError:
    """Translate an error of an ordinary command; see `translated`."""
    if isinstance(error, ServerSelectionTimeoutError):
        return unreachable(error, kind=kind)
    if not isinstance(error, OperationFailure) or isinstance(error, WTimeoutError):
        return kind(f"MongoDB cannot be reached while {doing}: {words(error)}")
    match meaning_of(error):
        case Meaning.ACCOUNT_REFUSED | Meaning.PRIVILEGE_MISSING:
            return _not_authorised(error, grant=grant, lacking=lacking)
        case Meaning.DIFFERS_IN_CASE:
            return SourceRefused(f"MongoDB allows no two databases that differ in case alone: {words(error)}")
    return kind(f"MongoDB failed while {doing}: {quiet_words(error)}")


def unreachable(
    error: PyMongoError, *, hint: str = "", kind: type[TransientError] = SourceUnavailable
) -> TransientError:
    """Say that there is no answer, with the driver's words and a hint at the reason."""
    return kind(f"MongoDB cannot be reached: {words(error)}{hint}")


def unreadable(error: PyMongoError, source: Source) -> SourceUnavailable:
    """Say that a change stream failed for a reason that is not known."""
    return SourceUnavailable(f"reading {source.namespace} failed: {quiet_words(error)}")


def of_stream(error: PyMongoError, source: Source) -> ChangewireError | None:
    """Translate an error of a change stream's aggregate or getMore as far as its class or code tells what it is.

    None for an operation failure that neither tells, and for 280: that is found out by trying (`diagnosis.py`).
    """
    namespace = source.namespace
    if not isinstance(error, OperationFailure):
        if isinstance(error, ConnectionFailure | InvalidOperation | ConfigurationError):
            return SourceUnavailable(f"MongoDB cannot be reached while reading {namespace}: {words(error)}")
        return unreadable(error, source)
    meaning = meaning_of(error)
    match meaning:
        case Meaning.PASSING:
            return SourceUnavailable(f"MongoDB interrupted reading {namespace}: {quiet_words(error)}")
        case Meaning.ACCOUNT_REFUSED | Meaning.PRIVILEGE_MISSING:
            return _not_authorised(error, grant=f"find and changeStream on {resource_of(source)}")
        case Meaning.HISTORY_LOST:
            return HistoryLost(f"the oplog no longer reaches back to the position of {namespace}: {words(error)}")
        case Meaning.EVENT_TOO_LARGE:
            return EventTooLarge(
                f"an event of {namespace} exceeds the 16 MiB that MongoDB can send, even without its documents: take "
                f"the large fields out with a $project in the pipeline. MongoDB says: {quiet_words(error)}"
            )
    refused = _refusal(error, meaning, source)
    return None if refused is None else SourceRefused(f"{namespace}: {refused}. MongoDB says: {quiet_words(error)}")


def resource_of(source: Source) -> str:
    """Say what privileges on a source are granted on, and the role that has them."""
    if source.collection:
        return f"{source.namespace} (the role read has both)"
    if source.database:
        database = source.database
        return f'every collection of {database}, {{db: "{database}", collection: ""}} (the role read has both)'
    return 'every collection of the deployment, {db: "", collection: ""} (the role readAnyDatabase has both)'


def _refusal(error: OperationFailure, meaning: Meaning, source: Source) -> str | None:
    """What the server refuses of this source, where such a source can get that at all."""
    match meaning:
        case Meaning.NO_CHANGE_STREAM:
            return _NO_CHANGE_STREAM[error.code or 0]
        case Meaning.TOKEN_NOT_FOUND:
            return _ALTERED if "modified by the pipeline" in words(error) else None
        case Meaning.UNSPECIFIED:
            return _ALTERED if mongo_pipeline.reshapes(source.pipeline) else None
        case Meaning.NO_MATCHING_DOCUMENT:
            return _NO_IMAGE if "required" in (source.full_document, source.full_document_before_change) else None
    return None


def _not_authorised(
    error: OperationFailure, *, grant: str, lacking: type[NotAuthorised] = NotAuthorised
) -> NotAuthorised:
    """Say what to grant, or that the account itself is refused."""
    if error.code == ATLAS:
        return NotAuthorised(
            f"MongoDB Atlas refuses what was asked with the account in MONGO_URI: {quiet_words(error)}"
        )
    if refuses_account(error):
        return NotAuthorised(f"MongoDB refuses the account in MONGO_URI: {words(error)}")
    advice = f"; grant it {grant}" if grant else ""
    return lacking(f"the MongoDB account lacks a privilege{advice}. MongoDB says: {quiet_words(error)}")
