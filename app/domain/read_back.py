"""Where a writer is after a publish whose outcome is unknown: one decision, from the stream's end as it is now.

What is already published is not published again, even if another instance did it. The rest is published after the
new fence. Where messages are gone before anyone looks (consumed from a work queue, say), the stream's sequence still
counts them. Reading the end and taking the result over is the ledger's part (`pipeline/ledger.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain.counted import count_gone
from app.domain.errors import Stale
from app.domain.evidence import Claim, claim_of_read_back
from app.domain.position import Reached, Tail, check_searched, last_own, lost_end, news


@dataclass(frozen=True, slots=True)
class Writer:
    """What a writer knows of itself before it looks.

    `waiting` are the tokens of the changes it wants to publish, in their order, `sent` the last token of what went out
    and was not heard of. The next `passing` changes are counted as published already. `out_of_turn` messages that are
    no changes may be there because of what was sent.
    """

    reached: Reached
    waiting: Sequence[str] = ()
    sent: str = ""
    passing: int = 0
    out_of_turn: int = 0


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the stream's end says.

    All up to `reached` is on the stream, and `fence` is what the next publish expects. `claim` has to be proved before
    either is believed. `hidden` messages are gone, though the stream counts them; `others` of them this writer has not
    sent. `passing` changes are still to come that are published already.
    """

    reached: Reached
    fence: int
    claim: Claim | None
    hidden: int
    others: int
    passing: int


def decide_read_back(writer: Writer, tail: Tail, *, exclusive: bool, displaced: bool, stream: str) -> ReadBack:
    """Decide where a writer is. `displaced` says that another message has the place of its last one.

    Raises Stale where the watcher has to be opened again: an epoch later than ours, a stream recreated or cut short;
    PositionUndecidable where too many messages of others came since."""
    reached = writer.reached
    tail = news(tail, reached)
    _check_still_ours(reached, tail, displaced=displaced)
    token = reached.token
    if tail.own is not None and tail.own.id.epoch == reached.epoch:
        token = max(token, tail.own.id.position)
    claim = claim_of_read_back(token, reached=reached, tail=tail, waiting=writer.waiting, stream=stream)
    passing = 0 if token > reached.token else writer.passing  # what was counted lies before what is found
    hidden = max(0, count_gone(tail, reached) - passing - writer.out_of_turn)
    others = 0
    if hidden:  # consumed before we could look: so many of those that were sent are stored
        rest = [one for one in writer.waiting if one > token]
        if hidden > sum(one <= writer.sent for one in rest):
            others = hidden
        else:
            token = rest[hidden - 1]
    now = replace(
        reached,
        token=token,
        sequence=tail.end - passing,
        own=last_own(tail, reached.epoch, reached.own),
        counted=reached.counted and tail.counts and not tail.foreign and not others,
    )
    return ReadBack(now, tail.fence(exclusive=exclusive), claim, hidden, others, passing)


def _check_still_ours(reached: Reached, tail: Tail, *, displaced: bool) -> None:
    if tail.created != reached.stream_created:
        raise Stale("the stream was deleted and recreated")
    if lost_end(tail, reached, displaced=displaced):
        raise Stale("the stream has lost messages that were acknowledged")
    check_searched(tail)
    if tail.own is not None and tail.own.id.epoch > reached.epoch:
        raise Stale(f"another instance publishes in epoch {tail.own.id.epoch}")
