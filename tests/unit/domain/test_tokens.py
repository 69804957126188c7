"""Tokens and message ids, on tokens that a mongod 6.0.5 issued."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import TokenRefused
from app.domain.tokens import (
    ClusterTime,
    MessageId,
    cluster_time,
    collection_uuid,
    id_suffix,
    is_mark,
    is_token,
    parse_message_id,
    token_of,
)

INSERT = "826B03F70E000000022B022C0100296E5A1004F21104B3626A4E42B629044FDF2A8DD8461E5F6964002B020004"
MARK = "826B03F706000000022B0229296E04"
DROP = "826B03F70E000000042B022C0100296E5A1004F21104B3626A4E42B629044FDF2A8DD804"
INVALIDATE = "826B03F70E000000042B022C0100296F5A1004F21104B3626A4E42B629044FDF2A8DD804"
ROW = f"{MARK}:3:s:0123456789ab:00000007.000041"


def test_a_token_tells_its_cluster_time() -> None:
    assert cluster_time(INSERT) == ClusterTime(1795421966, 2)
    assert cluster_time(MARK) == ClusterTime(1795421958, 2)


def test_tokens_compare_in_stream_order() -> None:
    assert MARK < INSERT < DROP < INVALIDATE


def test_an_event_belongs_to_a_collection_and_a_mark_to_none() -> None:
    assert collection_uuid(INSERT) == "f21104b3626a4e42b629044fdf2a8dd8"
    assert collection_uuid(MARK) is None


@pytest.mark.parametrize(
    "text", ["", "82", "zz", "826B03F70E0000000", "916B03F70E00000002", "826B03F70E00000002 ", "ü" * 20]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert not is_token(text)
    with pytest.raises(TokenRefused, match="hexadecimal"):
        cluster_time(text)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (INSERT, MessageId(INSERT)),
        (f"{INSERT}:3", MessageId(INSERT, 3)),
        (f"{INSERT}:3:r:{MARK}", MessageId(INSERT, 3, MARK)),
        (f"{INSERT}:0:r:{MARK}:2", MessageId(INSERT, 0, f"{MARK}:2")),
        (ROW, MessageId(ROW, 3)),
        (f"{ROW}:r:{INSERT}", MessageId(ROW, 3, INSERT)),
        (f"{ROW}:r:{ROW}", MessageId(ROW, 3, ROW)),
        (f"{INSERT}:4:r:{ROW}", MessageId(INSERT, 4, ROW)),
    ],
)
def test_ids_of_ours_are_read_and_written(text: str, parsed: MessageId) -> None:
    assert parse_message_id(text) == parsed
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "order-17",
        f"{INSERT}:x",
        f"{INSERT}:1:x",
        f"{INSERT}:-1",
        "82:1",
        f"{MARK}:3:s:",
        f"{MARK}:3:s:run:1.1",
    ],
)
def test_ids_of_others_are_foreign(text: str | None) -> None:
    assert parse_message_id(text) is None


@given(st.text(max_size=80))
def test_reading_an_id_never_raises(text: str) -> None:
    parsed = parse_message_id(text)
    assert parsed is None or token_of(parsed.position) == text.partition(":")[0]


def test_epoch_zero_leaves_the_connectors_ids() -> None:
    assert id_suffix(0) == ""
    assert id_suffix(2) == ":2"


def test_a_mark_is_told_from_events_and_from_a_dropped_databases_invalidate() -> None:
    assert is_mark(MARK)
    assert not any(map(is_mark, (INSERT, DROP, INVALIDATE, "826B0BA953000000862B022C0100296F04")))
