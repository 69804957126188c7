"""The tree of everything that can go wrong, as the catalogue of what the service does about it.

    ChangewireError
    ├── TransientError          try again for ever, with backoff        -> RETRYING
    │   ├── SourceUnavailable       MongoDB cannot be reached, failover, cursor killed
    │   ├── SinkUnavailable         NATS cannot be reached, no answer in time
    │   ├── StreamRefused           the stream is sealed, deleted, without a leader
    │   │   └── StreamFull              it has no room for so many messages now, or takes no batch that large
    │   └── StoreUnavailable        the registry or the checkpoints cannot be read or written
    ├── PermanentError          a person has to act                     -> FAILED, once it is certain
    │   ├── HistoryLost             the oplog no longer reaches back to the position
    │   ├── TokenRefused            MongoDB does not take the resume token
    │   ├── ScopeMismatch           the checkpoint was made for another collection or deployment
    │   ├── SourceRefused           pipeline, view, system database, standalone server
    │   ├── NotAuthorised           the account may not do what the watcher needs
    │   │   └── StateOutOfReach         the account has no right to the state database
    │   ├── StreamUnsuitable        the stream cannot carry this watcher
    │   ├── PositionUndecidable     neither stream nor checkpoint tells how far the watcher came
    │   ├── MessageTooLarge         over NATS's max_payload while `oversize` is `fail`, or the pointer to it
    │   ├── EventNotEncodable       an event has no Extended JSON form (a dead letter), and no token either
    │   └── EventTooLarge           an event exceeds the 16 MiB that MongoDB can send, however reduced
    ├── OutcomeUnknown          the batch may or may not be stored: read back, never guess
    │   ├── FenceLost               another message is where this batch expected to be
    │   └── SeenBefore              the stream's duplicate window knows one of the ids
    ├── Stale                   the watcher's epoch or configuration moved on: open again
    ├── Fenced                  another writer keeps winning: stand by
    └── RegistryError           a request that is refused, and changes nothing
        ├── Invalid                 422
        ├── NotFound                404
        ├── Conflict                409
        ├── Outdated                412
        └── Unavailable             503

Adapters translate vendor errors into these at the rim and keep the cause (`raise … from error`). Messages are for
people: they say what is wrong and what to do, and never carry a secret.
"""

from dataclasses import dataclass

SOON = 3.0
"""Seconds after which a server is asked again what it said."""


class ChangewireError(Exception):
    """Something went wrong in Changewire."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class TransientError(ChangewireError):
    """A passing trouble; the same attempt may succeed later."""


class SourceUnavailable(TransientError):
    """MongoDB cannot be reached."""


class SinkUnavailable(TransientError):
    """NATS cannot be reached."""


class StreamRefused(TransientError):
    """The stream does not take messages at present."""


class StreamFull(StreamRefused):
    """The stream has no room for so many messages at present; fewer may find some.

    `tried` is how many messages were refused together, `limit` the most that the server says it takes in one batch.
    The first `stored` of what was to be published went before them and are stored, the last of them at `sequence`.
    """

    tried: int = 1
    limit: int | None = None
    stored: int = 0
    sequence: int = 0


class StoreUnavailable(TransientError):
    """The state kept in MongoDB cannot be read or written."""


class PermanentError(ChangewireError):
    """Trying again would not help; a person has to act."""

    confirm_seconds: float = 0.0
    """Where a server may say this of a trouble that passes: it is believed when it comes again so many seconds later,
    with nothing else in between (`second_look.py`). 0, believed at once, where the service has found it out by itself:
    what went wrong then may not show a second time."""


class HistoryLost(PermanentError):
    """The oplog no longer reaches back to the watcher's position."""

    confirm_seconds = SOON


class TokenRefused(PermanentError):
    """MongoDB does not accept the resume token."""

    confirm_seconds = SOON


class ScopeMismatch(PermanentError):
    """The checkpoint belongs to another collection or deployment."""


class SourceRefused(PermanentError):
    """MongoDB refuses to open this change stream."""

    confirm_seconds = SOON


class NotAuthorised(PermanentError):
    """The account may not do what the watcher needs."""

    confirm_seconds = 10.0
    """A user or a role that is replaced is missing for a moment, and on some servers for longer than on others."""


class StateOutOfReach(NotAuthorised):
    """The account may not use the state database."""


class StreamUnsuitable(PermanentError):
    """The stream cannot carry this watcher."""

    confirm_seconds = SOON


class PositionUndecidable(PermanentError):
    """Neither the stream nor the checkpoint tells how far the watcher came."""


class MessageTooLarge(PermanentError):
    """A message exceeds what the NATS server takes."""


class EventNotEncodable(PermanentError):
    """An event cannot be written as Extended JSON."""


class EventTooLarge(PermanentError):
    """An event exceeds the 16 MiB that MongoDB can send."""

    confirm_seconds = SOON


class OutcomeUnknown(ChangewireError):
    """Whether the batch was stored is not known.

    `doubts` are sequences at which somebody else's message may have taken the place of ours, each with our id.
    The first `stored` changes are acknowledged all the same, the last of them at `sequence`: no reading back is needed
    to know that, and on a stream whose messages are consumed at once it might not show.
    """

    doubts: tuple[tuple[int, str], ...] = ()
    stored: int = 0
    sequence: int = 0


class FenceLost(OutcomeUnknown):
    """The stream has moved on since the batch was fenced."""


class SeenBefore(OutcomeUnknown):
    """The stream's duplicate window already knows a message of the batch."""


class Stale(ChangewireError):
    """The watcher's epoch or configuration has moved on."""


class Fenced(ChangewireError):
    """Another writer keeps publishing this watcher's changes."""


class RegistryError(ChangewireError):
    """A request that cannot be met; it changed nothing."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with a request: `field` is a dotted path such as `sink.stream`, `problem` a sentence."""

    field: str
    problem: str


class Invalid(RegistryError):
    """The request is not valid."""

    def __init__(self, message: str = "", problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(message or "; ".join(f"{p.field}: {p.problem}" for p in problems))
        self.problems = problems


class NotFound(RegistryError):
    """There is no such watcher."""


class Conflict(RegistryError):
    """The request contradicts what is there."""


class Outdated(RegistryError):
    """The watcher is no longer as the request takes for granted (`If-Match`)."""


class Unavailable(RegistryError):
    """A server that is needed to answer this cannot be reached."""
