"""How many connections the change streams of a process need, and what is said where there are fewer."""

import pytest
from structlog.testing import capture_logs

from app.mongodb.pool import MOST, SPARE, PoolWatch, asked_for, shortage


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("mongodb://h/?replicaSet=rs0", None),
        ("mongodb://h/?maxPoolSize=2", 2),
        ("mongodb://h/?replicaSet=rs0&MAXPOOLSIZE=50&w=1", 50),
        ("mongodb://h/?maxPoolSize=0", None),  # no limit
        ("mongodb://h/?maxPoolSize=", None),
        ("mongodb://h/?maxPoolSize=-1", None),
        ("mongodb://h/?maxPoolSize=abc", None),
    ],
)
def test_the_size_that_the_connection_string_asks_for(uri: str, asked: int | None) -> None:
    assert asked_for(uri) == asked


def test_enough_connections_are_nothing_to_say() -> None:
    assert shortage(None, MOST - SPARE) is None
    assert shortage(SPARE + 3, 3) is None


def test_too_small_a_pool_says_what_is_needed() -> None:
    found, advice = shortage(2, 3) or ("", "")
    assert "maxPoolSize=2" in found
    assert f"{SPARE + 3} connections" in found
    assert f"{SPARE + 3} or more" in advice


def test_more_change_streams_than_threads_are_said_whatever_the_pool_is() -> None:
    found, advice = shortage(5 * MOST, MOST) or ("", "")
    assert str(MOST) in found
    assert "share" in advice


def test_a_shortage_is_said_once_and_again_when_twice_as_many_are_needed() -> None:
    watch = PoolWatch(2)
    with capture_logs() as logs:
        for streams in (1, 1, 2, 3, 4, 5, 6, 7, 8, 3):
            watch.look(streams)
    said = [each["problem"].partition(" connections that ")[2].split()[0] for each in logs]
    assert said == ["1", "2", "4", "8"]
    assert {(each["event"], each["log_level"]) for each in logs} == {("connections_short", "warning")}
