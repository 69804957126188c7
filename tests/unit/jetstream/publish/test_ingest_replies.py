"""What a server says about a fast-ingest batch, read for what it proves."""

import pytest

from app.domain.errors import FenceLost, OutcomeUnknown, StreamFull, StreamRefused
from app.jetstream.exchange import NO_RESPONDERS
from app.jetstream.publish.ingest_replies import Ended, FlowAck, Place, Reply, Trouble, read_reply

REST = b"500.fail.7.1.$FI"


def error(code: int, words: str = "words") -> bytes:
    return b'{"code":400,"err_code":%d,"description":"%s"}' % (code, words.encode())


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b'{"type":"ack","seq":500,"msgs":250}', FlowAck(500, 250)),
        (b'{"stream":"S","seq":42,"batch":"id","count":7}', Ended("id", 42, 7, duplicate=False)),
        (b'{"stream":"S","seq":3,"duplicate": true,"batch":"id","count":1}', Ended("id", 3, 1, duplicate=True)),
        (b'{"stream":"S","seq":3}', Ended(None, 3, 1, duplicate=False)),
    ],
)
def test_acknowledgements(data: bytes, reply: Reply) -> None:
    assert read_reply(REST, data, None) == reply


@pytest.mark.parametrize(
    ("rest", "data", "kind", "number", "final"),
    [
        (REST, b'{"type":"gap","last_seq":6,"seq":7}', OutcomeUnknown, 7, False),
        (REST, b'{"type":"err","seq":8,"error":%s}' % error(10071), FenceLost, 8, False),
        (REST, b'{"type":"err","seq":8,"error":%s}' % error(10077), StreamFull, 8, False),
        (REST, b'{"stream":"S","seq":0,"error":%s}' % error(10208), OutcomeUnknown, 7, True),
        (REST, b'{"stream":"S","seq":0,"error":%s}' % error(10109), StreamRefused, 7, False),
        (b"500.fail.1.0.$FI", b'{"stream":"S","seq":0,"error":%s}' % error(10205), StreamRefused, 1, True),
        (REST, b"", OutcomeUnknown, 7, True),
        (REST, b"what?", OutcomeUnknown, 7, True),
        (REST, b"[1]", OutcomeUnknown, 7, True),
        (REST, b'{"type":"ack"}', OutcomeUnknown, 7, True),
        (b"odd", b'{"stream":"S","seq":0,"error":%s}' % error(10071), FenceLost, 0, False),
    ],
)
def test_troubles(rest: bytes, data: bytes, kind: type[Exception], number: int, final: bool) -> None:
    reply = read_reply(rest, data, None)
    assert isinstance(reply, Trouble)
    assert (type(reply.error), reply.number, reply.final) == (kind, number, final)


def test_nobody_there() -> None:
    reply = read_reply(REST, b"", NO_RESPONDERS + b"\r\n\r\n")
    assert isinstance(reply, Trouble)
    assert (reply.final, "no stream takes" in str(reply.error)) == (True, True)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'{"stream":"S","seq":42,"duplicate": true,"batch":"x-9-12","count":1}', Place(12, 42)),
        (b'{"stream":"S","seq":0,"error":%s}' % error(10071), Place(12, 0)),
        (b'{"stream":"S","seq":42}', Place(12, 0)),  # stored instead of looked up: no proof, and never counted
        (b"", Place(12, 0)),
        (b"what?", Place(12, 0)),
        (b'{"type":"ack","seq":1,"msgs":1}', None),
    ],
)
def test_a_place_is_where_the_duplicate_window_says_and_nowhere_else(data: bytes, place: Place | None) -> None:
    assert read_reply(b"x-9-12.1.fail.1.2.$FI", data, None) == place
