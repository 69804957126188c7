"""What an error says, without what it may quote from a document, and in bounded length."""

from pymongo.errors import AutoReconnect, NotPrimaryError, OperationFailure

from app.mongodb.words import iso, quiet_words, words


def failure(said: str) -> OperationFailure:
    return OperationFailure(f"{said}, full error: {{'n': 'secret'}}", 241, {"errmsg": said})


def test_a_documents_values_are_taken_out() -> None:
    said = """Failed to parse number 'secret' in "secret" of {a: {b: secret}} here"""
    assert quiet_words(failure(said)) == "Failed to parse number … in … of … here (code 241)"
    assert words(failure(said)) == f"{said} (code 241)"


def test_the_reply_that_pymongo_appends_and_its_noise_are_left_out() -> None:
    without_details = OperationFailure("no, full error: {'n': 'secret'}", 5)
    assert words(without_details) == "no (code 5)"
    noise = (
        "a:1: [Errno 111] Connection refused (configured timeouts: connect: 2s), Timeout: 1.8s, Topology Description: x"
    )
    assert words(AutoReconnect(noise)) == "a:1: Connection refused"


def test_it_is_bounded() -> None:
    assert len(words(failure("x" * 10_000))) < 700
    assert len(words(AutoReconnect("x" * 10_000))) == 600


def test_a_time_is_written_in_utc() -> None:
    assert iso(1_767_225_600.9) == "2026-01-01T00:00:00Z"


def test_the_reply_of_a_primary_that_stepped_down_is_left_out() -> None:
    error = NotPrimaryError("not primary, full error: RawBSONDocument(b'...')", {"errmsg": "not primary"})
    assert words(error) == "not primary"
