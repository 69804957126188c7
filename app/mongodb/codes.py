"""The meaning of MongoDB's error codes and labels: one table.

The table holds only codes whose meaning is known; any other is UNKNOWN and is tried again. Where the error has a label
that says so (resumable, retryable, overload), it passes, whatever its code. pymongo's classes tell network trouble and
failover; everything else is told by the server's code, never by its text. A module compares a code by itself only where
that decides a single step of its own, such as a probe that ran out of time (`start.py`) or a stage that the server does
not know (`large_events.py`).

Codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml, and what was measured on 6.0.5.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from pymongo.errors import OperationFailure, PyMongoError

NAMESPACE_EXISTS: Final = 48
MAX_TIME_EXPIRED: Final = 50
ILLEGAL_OPERATION: Final = 20
TOKEN_NOT_FOUND: Final = 280
"""ChangeStreamFatalError: the token's event is not in what this stream sees; also an `_id` altered by the pipeline."""
EVENT_TOO_LARGE: Final = 10334
"""BSONObjectTooLarge: an event, with its documents, is larger than a reply can be."""
ATLAS: Final = 8000
"""AtlasError: Atlas's proxy refuses something for a reason that only its words tell: the account, or the command."""
DUPLICATE_KEY: Final = 11000
NO_REPLICA_SET: Final = 40573
_FIRST_LOCATION: Final = 10_000
"""From here on a code without a name (`Location40324`) is the number of one check in the server's source, mostly its
parser's. Below, a code without a name is one that this server does not know: 462 on 6.0 is of a later version."""


class Meaning(Enum):
    """What an error is about, as far as its class, labels and code tell."""

    PASSING = auto()
    """It goes away by itself: hosts and networks, stale routing, locks, killed or unknown cursors, time limits,
    shutdown, stepdown, overload."""
    ACCOUNT_REFUSED = auto()
    PRIVILEGE_MISSING = auto()
    HISTORY_LOST = auto()
    """The oplog no longer reaches back to the position. In a bad moment a server says so of one that is still there."""
    TOKEN_NOT_FOUND = auto()
    EVENT_TOO_LARGE = auto()
    EXISTS = auto()
    """A collection that was to be created exists."""
    DIFFERS_IN_CASE = auto()
    """A database exists whose name differs from the new one's in case alone."""
    NO_CHANGE_STREAM = auto()
    """This namespace, or this kind of server, has no change streams."""
    NO_MATCHING_DOCUMENT = auto()
    """An image that is required is missing."""
    UNSPECIFIED = auto()
    """The server has no code for it. Before 6.0 also: the pipeline removed the event's `_id`."""
    PARSER = auto()
    """What a pipeline, an option or a token is refused with. Other commands get these codes too: only a comparison
    tells what is refused."""
    UNKNOWN = auto()


_CODES: Final[Mapping[Meaning, frozenset[int]]] = {
    Meaning.PASSING: frozenset(
        {6, 7, 24, 43, 46, MAX_TIME_EXPIRED, 63, 89, 91, 112, 133, 134, 150, 175, 189, 202, 211, 216, 234, 237, 246}
        | {262, 365, 462, 9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
    ),
    Meaning.ACCOUNT_REFUSED: frozenset({11, 18, ATLAS}),  # UserNotFound, AuthenticationFailed, AtlasError
    Meaning.PRIVILEGE_MISSING: frozenset({13}),
    Meaning.HISTORY_LOST: frozenset({286, 136}),  # CappedPositionLost: what a live cursor gets, without a label
    Meaning.TOKEN_NOT_FOUND: frozenset({TOKEN_NOT_FOUND}),
    Meaning.EVENT_TOO_LARGE: frozenset({EVENT_TOO_LARGE}),
    Meaning.EXISTS: frozenset({NAMESPACE_EXISTS}),
    Meaning.DIFFERS_IN_CASE: frozenset({13297}),
    Meaning.NO_CHANGE_STREAM: frozenset({73, 166, NO_REPLICA_SET}),
    Meaning.NO_MATCHING_DOCUMENT: frozenset({47}),
    Meaning.UNSPECIFIED: frozenset({8}),
    # BadValue, FailedToParse, TypeMismatch, Overflow, IllegalOperation (a stage that change streams do not take),
    # InvalidOptions, InvalidPipelineOperator, QueryFeatureNotAllowed; and every code from _FIRST_LOCATION on.
    Meaning.PARSER: frozenset({2, 9, 14, 15, ILLEGAL_OPERATION, 72, 168, 224}),
}
_MEANINGS: Final = {code: meaning for meaning, codes in _CODES.items() for code in codes}
_PASSING_LABELS: Final = (
    "ResumableChangeStreamError",
    "RetryableWriteError",
    "RetryableError",
    "SystemOverloadedError",
    "TransientTransactionError",
)


def meaning_of(error: PyMongoError) -> Meaning:
    """Return what an error means. What is no answer of the server's (network, failover, time-out) passes."""
    if not isinstance(error, OperationFailure) or _labelled(error):
        return Meaning.PASSING
    code = error.code or 0
    return _MEANINGS.get(code, Meaning.PARSER if code >= _FIRST_LOCATION else Meaning.UNKNOWN)


def passes(error: PyMongoError) -> bool:
    """Whether an error goes away by itself."""
    return meaning_of(error) is Meaning.PASSING


def is_too_large(error: PyMongoError) -> bool:
    """Whether an event among those that were asked for is larger than a reply can be, whatever the labels say."""
    return isinstance(error, OperationFailure) and error.code == EVENT_TOO_LARGE


def already_exists(error: OperationFailure) -> bool:
    """Whether a collection that was to be created exists."""
    return error.code == NAMESPACE_EXISTS


def refuses_account(error: BaseException | None) -> bool:
    """Whether the account in MONGO_URI itself is refused, not only what it asks for."""
    return isinstance(error, OperationFailure) and error.code in _CODES[Meaning.ACCOUNT_REFUSED]


def _labelled(error: PyMongoError) -> bool:
    """Whether the server says itself that trying again is right; where it is overloaded, later and not more often."""
    return any(error.has_error_label(label) for label in _PASSING_LABELS)
