"""What the replies to a window leave open: how much is stored for certain, and which places may be somebody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import FenceLost, MessageTooLarge, OutcomeUnknown, SeenBefore, SinkUnavailable
from app.domain.events import Change
from app.jetstream.publish.window import WindowAnswers, overtaken, what_is_unknown
from tests.fakes import event_token

GOOD = b'{"stream":"S","seq":8}'
FENCE = b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence"}}'
FULL = b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}'
HEADERS = b'{"error":{"code":400,"err_code":10097,"description":"header size exceeds"}}'
DUPLICATE = b'{"stream":"S","seq":3,"duplicate":true}'


def changes(count: int) -> list[Change]:
    tokens = [event_token(moment) for moment in range(1, count + 1)]
    return [Change(token, "insert", b"{}", 0.0, token) for token in tokens]


def unknown(*replies: bytes | None, failure: Exception | None = None) -> OutcomeUnknown:
    found = what_is_unknown(replies, changes(len(replies)), 10, failure)
    assert found is not None
    return found


def test_a_window_that_is_acknowledged_leaves_nothing_open() -> None:
    assert what_is_unknown([GOOD] * 5, changes(5), 10, None) is None


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (FENCE, FenceLost, "wrong last sequence"),
        (DUPLICATE, SeenBefore, "sequence 3"),
        (FULL, OutcomeUnknown, "maximum messages"),
        (b"", OutcomeUnknown, "no stream takes"),
        (None, OutcomeUnknown, "not acknowledged"),
    ],
)
def test_the_first_fault_is_the_errors_kind_and_what_is_before_it_is_stored(
    reply: bytes | None, kind: type[OutcomeUnknown], words: str
) -> None:
    error = unknown(GOOD, GOOD, reply, FENCE, FENCE)
    assert type(error) is kind
    assert words in str(error)
    # One change is acknowledged before the window is sent: it counts too.
    assert (error.stored, error.sequence, error.unsettled) == (3, 12, ())


def test_what_ended_the_wait_is_the_reason_and_the_cause() -> None:
    failure = SinkUnavailable("it broke")
    error = unknown(GOOD, None, failure=failure)
    assert "it broke" in str(error)
    assert error.__cause__ is failure


def test_headers_that_nats_refuses_are_no_unknown_outcome() -> None:
    with pytest.raises(MessageTooLarge):
        unknown(GOOD, HEADERS, FENCE)


def test_a_fault_before_an_acknowledgement_names_the_place_and_the_id() -> None:
    error = unknown(GOOD, None, FENCE, GOOD, FENCE)
    assert error.unsettled == ((12, event_token(2)), (13, event_token(3)))
    assert error.stored == 2


@given(st.lists(st.booleans(), max_size=12))
def test_a_place_is_in_doubt_exactly_where_a_later_message_passed(good: list[bool]) -> None:
    assert overtaken(good) == [i for i, fine in enumerate(good) if not fine and any(good[i + 1 :])]


async def test_the_wait_ends_when_all_replies_are_there_and_repeated_ones_do_not_count() -> None:
    answers = WindowAnswers({"S.insert"}, 3)
    for index in (0, 0, 2, 2):
        answers.received(index, GOOD, None)
    assert not answers.outcome.done()
    answers.received(1, DUPLICATE, None)
    assert answers.outcome.done()
    assert answers.replies == [GOOD, DUPLICATE, GOOD]


async def test_after_a_fault_the_other_replies_are_awaited_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jetstream.publish.window.GRACE_SECONDS", 0.01)
    answers = WindowAnswers({"S.insert"}, 3)
    answers.received(0, FENCE, None)
    await answers.outcome
    assert answers.replies == [FENCE, None, None]
