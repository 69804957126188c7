"""What NATS says, as errors of the project: the one translation of all of `jetstream/`.

The same trouble means different things, depending on what was sent. So there is one section for each question:

    sent                     went wrong                    becomes
    -----------------------  ----------------------------  ------------------------------------------------------
    a request to the API     refused, with a code          ApiError, then `refusal` (`refusals` around a block)
                             no answer                     `unanswered`: SinkUnavailable; asking again is harmless
    a publish                refused, with a code          `unstored`: nothing is stored, or FenceLost, SeenBefore
                             no acknowledgement            `unacknowledged`: OutcomeUnknown; it may be stored
    a call of nats-py's      its own error                 `bucket_refusals` around a block
    a connection             cannot be made, or is lost    `NOT_CONNECTED`, and `describe` for the words

Codes are those of `server/errors.json` of nats-server. A code that is in no table is the cautious case: a refusal that
may pass for the API, an unknown outcome for a publish.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import nats.errors
from nats.js.errors import APIError

from app.domain.errors import (
    ChangewireError,
    FenceLost,
    MessageTooLarge,
    NotAuthorised,
    OutcomeUnknown,
    SeenBefore,
    SinkUnavailable,
    StreamFull,
    StreamRefused,
    StreamUnsuitable,
)

# The connection.

NOT_CONNECTED: Final = (OSError, nats.errors.Error, TimeoutError, ValueError)
"""What making a connection raises."""
OUR_CERTIFICATE: Final = "CHANGEWIRE_NATS_TLS_CERT names one of an authority that the server trusts"

_ABOUT_OURS = re.compile(r"ALERT_(.*CERTIFICATE|UNKNOWN_CA)")
"""What a server alerts to when it asked for a certificate and got none, or one it does not trust (RFC 8446, 6.2)."""
_USERINFO = re.compile(r"//[^/@\s]*@")


class ConnectionLost(Exception):
    """The connection broke, or fell silent, while an answer was awaited: what was sent may have arrived."""


class Forbidden(Exception):
    """The server refused a subject to the account."""


NoAnswer = TimeoutError | ConnectionLost | Forbidden
"""Why something that was sent has no answer."""


def without_secrets(url: str) -> str:
    """Return the URL without user, password or token."""
    return _USERINFO.sub("//", url)


def describe(error: BaseException | str) -> str:
    """Return what went wrong with a connection, in words for people and without a secret."""
    text = without_secrets(str(error)).removeprefix("nats: ").strip("'")
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the server's certificate is not accepted ({error.verify_message.rstrip('.')}); CHANGEWIRE_NATS_TLS_CA "
            "names the authority that signed it"
        )
    if isinstance(error, ssl.SSLError) and _ABOUT_OURS.search(error.reason or ""):
        return f"the server does not accept this client's certificate ({error.reason}); {OUR_CERTIFICATE}"
    if "authorization violation" in text.lower():
        return "the server refuses the credentials (authorization violation)"
    return text or type(error).__name__


# A request.

NOT_FOUND: Final = 10059
NO_MESSAGE: Final = 10037
NAME_IN_USE: Final = 10058
SUBJECTS_OVERLAP: Final = 10065
NEEDS_SIZE: Final = 10113

_INVALID_JSON = 10025
_UNKNOWN_SETTING = re.compile(r'unknown field "(\w+)"')
_NO_JETSTREAM = (10035, 10039, 10076)
"""Not enabled for the account, or not at all."""
_WRONG_CONFIGURATION = (10027, 10052, 10065, 10074, 10113, 10122)
"""Settings that the server or the account's limits rule out: trying again would not help."""


class ApiError(Exception):
    """The JetStream API refused a request. `status` is as in HTTP, `code` says exactly what."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", "no description")))
        self.status = int(error.get("code", 0))
        self.code = int(error.get("err_code", 0))


def unknown_setting(error: ApiError) -> str | None:
    """Return the setting that a server refuses because it does not know it: 2.12 and later do that."""
    found = _UNKNOWN_SETTING.search(str(error)) if error.code == _INVALID_JSON else None
    return found.group(1) if found else None


def refusal(error: ApiError, stream: str) -> ChangewireError:
    """Return what an answer of the API about a stream means for a watcher."""
    if error.code == NOT_FOUND:
        return StreamRefused(f"the stream {stream} does not exist")
    if error.code in _NO_JETSTREAM:
        return no_jetstream(error)
    if error.code in _WRONG_CONFIGURATION:
        return StreamUnsuitable(f"NATS refuses the stream {stream}: {error}")
    return StreamRefused(f"NATS refuses the request on the stream {stream}: {error} ({error.code})")


def passing_refusal(error: ApiError, stream: str) -> ChangewireError:
    """Return the same of a stream that is never a reason to fail a watcher, such as that of its dead letters."""
    meaning = refusal(error, stream)
    return StreamRefused(str(meaning)) if isinstance(meaning, StreamUnsuitable) else meaning


@contextmanager
def refusals(stream: str) -> Iterator[None]:
    """Raise each ApiError of the block as what it means for a watcher."""
    try:
        yield
    except ApiError as error:
        raise refusal(error, stream) from error


@contextmanager
def passing_refusals(stream: str) -> Iterator[None]:
    """Raise each ApiError of the block as `passing_refusal`."""
    try:
        yield
    except ApiError as error:
        raise passing_refusal(error, stream) from error


def no_jetstream(error: ApiError) -> SinkUnavailable:
    """Return what a refusal of the question for the account itself means."""
    return SinkUnavailable(f"JetStream is not enabled for the NATS account ({error})")


def unanswered(error: NoAnswer, subject: str, seconds: float) -> ChangewireError:
    """Return what it means that a request got no answer within some seconds."""
    return _silence(error, SinkUnavailable, f"NATS did not answer within {seconds:g} s ({subject})")


def _silence(error: NoAnswer, meaning: type[ChangewireError], words: str) -> ChangewireError:
    """Return `meaning`, with `words` where nothing was heard at all. What is forbidden is never answered either."""
    if isinstance(error, Forbidden):
        return NotAuthorised(str(error))
    return meaning(str(error) if isinstance(error, ConnectionLost) else words)


_FIELDS: Final = {
    10002: "sink.max_bytes",  # the account's limits
    10005: "sink.replicas",  # too few servers
    10023: "sink.max_bytes",  # the servers' resources
    10027: "sink.stream",  # too many streams
    10047: "sink.max_bytes",  # the server's storage
    10074: "sink.replicas",  # a single server
    10113: "sink.max_bytes",  # the account demands one
    10122: "sink.max_bytes",  # above the account's limit for a stream
}
_CONFIGURATION: Final = 10052
"""The code of every other setting; the server's description names it."""
_WORDS: Final = {
    "max age": "sink.max_age_seconds",
    "duplicates window": "sink.duplicate_window_seconds",
    "replicas": "sink.replicas",
    "max bytes": "sink.max_bytes",
}
_CLIENT_ERRORS: Final = range(400, 500)


def field_of(error: ApiError) -> str | None:
    """Return the watcher's field for which the API refuses a stream; None where it says nothing about settings."""
    if error.code == _CONFIGURATION:
        return next((name for words, name in _WORDS.items() if words in str(error)), "sink")
    return _FIELDS.get(error.code) or ("sink" if error.status in _CLIENT_ERRORS else None)


# A publish.

_FENCE = (10071, 10164)
_SEEN = (10201,)
_REFUSED = {
    10054: "the message is larger than the stream's max_msg_size",
    10060: "the watcher's subjects belong to another stream",
    10109: "the stream is sealed",
    10174: "atomic publishing was switched off on the stream",
    10205: "batch publishing (allow_batched) was switched off on the stream",
}
"""Errors after which nothing was stored, and what they mean."""
_FULL = {
    10002: "the account's storage is used up",
    10023: "the server has no room for it",
    10028: "the server's memory is used up",
    10047: "the server's storage is used up",
    10077: "the stream is full or cannot be written; let a consumer empty it, or raise its limits",
    10199: "the server takes no batch that large",
    10210: "the server has too many batches under way",
    10211: "the server has too many fast-ingest batches under way",
}
"""The same, where the server may take fewer messages."""
_HEADERS_TOO_LARGE = 10097
_LIMIT = re.compile(r"too large: (\d+)")


def unstored(error: Mapping[str, Any]) -> ChangewireError:
    """Return what a negative acknowledgement means: an unknown outcome for a code that is not known."""
    code, words = int(error.get("err_code", 0)), str(error.get("description", ""))
    if code in _FENCE:
        return FenceLost(f"another message came first ({words})")
    if code in _SEEN:
        return SeenBefore(f"the stream has seen an id of the batch before ({words})")
    if code in _FULL:
        full = StreamFull(f"{_FULL[code]} ({words})")
        found = _LIMIT.search(words)
        full.limit = int(found.group(1)) if found else None
        return full
    if code == _HEADERS_TOO_LARGE:
        return MessageTooLarge(f"a message's headers exceed what NATS takes ({words})")
    if code in _REFUSED:
        return StreamRefused(f"{_REFUSED[code]} ({words})")
    return OutcomeUnknown(f"the stream answered: {words} ({code})")


def unacknowledged(error: NoAnswer, stream: str, seconds: float) -> ChangewireError:
    """Return what it means that a publish got no acknowledgement within some seconds."""
    return _silence(error, OutcomeUnknown, f"the stream {stream} did not acknowledge within {seconds:.1f} s")


# nats-py's object store.


@contextmanager
def bucket_refusals(bucket: str, refused: str | None = None) -> Iterator[None]:
    """Raise nats-py's errors of the block as what they mean for an object store.

    `refused` says what the server refuses where it answers; without it an answer counts as no answer."""
    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as error:
        if refused is not None and isinstance(error, APIError):
            raise StreamRefused(f"the object store {bucket} refuses {refused}: {error}") from error
        raise SinkUnavailable(f"the object store {bucket} cannot be reached: {error}") from error
