"""What every `EventSink` promises of changes that are large: they are told before, or become a pointer."""

from dataclasses import replace

import pytest

from app.domain.events import Change
from app.ports import EventSink
from tests.contract.sink.places import Place, ScriptedPlace, change, fence


async def test_a_change_that_is_not_too_large_is_taken_by_the_server(place: Place, sink: EventSink) -> None:
    limit = 1024 * 1024
    sizes = range(limit - 1500, limit + 2)
    largest = max(n for n in sizes if not sink.too_large(replace(change(1), body=b"x" * n)))
    assert sink.too_large(replace(change(1), body=b"x" * (largest + 1)))
    long = [replace(change(moment), body=b"x" * largest) for moment in (1, 2, 3)]
    assert await sink.publish(long, await fence(sink)) == 3


async def test_an_id_that_the_headers_do_not_hold_leaves_no_room_and_the_longest_that_they_hold_is_taken(
    place: Place, sink: EventSink
) -> None:
    def long(length: int) -> Change:
        token = f"82{'A' * (length - 2)}"
        return replace(change(1), token=token, id=token)

    for length in (66_000, 400_000, 1_200_000):
        assert sink.too_large(long(length))
        assert sink.room(long(length)) < 0
    longest = max(length for length in range(64_000, 65_600) if not sink.too_large(long(length)))
    assert sink.room(long(longest - 200)) > 900_000
    assert await sink.publish([long(longest)], await fence(sink)) == 1
    assert await sink.publish([change(moment) for moment in (2, 3)], 1) == 3


async def test_a_claim_check_leaves_a_pointer_and_may_be_repeated(place: Place, sink: EventSink) -> None:
    if isinstance(place, ScriptedPlace):
        pytest.skip("the server in memory has no object store")
    large = replace(change(1), body=b"x" * 3_000_000, pointer=b"{}")
    first = await sink.claim_check(large, b"{}")
    second = await sink.claim_check(large, b"{}")
    assert first == second
    assert (first.body, first.pointer, first.token, first.id) == (b"{}", None, large.token, large.id)
    [(name, value)] = first.headers
    assert name == "Changewire-Object"
    assert value.endswith(f"/{large.token}")
    assert await place.objects() == 1
    assert await sink.publish([first, change(2)], await fence(sink)) == 2


async def test_a_pointer_has_the_room_that_is_said(place: Place, sink: EventSink) -> None:
    if isinstance(place, ScriptedPlace):
        pytest.skip("the server in memory has no object store")
    large = replace(change(1), body=b"x" * 3_000_000, headers=(("Changewire-Reduced", "fullDocument"),))
    room = sink.room(large)
    assert room > 1_000_000
    pointer = await sink.claim_check(large, b"x" * room)
    assert not sink.too_large(pointer)
    assert [name for name, _ in pointer.headers] == ["Changewire-Reduced", "Changewire-Object"]
    assert await sink.publish([pointer], await fence(sink)) == 1


async def test_what_surely_fits_is_not_too_large_and_is_most_of_what_there_is(place: Place, sink: EventSink) -> None:
    body, id_ = sink.surely_fits
    assert body > 500_000
    assert id_ > 500
    token = f"82{'A' * (id_ - 3)}"
    assert not sink.too_large(replace(change(1), body=b"x" * (body - 1), token=token, id=token))
