"""What a watcher's protocol knows and decides by, over all its openings in this process.

Theory of operation
===================

Three places tell how far a watcher has got: the stream's last message, the checkpoint, and this memory. The stream and
the checkpoint survive the process; this memory survives the end of a capture, which is an error, a lost race or a
pause. An opening reads all three and decides (`domain/opening.py`); then the run moves the position on:

    transition       who tells  the position's token  why
    ---------------  ---------  --------------------  -------------------------------------------------
    begin            ledger     anywhere, see below   what the opening has decided
    published        ledger     forward, or the same  the stream has acknowledged it
    came_to          ledger     forward               nothing up to there has to be published
    passed_over      ledger     forward               it is already published, as the stream counts
    read_back        ledger     forward, or the same  the stream's end, after an unknown outcome
    gave_up_count    ledger     the same              the messages counted are not this watcher's
    took_back        ledger     back                  what was passed over may be missing
    followed         standby    forward               another instance has published it
    saw_end          standby    the same              others publish on a shared stream
    forget_position  control    none                  a person moves the watcher, or its route changes

Two invariants hold. A transition that breaks one raises AssertionError and changes nothing; the run ends by it, and the
next opening reads the stream again:

1. An epoch never goes back. Messages of an earlier epoch do not count in a later one.
2. After `begin` the epoch stays, and the token goes back by `took_back` alone. To go back otherwise would publish
   changes again.

`begin` itself may go back within an epoch: where the server has lost the stream's end, what it lost is published again.
`took_back` ends the run: the next opening finds what this one has found, and is refused for the same reason.

Nothing assigns a field from outside. No method awaits, so no other task sees half a transition. What is only shown is
in `run_statistics.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from app.domain.batching import BatchSize
from app.domain.dead_letters import name_of
from app.domain.position import OwnMessage, Reached
from app.domain.watcher import Route


@dataclass(slots=True)
class RunState:
    """One watcher's memory: empty when the process begins, kept over restarts of its capture."""

    _reached: Reached | None = field(default=None, init=False)
    _route: Route | None = field(default=None, init=False)
    _unsettled: tuple[OwnMessage, ...] = field(default=(), init=False)
    _batch: BatchSize = field(default_factory=BatchSize, init=False)
    _operation_time: int = field(default=0, init=False)
    _losses: int = field(default=0, init=False)
    """Races lost in a row to another writer."""
    _ahead: int = field(default=0, init=False)
    """Openings in a row that found the checkpoint ahead of the server's operationTime."""
    _unmet: int = field(default=0, init=False)
    """Looks in a row for a position's event that MongoDB's history had not come to yet."""

    # What is known

    @property
    def reached(self) -> Reached | None:
        """The position up to which all is acknowledged; None where this process knows none."""
        return self._reached

    @property
    def token(self) -> str | None:
        """The token of `reached`."""
        return None if self._reached is None else self._reached.token

    @property
    def route(self) -> Route | None:
        """What the last position was a position of; None before the first opening."""
        return self._route

    @property
    def unsettled(self) -> tuple[OwnMessage, ...]:
        """Messages of ours whose place on the stream another message may have taken."""
        return self._unsettled

    @property
    def operation_time(self) -> int:
        """The server's operationTime as last heard, in seconds since 1970; 0 before the first reply."""
        return self._operation_time

    @property
    def batch(self) -> BatchSize:
        """How many changes the stream takes at once, as far as was found out; the publisher tells it."""
        return self._batch

    # The position

    def begin(self, reached: Reached, route: Route) -> bool:
        """An opening has decided on a position. Return whether it is later than the one known before."""
        before = self._reached
        assert before is None or reached.epoch >= before.epoch, f"epoch {reached.epoch} after {before.epoch}"
        self._reached, self._route = reached, route
        return before is not None and reached.token > before.token

    def published(self, token: str, sequence: int, own: OwnMessage | None) -> None:
        """The stream has acknowledged all up to `token`, with `own` as the last message; so no race is being lost."""
        self._move(replace(self._known, token=token, sequence=sequence, own=own))
        self._losses = 0

    def came_to(self, token: str) -> None:
        """Nothing up to `token` has to be published: it is set aside, not selected, or no change at all."""
        self._move(replace(self._known, token=token))

    def passed_over(self, reached: Reached) -> None:
        """Changes up to there are published already, as the stream's sequence counts them."""
        self._move(reached)

    def read_back(self, reached: Reached) -> None:
        """The stream's end was read, and says how far this epoch has got, whichever instance published it."""
        self._move(reached)

    def gave_up_count(self, reached: Reached) -> None:
        """Messages that were counted as this watcher's are not."""
        assert reached.token == self._known.token, f"{name_of(reached.token)} instead of {name_of(self._known.token)}"
        self._move(reached)

    def took_back(self, reached: Reached) -> None:
        """Changes after `reached` were passed over and may be missing: go back to where that began."""
        known = self._known
        assert reached.epoch == known.epoch, f"epoch {reached.epoch} instead of {known.epoch}"
        assert reached.token <= known.token, f"{name_of(reached.token)} is later than {name_of(known.token)}"
        self._reached = reached

    def followed(self, reached: Reached) -> None:
        """Another instance has published or stored a later position of the same epoch."""
        self._move(reached)

    def saw_end(self, sequence: int) -> None:
        """The stream goes up to `sequence` by now, and what others publish there is not to be counted."""
        known = self._known
        self._move(replace(known, sequence=max(sequence, known.sequence or 0), counted=False))

    def forget_position(self) -> None:
        """What was reached says nothing any more: the watcher was moved on purpose, or goes on by another route."""
        self._reached = None

    # Places on the stream that have to be looked at

    def left_unsettled(self, messages: Iterable[OwnMessage]) -> None:
        """Another message may have taken the place of these; a checkpoint holds them too, if it could be written."""
        self._unsettled = tuple({*self._unsettled, *messages})

    def settled(self) -> None:
        """Every such place was looked at, and holds what it should."""
        self._unsettled = ()

    # What MongoDB and other writers tell

    def prepared(self, operation_time: int) -> None:
        """A server was asked for its time before a stream is opened; a later time that another one told stays."""
        self._operation_time = max(self._operation_time, operation_time)

    def replied(self, operation_time: int) -> None:
        """A change stream's reply tells the time, which is the time to compare its position with."""
        self._operation_time = operation_time

    def look_at_checkpoint(self) -> int:
        """Return how many openings in a row, this one included, may have found the checkpoint ahead of the server."""
        self._ahead += 1
        return self._ahead

    def checkpoint_passed(self) -> None:
        """The checkpoint is not ahead of the server's operationTime."""
        self._ahead = 0

    def looked_up(self, there: bool | None) -> int:
        """Note what a look into MongoDB's history says. Return how many in a row found that it has not come to the
        position yet (None)."""
        self._unmet = self._unmet + 1 if there is None else 0
        return self._unmet

    def lost_race(self) -> int:
        """Another writer was faster. Return how often in a row by now."""
        self._losses += 1
        return self._losses

    def gave_way(self) -> None:
        """This writer stops competing: the next race it loses is the first again."""
        self._losses = 0

    # Inside

    @property
    def _known(self) -> Reached:
        assert self._reached is not None, "begin comes first"
        return self._reached

    def _move(self, reached: Reached) -> None:
        known = self._known
        assert reached.epoch == known.epoch, f"epoch {reached.epoch} instead of {known.epoch}"
        assert reached.token >= known.token, f"{name_of(reached.token)} after {name_of(known.token)}"
        self._reached = reached
