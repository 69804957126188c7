"""The one table of MongoDB's codes: what an error means, by its class, its labels and its code, in this order."""

import pytest
from pymongo.errors import (
    AutoReconnect,
    CursorNotFound,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from app.mongodb.codes import Meaning, is_too_large, meaning_of, passes, refuses_account


def failure(code: int, *labels: str) -> OperationFailure:
    return OperationFailure("no", code, {"errmsg": "no", "code": code, "errorLabels": list(labels)})


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (11600, Meaning.PASSING),
        (50, Meaning.PASSING),
        (18, Meaning.ACCOUNT_REFUSED),
        (8000, Meaning.ACCOUNT_REFUSED),
        (13, Meaning.PRIVILEGE_MISSING),
        (286, Meaning.HISTORY_LOST),
        (136, Meaning.HISTORY_LOST),
        (280, Meaning.TOKEN_NOT_FOUND),
        (10334, Meaning.EVENT_TOO_LARGE),
        (48, Meaning.EXISTS),
        (13297, Meaning.DIFFERS_IN_CASE),
        (166, Meaning.NO_CHANGE_STREAM),
        (40573, Meaning.NO_CHANGE_STREAM),
        (9, Meaning.PARSER),
        (40324, Meaning.PARSER),
        (10_000, Meaning.PARSER),
        (9_999, Meaning.UNKNOWN),
        (4242, Meaning.UNKNOWN),
        (0, Meaning.UNKNOWN),
    ],
)
def test_a_code_means_one_thing_and_an_unknown_one_nothing(code: int, meaning: Meaning) -> None:
    assert meaning_of(failure(code)) is meaning


@pytest.mark.parametrize("label", ["ResumableChangeStreamError", "RetryableError", "SystemOverloadedError"])
@pytest.mark.parametrize("code", [13, 18, 280, 286, 40324, 4242])
def test_a_label_that_says_try_again_outweighs_every_code(code: int, label: str) -> None:
    assert passes(failure(code, label))
    assert not passes(failure(code, "SomethingElse"))


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("x"),
        NetworkTimeout("x"),
        ServerSelectionTimeoutError("x"),
        NotPrimaryError("x"),
        PyMongoError("x"),
        CursorNotFound("x", 43),
    ],
)
def test_what_is_no_answer_of_the_server_passes(error: PyMongoError) -> None:
    assert passes(error)


def test_an_event_is_too_large_and_an_account_refused_whatever_the_labels_say() -> None:
    assert is_too_large(failure(10334, "RetryableError"))
    assert not is_too_large(AutoReconnect("10334"))
    assert refuses_account(failure(18, "RetryableError"))
    assert not refuses_account(failure(13))
    assert not refuses_account(None)
