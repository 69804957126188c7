"""Dead letters and receipts as messages: what is written is read, and what is too long is left out."""

from base64 import b64encode
from typing import Any

from app.domain.dead_letters import Receipt, Unpublishable, brief
from app.jetstream.dead_letter_messages import (
    ERROR_LIMIT,
    KEY_LIMIT,
    SHORT_ERROR,
    letter_headers,
    object_header,
    read_letter,
    read_receipt,
    receipt_headers,
    shortened,
)
from app.jetstream.frames import message
from tests.fakes import event_token


def stored(headers: list[tuple[str, str]], sequence: int = 4) -> dict[str, Any]:
    """A message as the API gives it."""
    line, _, rest = message("S.x", "r", headers, b"").partition(b"\r\n")
    block = rest[: int(line.split()[3])]
    return {"seq": sequence, "time": "2026-01-01T00:00:01.123456789Z", "hdrs": b64encode(block).decode()}


def letter(**fields: Any) -> Unpublishable:
    given: dict[str, Any] = {
        "token": event_token(1), "operation": "insert", "reason": "not_encodable", "error": "a decimal",
        "key": '{"_id":1}', "raw": b"12345", "reduced": ("fullDocument", "updateDescription"),
    }  # fmt: skip
    return Unpublishable(**{**given, **fields})


def test_a_letter_is_read_as_it_was_written() -> None:
    one = letter()
    found = read_letter(stored([*letter_headers("orders", one, 3), object_header("BUCKET", "name")]), one.raw)
    assert (found.sequence, found.token, found.operation, found.reason, found.error) == (
        4, brief(one.token), "insert", "not_encodable", "a decimal",
    )  # fmt: skip
    assert (found.size, found.epoch, found.key, found.raw, found.time) == (5, 3, one.key, one.raw, 1767225601.0)
    assert (found.object, found.reduced) == ("BUCKET/name", "fullDocument, updateDescription")


def test_a_message_without_headers_is_an_empty_letter() -> None:
    found = read_letter({"seq": 1, "time": "2026-01-01T00:00:00Z"}, None)
    assert (found.token, found.size, found.epoch, found.key, found.object, found.raw) == ("", 0, 0, None, None, None)


def test_what_is_too_long_is_cut_or_left_out() -> None:
    one = letter(error="e" * 2000, key="k" * (KEY_LIMIT + 1), reduced=())
    headers = dict(letter_headers("orders", one, 0))
    assert len(headers["Changewire-Error"]) == ERROR_LIMIT
    assert not {"Changewire-Key", "Changewire-Reduced"} & headers.keys()
    short = dict(shortened(letter_headers("orders", letter(error="e" * 2000), 0), one))
    assert len(short["Changewire-Error"]) == SHORT_ERROR
    assert "Changewire-Key" not in short


def test_a_receipt_is_read_as_it_was_written() -> None:
    receipt = Receipt(token=event_token(1), epoch=2, fence=17, created="then", sequence=4)
    assert read_receipt(stored(receipt_headers("orders", receipt))) == receipt
