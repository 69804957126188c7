"""What travels between instances comes back as it was, and what is not a message is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.peer_messages import Answer, Ask

texts = st.text(max_size=30)
headers = st.lists(st.tuples(texts, texts), max_size=4).map(tuple)


@given(
    st.builds(
        Ask,
        method=texts, path=texts, query=texts, headers=headers, body=st.binary(max_size=100), caller=texts,
        role=st.none() | texts, remote=st.none() | texts, through=texts,
    )
)  # fmt: skip
def test_a_request_comes_back_as_it_was(ask: Ask) -> None:
    assert Ask.from_bytes(ask.to_bytes()) == ask


@given(st.builds(Answer, status=st.integers(100, 599), headers=headers, body=st.binary(max_size=100)))
def test_an_answer_comes_back_as_it_was(answer: Answer) -> None:
    assert Answer.from_bytes(answer.to_bytes()) == answer


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0", b"\0\0\0\x09{}", b"\0\0\0\x02[]", b"\0\0\0\x02{}", b"\0\0\0\x02xx", b'\0\0\0\x0c{"method":1}'],
)
def test_what_is_not_a_message_is_a_value_error(data: bytes) -> None:
    for read in (Ask.from_bytes, Answer.from_bytes):
        with pytest.raises(ValueError):  # noqa: PT011 - the words are for a log line
            read(data)


def test_a_header_is_found_by_its_name() -> None:
    answer = Answer(200, (("etag", '"7"'),))
    assert (answer.header("etag"), answer.header("location")) == ('"7"', None)
