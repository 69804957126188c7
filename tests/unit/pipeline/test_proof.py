"""Proving a position: what a look into MongoDB's history means for the watcher."""

import pytest

from app.domain.errors import HistoryLost, ScopeMismatch
from app.domain.evidence import claim_of_message
from app.domain.position import OwnMessage
from app.domain.tokens import MessageId
from app.pipeline.proof import Proof
from app.pipeline.run_state import RunState
from tests.fakes import FakeOplog, FakeSource, event_token, mark_token


async def test_a_replay_of_a_change_that_the_oplog_has_lost_is_believed_by_the_position_it_stands_at() -> None:
    """Dead letters are replayed days later: that disproves nothing, and must not end a standby."""
    oplog = FakeOplog()
    old, recent = oplog.happen(), [oplog.happen() for _ in range(8)][-1]
    oplog.first = 5
    proof = Proof(FakeSource(oplog), RunState())
    at_an_event = claim_of_message(OwnMessage(10, MessageId(recent, 0, old)), "ORDERS")
    assert at_an_event is not None
    assert at_an_event.token == recent
    await proof.of(at_an_event)
    quiet = claim_of_message(OwnMessage(10, MessageId(mark_token(9), 0, old)), "ORDERS")
    assert quiet is not None
    await proof.of(quiet)
    with pytest.raises(HistoryLost):
        await proof.of(claim_of_message(OwnMessage(10, MessageId(old)), "ORDERS"))


async def test_where_a_position_is_gone_on_from_a_change_older_than_the_oplog_passes() -> None:
    """To read on after it fails as well, and the gap is dealt with then."""
    oplog = FakeOplog()
    old = oplog.happen()
    for _ in range(8):
        oplog.happen()
    oplog.first = 5
    proof = Proof(FakeSource(oplog), RunState())
    await proof.of_opening(claim_of_message(OwnMessage(10, MessageId(old)), "ORDERS"))
    with pytest.raises(ScopeMismatch):
        await proof.of_opening(claim_of_message(OwnMessage(10, MessageId(event_token(7, "B2" * 16))), "ORDERS"))


async def test_without_a_claim_nothing_is_asked() -> None:
    source = FakeSource(FakeOplog())
    source.has_event = None  # type: ignore[assignment,method-assign]
    await Proof(source, RunState()).of(None)
