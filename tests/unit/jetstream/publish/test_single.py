"""What an error means for a batch of which the beginning is acknowledged."""

import pytest

from app.domain.errors import FenceLost, OutcomeUnknown, SinkUnavailable, StreamFull, StreamRefused
from app.jetstream.publish.single import cut_short


@pytest.mark.parametrize("error", [OutcomeUnknown(), FenceLost(), StreamFull()])
@pytest.mark.parametrize("stored", [0, 3])
def test_an_error_that_may_count_says_what_is_stored(error: OutcomeUnknown | StreamFull, stored: int) -> None:
    assert cut_short(error, stored=stored, sequence=7, count=5) is error
    assert (error.stored, error.sequence) == (stored, 7)


@pytest.mark.parametrize("error", [StreamRefused("sealed"), SinkUnavailable("away")])
def test_a_plain_refusal_promises_that_nothing_is_stored(error: StreamRefused | SinkUnavailable) -> None:
    assert cut_short(error, stored=0, sequence=7, count=5) is error
    unknown = cut_short(error, stored=3, sequence=10, count=5)
    assert type(unknown) is OutcomeUnknown
    assert (unknown.stored, unknown.sequence) == (3, 10)
    assert str(error) in str(unknown)
