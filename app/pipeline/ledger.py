"""Where one writer is on its stream: what is acknowledged, what the next publish expects, and how both move on.

The stream is the ledger. This is the writer's own page of it: the position up to which all is on the stream, the fence
(the last sequence that the next publish expects), and the count of messages that are gone. An acknowledgement moves all
three on. After an unknown outcome they are read back from the stream's end instead of guessed
(`domain/read_back.py` decides). The publisher and the replays work on it, one at a time.
"""

from collections.abc import Sequence

import structlog

from app.domain.counted import Counted
from app.domain.dead_letters import Unpublishable
from app.domain.errors import Fenced, OutcomeUnknown, Stale
from app.domain.events import Change
from app.domain.position import OwnMessage, Reached
from app.domain.read_back import Writer, decide_read_back
from app.domain.tokens import is_row, parse_message_id
from app.pipeline.proof import Proof
from app.pipeline.run import Run
from app.pipeline.stream_end import is_displaced
from app.pipeline.window_recovery import WindowRecovery

log = structlog.get_logger(__name__)


class Ledger:
    """One capture's. `begin` comes first."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._watcher = run.watcher
        self._sink = run.ports.sink
        self._run_state = run.state
        self._statistics = run.statistics
        self._window_recovery = WindowRecovery(run.watcher, run.ports.sink, run.ports.checkpoints, run.state)
        self._proof = Proof(run.ports.source, run.state)
        self._fence = 0
        self._sent = ""
        self._gone = Counted()
        self._rows_until = ""
        """The rows of a snapshot up to this position are on the stream; of later ones its position does not tell."""

    def begin(self, reached: Reached, fence: int, *, gone: int = 0, until: int = 0) -> None:
        """Take over the position that the opening has decided.

        The next `gone` changes are published already, and none of them is later than `until` (in seconds since 1970).
        """
        self._rows_until = reached.token
        if self._run_state.begin(reached, self._watcher.route):
            self._statistics.overdue.progressed(self._run.now())  # another instance has published what waited
        self._fence, self._gone = fence, Counted(gone, until)

    @property
    def reached(self) -> Reached:
        """The position up to which all is acknowledged."""
        assert self._run_state.reached is not None, "begin comes first"
        return self._run_state.reached

    @property
    def fence(self) -> int:
        """The sequence that the next publish expects."""
        return self._fence

    def left_at(self, position: str) -> int:
        """How many changes are published already, though their messages are gone, and may be at a position."""
        return 0 if self._gone.overdue(position) else self._gone.left

    @property
    def sent(self) -> str:
        """The last token of what went out and may still arrive: nothing was heard of it."""
        return self._sent

    @property
    def behind(self) -> bool:
        """Whether changes are still to come that are published already."""
        return self._gone.left > 0

    @property
    def rows_until(self) -> str:
        """The position up to which the rows of a snapshot are known to be on the stream: another writer may have gone
        past later ones."""
        return self._rows_until

    def rows_end(self, position: str) -> None:
        """The rows of a snapshot after this position are not on the stream, though another writer went past their
        places. They may have been sent, and still arrive."""
        self._rows_until = min(self._rows_until, position)

    def went_out(self, token: str) -> None:
        """Changes up to this one were sent, and nothing was heard of them."""
        self._sent = max(self._sent, token)

    def acknowledged(self, last: Change, sequence: int) -> None:
        """The stream has all up to this change; `sequence` is its last one now."""
        id_, own = parse_message_id(last.id), self.reached.own
        if id_ is not None and sequence > self._fence:  # else the stream knew the change and has no message of it
            own = OwnMessage(sequence, id_)
        self._rows_until = max(self._rows_until, last.token)  # what comes before it went out before it
        self._fence, self._sent = sequence, ""  # what went out before and has not arrived never will
        self._run_state.published(last.token, sequence, own)

    async def read_back(
        self, waiting: Sequence[Change], error: OutcomeUnknown | None, *, out_of_turn: int = 0
    ) -> Sequence[Change]:
        """Read the stream's end, take its position and fence over, and return what is not there yet.

        `error` is what made that necessary, None for a look beforehand; `out_of_turn` how many messages that are no
        changes may be there because of it. Raises Fenced where the stream counts messages that are gone and that this
        writer has not sent: another instance's, as long as no other program may publish here. Raises as
        `Publisher.publish` as well."""
        reached = self.reached
        if error is not None:  # first of all, since nothing that follows is certain to be reached
            await self._window_recovery.keep(error, reached.epoch)
        tail = await self._sink.tail(since=reached.sequence or 0)
        self._statistics.publishes(self._sink.mode, exclusive=self._sink.exclusive, slower=self._sink.slower)
        await self._window_recovery.settle(reached.epoch, tail.end)
        writer = Writer(reached, [change.token for change in waiting], self._sent, self._gone.left, out_of_turn)
        found = decide_read_back(
            writer, tail, exclusive=self._sink.exclusive, displaced=await is_displaced(self._sink, tail, reached),
            stream=self._watcher.sink.stream,
        )  # fmt: skip
        await self._proof.of(found.claim)
        self._check_rows(found.reached.token, tail.own, waiting)
        if found.reached.token > reached.token:
            self._statistics.overdue.progressed(self._run.now())
        self._run_state.read_back(found.reached)
        self._fence, self._gone.left = found.fence, found.passing
        rest = self.not_there_yet(waiting)
        if error is not None:
            log.info(
                "read_back", watcher=self._watcher.name, type=type(error).__name__, reason=str(error),
                there=len(waiting) - len(rest), rest=len(rest), fence=found.fence, hidden=found.hidden,
            )  # fmt: skip
        if found.others:
            self._run_state.gave_way()
            raise Fenced(f"another writer has published {found.others} messages that are gone already; waiting for it")
        return rest

    def _check_rows(self, position: str, own: OwnMessage | None, waiting: Sequence[Change]) -> None:
        """Look at the position that the stream's end tells, and at its last message. Raises Stale where either is a row
        of a snapshot that is not this writer's: another instance takes that.

        The message may be at an earlier place than the position, which moves on where nothing has to be published."""
        last = own.id.position if own is not None and own.id.epoch == self.reached.epoch else ""
        for place in (last, position):
            if is_row(place) and place > self._rows_until:
                if all(change.token != place for change in waiting):
                    raise Stale("another instance goes on with the snapshot")
                self._rows_until = place

    def not_there_yet(self, waiting: Sequence[Change]) -> Sequence[Change]:
        """Return those of the changes that are later than what is reached.

        Raises Stale where others have published changes that come after rows of a snapshot, and those rows are not
        known to be there: the next opening looks for them."""
        position = self.reached.token
        rest = [change for change in waiting if change.token > position]
        if any(self._rows_until < change.token <= position and is_row(change.token) for change in waiting):
            raise Stale("another writer has published changes that come after the snapshot's rows")
        if there := len(waiting) - len(rest):
            self._already_there(there)
        return rest

    def pass_over(self, waiting: Sequence[Change]) -> Sequence[Change]:
        """Leave out the changes that were counted as published, up to the next dead letter. Raises as `come_to`."""
        passed, reached = self._gone.pass_over(waiting, self.reached)
        if passed:
            self._run_state.passed_over(reached)
            self._rows_until = reached.token
            self._statistics.overdue.progressed(self._run.now())
            self._already_there(passed)
        rest = waiting[passed:]
        if rest and rest[0].letter is None:
            self._check_count(rest[0].token)
        return rest

    def come_to(self, position: str) -> None:
        """All up to a position of the change stream is published, or was not to be. Raises PositionUndecidable where a
        count shows to be wrong."""
        self._check_count(position)
        if position > self.reached.token:
            self._run_state.came_to(position)

    def set_aside(self, letter: Unpublishable, *, new: bool) -> None:
        """Move past a change that is stored among the dead letters; `new` says that it was not there before."""
        self._statistics.overdue.progressed(self._run.now())
        if new and self._gone.left:  # by other settings it may have been a message, and counted as one
            self._give_count_up(letter.token)
        self._run_state.came_to(letter.token)
        self._rows_until = max(self._rows_until, letter.token)

    def _check_count(self, position: str) -> None:
        """Give the count up where the changes that it tells of should have come by now. Raises PositionUndecidable.

        Where no change was passed over, the messages were not the watcher's, and nothing is missing."""
        gone = self._gone
        if not gone.overdue(position):
            return
        if gone.since is not None:
            self._run_state.took_back(gone.since)  # the next opening finds the same
            raise gone.refusal(gone.since, self._watcher.space)
        self._give_count_up(self.reached.token)

    def _give_count_up(self, token: str) -> None:
        log.warning("count_given_up", watcher=self._watcher.name, token=token, left=self._gone.left)
        self._run_state.gave_up_count(self._gone.give_up(self.reached))

    def _already_there(self, count: int) -> None:
        self._statistics.skipped += count
        self._run.shared.observer.skipped(self._watcher.name, "already_there", count)
