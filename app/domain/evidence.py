"""Whether a position that was found somewhere is one of this deployment: what has to be looked up, and the verdict.

A resume token does not name its deployment. Two deployments whose collections have one name may publish to one stream
by mistake, a stream may take in another region's, and a copied deployment may meet the stream of its original. A token
of theirs compares well, and would silently skip changes of ours. So a position is believed at once only where this
process has published it, or where its checkpoint was written to the very collection that it is read from. Any other has
to be proved: the change that it stands for is looked up in MongoDB's history. Its token is there exactly, or it is
another deployment's.

`ports.ChangeSource.has_event` looks it up, and `pipeline/proof.py` asks for that.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.domain.dead_letters import name_of
from app.domain.errors import ScopeMismatch, SourceUnavailable
from app.domain.position import AHEAD_LOOKS, Checkpoint, OwnMessage, Reached, Tail
from app.domain.tokens import cluster_time, collection_uuid, is_token


@dataclass(frozen=True, slots=True)
class Claim:
    """What says that a position is one of ours: `place` holds it, and it holds if MongoDB has the event of `token`.

    `may_be_lost`: that event may be older than the oplog, and the position believed then."""

    token: str
    place: str
    may_be_lost: bool = False


def claim_of_position(
    token: str, epoch: int, *, tail: Tail | None, checkpoint: Checkpoint | None, memory: Reached | None, stream: str
) -> Claim | None:
    """Return what has to be proved before `token` is gone on from; None where nothing has to be.

    `tail` is the end of the stream on which the watcher published in `epoch`; None where there is no stream.
    Raises ScopeMismatch where nothing can prove the position."""
    if memory is not None and memory.token == token and memory.proved:
        return _claim_of_hiding(tail, epoch, token, memory.sequence, stream)
    if checkpoint is not None and checkpoint.token == token:
        claim = _claim_of_checkpoint(checkpoint)
        return claim or _claim_of_hiding(tail, epoch, token, checkpoint.sequence, stream)
    if tail is not None and tail.own is not None and tail.own.id.position == token:
        return claim_of_message(tail.own, stream)
    return _claim(token, f"the stream {stream}, read a while ago,")


def claim_of_read_back(
    token: str, *, reached: Reached, tail: Tail, waiting: Iterable[str], stream: str
) -> Claim | None:
    """Return what has to be proved before a writer believes the stream's end: a later position `token` that it takes
    over, or that none of its own changes is hidden by the last message.

    A position that is one of the changes that wait, by their tokens, is proved by that.
    """
    own = tail.own
    if own is None:
        return None
    if token > reached.token:
        return None if token in waiting else claim_of_message(own, stream)
    return _claim_of_hiding(tail, reached.epoch, reached.token, reached.sequence, stream)


def claim_of_message(own: OwnMessage, stream: str) -> Claim | None:
    """Return what has to be proved before a message's position is taken over.

    A message out of turn (a replay, a gap's marker) begins with a position that may be a moment in which nothing
    happened; a replay names its change, and that is looked up then. The change may be older than the oplog, though the
    position is not: that disproves nothing.
    """
    place = f"the message {own.sequence} of the stream {stream}"
    claim, original = _claim(own.id.position, place), own.id.original
    if claim is None and original is not None and is_token(original):
        claim = _claim(original, place)
        return None if claim is None else replace(claim, may_be_lost=True)
    return claim


def judge(claim: Claim, there: bool | None, *, operation_time: int, looks: int) -> None:
    """Decide upon what a look into MongoDB's history says: `there`, not there, or (None) not come to yet.

    `operation_time` is the server's, in seconds since 1970, `looks` how often running it was None.
    Raises ScopeMismatch for another deployment's, SourceUnavailable while it cannot be told.
    """
    if there:
        return
    moment = cluster_time(claim.token).seconds
    if there is None and (moment <= operation_time or looks < AHEAD_LOOKS):
        raise SourceUnavailable(f"{claim.place} is ahead of what MongoDB shows; looking again")
    found = "lies in the future of this MongoDB deployment" if there is None else "is not in MongoDB's history"
    raise ScopeMismatch(
        f"{claim.place} tells of a change that {found}: another deployment has made it (token {name_of(claim.token)}). "
        "Give each deployment a stream or subjects of its own, and take in no other stream's messages; where this one "
        "has taken the other's place, rewind the watcher to say where it continues"
    )


def _claim_of_hiding(tail: Tail | None, epoch: int, token: str, sequence: int | None, stream: str) -> Claim | None:
    """Return what has to be proved where the last message, after all that is known, has an earlier position than that.

    No message of this watcher would, and it hides earlier ones of the watcher: their acknowledgement was lost."""
    own = None if tail is None else tail.own
    if own is None or sequence is None or own.sequence <= sequence or own.id.position >= token:
        return None
    in_turn = own.id.original is None and own.id.epoch == epoch
    return claim_of_message(own, stream) if in_turn else None


def _claim_of_checkpoint(checkpoint: Checkpoint) -> Claim | None:
    """Return what has to be proved before a stored position is gone on from. Raises as `claim_of_position`."""
    if checkpoint.native:
        return None
    claim = _claim(checkpoint.token, "the checkpoint")
    if claim is not None or checkpoint.native is None:
        return claim
    claim = None if checkpoint.own is None else claim_of_message(checkpoint.own, "in the checkpoint")
    if claim is None:
        raise ScopeMismatch(
            "the checkpoint was copied here from another collection or deployment, and nothing tells whether it is one "
            "of this deployment; rewind the watcher to say where it continues"
        )
    return claim


def _claim(token: str, place: str) -> Claim | None:
    """A moment in which nothing happened has no event that could be looked up."""
    return Claim(token, place) if collection_uuid(token) is not None else None
