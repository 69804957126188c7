"""What comes after a sequence, as the end of the stream and the next message of the watcher's subjects tell it."""

import pytest

from app.domain.dead_letters import Following
from app.domain.tokens import MessageId
from app.jetstream.sink import what_follows
from app.jetstream.streams import Message, Stream
from tests.fakes import event_token

ID = event_token(5)


def stream(first: int, last: int) -> Stream:
    return Stream({"name": "ORDERS"}, {"first_seq": first, "last_seq": last}, "then")


@pytest.mark.parametrize(
    ("first", "last", "next_", "exclusive", "moved", "whole"),
    [
        (1, 7, None, True, False, True),  # nothing came
        (1, 9, 8, True, True, True),
        (1, 9, 9, True, True, False),  # the message at 8 is gone
        (10, 9, None, True, True, False),  # all that came is gone
        (1, 9, None, False, False, True),  # others' messages alone
        (1, 9, 9, False, True, True),
        (9, 9, 9, False, True, False),  # the message at 8 may have been ours
    ],
)
def test_what_is_gone_shows_in_the_sequences(
    first: int, last: int, next_: int | None, exclusive: bool, moved: bool, whole: bool
) -> None:
    message = None if next_ is None else Message(next_, "ORDERS.insert", ID)
    found = what_follows(stream(first, last), message, 7, exclusive=exclusive)
    assert (found.moved, found.whole, found.there) == (moved, whole, message is not None)


def test_the_next_message_is_told_with_its_id_where_it_has_one() -> None:
    ours = what_follows(stream(1, 8), Message(8, "ORDERS.insert", ID), 7, exclusive=True)
    assert ours == Following("then", 8, MessageId(ID), there=True, moved=True)
    assert what_follows(stream(1, 8), Message(8, "ORDERS.insert", None), 7, exclusive=True).id is None
