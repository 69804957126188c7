"""Which positions are believed at once, which have to be proved, and by what."""

import pytest

from app.domain.errors import ScopeMismatch, SourceUnavailable
from app.domain.evidence import Claim, claim_of_position, claim_of_read_back, judge
from app.domain.position import AHEAD_LOOKS, Checkpoint, OwnMessage, Reached, Tail
from app.domain.tokens import MessageId, cluster_time, same_event
from tests.fakes import UUID, event_token, mark_token

CREATED = "2026-01-01T00:00:00Z"


def tail(moment: int, original: str | None = None, position: str | None = None) -> Tail:
    return Tail(CREATED, 10, 10, OwnMessage(10, MessageId(position or event_token(moment), 0, original)))


def looked_up(moment: int, tail_: Tail, checkpoint: Checkpoint | None = None, memory: Reached | None = None):
    claim = claim_of_position(
        event_token(moment), 0, tail=tail_, checkpoint=checkpoint, memory=memory, stream="ORDERS"
    )  # fmt: skip
    return claim and claim.token


def test_what_only_the_stream_tells_is_looked_up() -> None:
    assert looked_up(8, tail(8), Checkpoint(event_token(5))) == event_token(8)
    assert looked_up(8, tail(8)) == event_token(8)


def test_what_this_process_has_published_or_stored_is_believed() -> None:
    assert looked_up(8, tail(8), Checkpoint(event_token(8))) is None
    assert looked_up(8, tail(8), None, Reached(event_token(8), 0)) is None
    assert looked_up(9, tail(8), Checkpoint(event_token(9))) is None


def test_what_was_heard_of_another_writer_is_looked_up() -> None:
    assert looked_up(9, tail(8), None, Reached(event_token(9), 0, proved=False)) == event_token(9)


@pytest.mark.parametrize("native", [False, None])
def test_a_checkpoint_of_another_collection_or_program_is_looked_up(native: bool | None) -> None:
    assert looked_up(9, tail(8), Checkpoint(event_token(9), native=native)) == event_token(9)


def test_a_copied_checkpoint_of_a_quiet_moment_is_proved_by_its_last_message_or_refused() -> None:
    own = OwnMessage(3, MessageId(event_token(4)))
    copied = Checkpoint(mark_token(9), native=False, own=own)
    nothing = Tail(CREATED, 0, 0)
    claim = claim_of_position(mark_token(9), 0, tail=nothing, checkpoint=copied, memory=None, stream="ORDERS")
    assert claim is not None
    assert claim.token == event_token(4)
    bare = Checkpoint(mark_token(9), native=False)
    with pytest.raises(ScopeMismatch, match="copied here"):
        claim_of_position(mark_token(9), 0, tail=nothing, checkpoint=bare, memory=None, stream="ORDERS")


def test_a_replay_is_proved_by_the_change_that_it_replays_and_a_marker_of_a_quiet_moment_by_nothing() -> None:
    replay = tail(0, original=event_token(3), position=mark_token(8))
    marker = tail(0, original="gap", position=mark_token(8))
    for tail_, token in ((replay, event_token(3)), (marker, None)):
        claim = claim_of_position(mark_token(8), 0, tail=tail_, checkpoint=None, memory=None, stream="ORDERS")
        assert (claim and claim.token) == token


def test_a_position_that_is_one_of_the_changes_that_wait_needs_no_look() -> None:
    reached = Reached(event_token(3), 0)

    def claim(moment: int, *waiting: int) -> Claim | None:
        tokens = [event_token(one) for one in waiting]
        return claim_of_read_back(
            event_token(moment), reached=reached, tail=tail(moment), waiting=tokens, stream="ORDERS"
        )

    assert claim(5, 4, 5, 6) is None
    assert claim(3, 4, 5, 6) is None, "not later than what is reached"
    for between_or_beyond in (claim(5, 4, 6), claim(9, 4, 5, 6)):
        assert between_or_beyond is not None


def test_the_verdict_names_what_was_found() -> None:
    claim = Claim(event_token(5), "the message 7 of the stream ORDERS")
    now = cluster_time(claim.token).seconds
    judge(claim, True, operation_time=now, looks=0)
    with pytest.raises(ScopeMismatch, match=r"the message 7 of the stream ORDERS .* is not in MongoDB's history"):
        judge(claim, False, operation_time=now, looks=0)
    with pytest.raises(SourceUnavailable):
        judge(claim, None, operation_time=now, looks=1_000)
    with pytest.raises(SourceUnavailable):
        judge(claim, None, operation_time=now - 1, looks=AHEAD_LOOKS - 1)
    with pytest.raises(ScopeMismatch, match="future"):
        judge(claim, None, operation_time=now - 1, looks=AHEAD_LOOKS)


def test_one_event_is_known_by_either_version_of_its_token() -> None:
    first = event_token(5)
    second = first.replace("2B022C0100", "2B042C0100", 1).replace(UUID + "46", UUID + "463C", 1)
    assert second != first
    assert same_event(first, second)
    assert not same_event(event_token(6), second)
    assert not same_event(first.replace("2B02", "2B04", 1).replace(UUID, UUID[::-1], 1), first)
    assert not same_event(first[:-2] + "06", first), "of one version, tokens are equal or not"


def test_a_message_behind_all_that_is_known_with_an_earlier_change_is_looked_up() -> None:
    """It would hide one of ours before it, whose acknowledgement was lost."""
    reached = Reached(event_token(5), 0, 9)
    now = event_token(5)
    hiding = claim_of_read_back(now, reached=reached, tail=tail(3), waiting=[event_token(6)], stream="ORDERS")
    assert hiding is not None
    assert hiding.token == event_token(3)
    known = Reached(event_token(5), 0, 10)
    assert claim_of_read_back(now, reached=known, tail=tail(3), waiting=[], stream="ORDERS") is None
    assert looked_up(5, tail(3), None, reached) == event_token(3)
    assert looked_up(5, tail(3), None, known) is None
