"""Everything that can go wrong, as one tree; the branch says what the service does about it.

    ChangewireError
    ├── TransientError          try again indefinitely, with backoff    -> RETRYING
    │   ├── SourceUnavailable       MongoDB cannot be reached, failover, cursor killed
    │   │   ├── MomentGone              MongoDB cannot be read as of that cluster time (any more)
    │   │   └── ReadTooLong             a snapshot's read takes too long: fewer documents are asked for
    │   ├── SinkUnavailable         NATS cannot be reached, no answer in time
    │   ├── StreamRefused           the stream is sealed, deleted, without a leader
    │   │   └── StreamFull              it has no room for so many messages now, or takes no batch that large
    │   └── StoreUnavailable        the stored watchers or checkpoints cannot be read or written
    ├── PermanentError          a person has to act                     -> FAILED, once it is certain
    │   ├── HistoryLost             the oplog no longer reaches back to the position
    │   ├── TokenRefused            MongoDB does not take the resume token
    │   ├── ScopeMismatch           the checkpoint was made for another collection or deployment
    │   ├── SourceRefused           pipeline, view, system database, standalone server
    │   ├── NotAuthorised           the account lacks a right that the watcher needs
    │   │   └── StateOutOfReach         the account has no right to the state database
    │   ├── StreamUnsuitable        the stream cannot carry this watcher
    │   ├── PositionUndecidable     neither stream nor checkpoint tells how far the watcher got
    │   ├── MessageTooLarge         over NATS's max_payload while `oversize` is `fail`, or the pointer to it
    │   ├── EventNotEncodable       an event has no Extended JSON form (a dead letter), and no token either
    │   └── EventTooLarge           an event exceeds the 16 MiB that MongoDB can send, however reduced
    ├── OutcomeUnknown          the batch may or may not be stored: read back, never guess
    │   ├── FenceLost               another message is where this batch expected to be
    │   └── SeenBefore              the stream's duplicate window knows one of the ids
    ├── CollectionMoved         a snapshot's collection has another name, or is gone
    ├── Stale                   the watcher's epoch or configuration moved on: open again
    ├── Fenced                  another writer keeps winning: stand by
    └── RegistryError           a request is refused, and nothing is changed
        ├── Invalid                 its fields are wrong
        ├── NotFound                there is no such watcher, or no such dead letter
        ├── Conflict                it contradicts what is stored or runs
        ├── Outdated                it expects another revision of the watcher
        ├── Elsewhere               another instance owns the watcher, or takes it over now
        └── Unavailable             a server that is needed to decide cannot be reached
            └── InstanceSilent          the instance that runs the watcher does not answer

`mongodb/` and `jetstream/` translate their vendors' errors into these and keep the cause (`raise … from error`). A
message is for people: it says what is wrong and what to do, and never holds a secret. A class's docstring is its
default message. Which HTTP status answers which error is in `api/problems.py`.
"""

from dataclasses import dataclass

SOON = 3.0
"""Seconds after which a server is asked again, before its answer is believed."""


class ChangewireError(Exception):
    """Something went wrong in Changewire."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class TransientError(ChangewireError):
    """The same attempt may succeed later."""


class SourceUnavailable(TransientError):
    """MongoDB cannot be reached."""


class MomentGone(SourceUnavailable):
    """MongoDB cannot be read as of that time any more."""


class ReadTooLong(SourceUnavailable):
    """MongoDB did not read so much within the time that a read may take."""


class SinkUnavailable(TransientError):
    """NATS cannot be reached."""


class StreamRefused(TransientError):
    """The stream does not take messages at present."""


class StreamFull(StreamRefused):
    """The stream has no room for so many messages at present; fewer may find some.

    `tried` is how many messages were refused together, `limit` the most that the server says it takes in one batch.
    The first `stored` changes of the publish went before them and are stored, the last of them at `sequence`.
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
    """A server may report this while a trouble passes. So it is believed only when it comes again this many seconds
    later, with nothing else in between (`second_look.py`). 0: believed at once, because the service has found it out
    by itself and it may not show a second time."""


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
    """A user or a role that is being replaced is missing for a moment; how long depends on the server."""


class StateOutOfReach(NotAuthorised):
    """The account may not use the state database."""


class StreamUnsuitable(PermanentError):
    """The stream cannot carry this watcher."""

    confirm_seconds = SOON


class PositionUndecidable(PermanentError):
    """Neither the stream nor the checkpoint tells how far the watcher got."""


class MessageTooLarge(PermanentError):
    """A message exceeds what the NATS server takes."""


class EventNotEncodable(PermanentError):
    """An event cannot be written as Extended JSON."""


class EventTooLarge(PermanentError):
    """An event exceeds the 16 MiB that MongoDB can send."""

    confirm_seconds = SOON


class OutcomeUnknown(ChangewireError):
    """Whether the batch was stored is not known.

    `unsettled` are sequences at which another writer's message may have taken the place of ours, each with our id.
    The first `stored` changes are acknowledged, the last of them at `sequence`. That needs no reading back, and on a
    stream whose messages are consumed at once reading back might not show it.
    """

    unsettled: tuple[tuple[int, str], ...] = ()
    stored: int = 0
    sequence: int = 0


class FenceLost(OutcomeUnknown):
    """The stream has moved on since the batch was fenced."""


class SeenBefore(OutcomeUnknown):
    """The stream's duplicate window already knows a message of the batch."""


class CollectionMoved(ChangewireError):
    """A snapshot's collection has another name. `namespace` is that name, None where it is gone."""

    def __init__(self, namespace: str | None) -> None:
        super().__init__(f"the collection is {namespace} by now" if namespace else "the collection is gone")
        self.namespace = namespace


class Stale(ChangewireError):
    """The watcher's epoch or configuration has moved on."""


class Fenced(ChangewireError):
    """Another writer keeps publishing this watcher's changes."""


class RegistryError(ChangewireError):
    """The request is refused; it changed nothing."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with a request: `field` is a dotted path such as `sink.stream`, `problem` a sentence without it.

    `watcher` is the name of the watcher that it is about, where a request has several."""

    field: str
    problem: str
    watcher: str | None = None

    def within(self, part: str) -> bool:
        """Whether it is about a part of a watcher, such as `sink`, or about something in it."""
        return self.field == part or self.field.startswith(f"{part}.")

    def of(self, number: int, watcher: str) -> "FieldProblem":
        """The same of one in a list of watchers: `[3].sink.stream`."""
        return FieldProblem(f"[{number}].{self.field}", self.problem, watcher)


class Invalid(RegistryError):
    """The request is not valid."""

    def __init__(self, message: str = "", problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(message or "; ".join(f"{p.field}: {p.problem}" for p in problems))
        self.problems = problems


class NotFound(RegistryError):
    """There is no such watcher."""


class Conflict(RegistryError):
    """The request contradicts what is stored or runs."""

    def __init__(self, message: str = "", problems: tuple[FieldProblem, ...] = ()) -> None:
        """`problems` are the fields with which it can be put right, where there are any."""
        super().__init__(message)
        self.problems = problems


class Outdated(RegistryError):
    """The watcher has another revision than the request expects (`If-Match`)."""


class Elsewhere(RegistryError):
    """Another instance owns the watcher, or takes it over at this moment; nothing was changed."""


class Unavailable(RegistryError):
    """A server that is needed to answer this cannot be reached."""


class InstanceSilent(Unavailable):
    """Another instance, which runs the watcher, does not answer.

    `begun`: whether it may have carried out what it was asked all the same."""

    def __init__(self, message: str = "", *, begun: bool = False) -> None:
        super().__init__(message)
        self.begun = begun
