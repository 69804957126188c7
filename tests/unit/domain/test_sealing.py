"""A signed message counts once, soon, at the instance that it was sent to, and only with the right key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import sealing
from app.domain.sealing import MOST_PENDING, NOBODY, OLDEST_SECONDS, OVERHEAD, Kind, Message, Opener, Refused, seal

KEY = bytes(range(32))
HERE = "changewire.c1.here"
NOW = 1_700_000_000.0


def ask(data: bytes = b"hello", nonce: int = 1) -> Message:
    return Message(Kind.ASK, nonce.to_bytes(16, "big"), NOBODY, data)


def sealed(
    message: Message, *, key: bytes = KEY, subject: str = HERE, now: float = NOW, largest: int = 4096
) -> list[bytes]:
    return seal(key, subject, message, now=now, largest=largest)


def heard(opener: Opener, parts: list[bytes], *, now: float = NOW) -> Message | None:
    found = [opener.open(KEY, HERE, part, now=now) for part in parts]
    assert not any(found[:-1]), "whole before its last part"
    return found[-1]


@given(st.binary(max_size=3000), st.integers(OVERHEAD + 1, 600), st.randoms(use_true_random=False))
def test_a_message_comes_back_whole_whatever_the_order_of_its_parts(data: bytes, largest: int, order: object) -> None:
    parts = sealed(ask(data), largest=largest)
    assert all(len(part) <= largest for part in parts)
    order.shuffle(parts)  # type: ignore[attr-defined]
    assert heard(Opener(NOW - 1), parts) == ask(data)


@given(st.integers(0, 200), st.integers(1, 255))
def test_no_byte_of_a_part_can_be_changed(place: int, by: int) -> None:
    (part,) = sealed(ask(b"x" * 120))
    changed = bytearray(part)
    changed[place % len(part)] ^= by
    with pytest.raises(Refused):
        Opener(NOW - 1).open(KEY, HERE, bytes(changed), now=NOW)


@pytest.mark.parametrize("part", [b"", b"x", b"x" * (OVERHEAD - 1), b"x" * 200])
def test_what_is_not_signed_is_refused(part: bytes) -> None:
    with pytest.raises(Refused):
        Opener(NOW - 1).open(KEY, HERE, part, now=NOW)


def test_another_key_and_another_instance_are_refused() -> None:
    opener = Opener(NOW - 1)
    for wrong in (sealed(ask(), key=KEY[::-1]), sealed(ask(), subject="changewire.c1.there")):
        with pytest.raises(Refused, match="signature"):
            opener.open(KEY, HERE, wrong[0], now=NOW)


def test_a_repeated_message_is_refused_for_as_long_as_it_is_not_too_old() -> None:
    opener, parts = Opener(NOW - 100), sealed(ask())
    assert heard(opener, parts) == ask()
    for later in (0.0, 5.0, OLDEST_SECONDS):
        with pytest.raises(Refused, match="heard before"):
            opener.open(KEY, HERE, parts[0], now=NOW + later)
    with pytest.raises(Refused, match="s old"):
        opener.open(KEY, HERE, parts[0], now=NOW + OLDEST_SECONDS + 0.1)


def test_a_repeated_part_of_a_message_that_is_not_whole_is_refused() -> None:
    opener, parts = Opener(NOW - 1), sealed(ask(bytes(range(256)) * 2), largest=200)
    assert opener.open(KEY, HERE, parts[0], now=NOW) is None
    with pytest.raises(Refused, match="a part"):
        opener.open(KEY, HERE, parts[0], now=NOW)
    assert heard(opener, parts[1:]) is not None


@pytest.mark.parametrize("sent", [NOW - OLDEST_SECONDS - 1, NOW + OLDEST_SECONDS + 1])
def test_a_message_of_another_time_is_refused_and_the_clocks_are_named(sent: float) -> None:
    with pytest.raises(Refused, match="clocks"):
        Opener(0).open(KEY, HERE, sealed(ask(), now=sent)[0], now=NOW)


def test_a_message_from_before_the_start_is_refused_since_it_may_have_been_heard() -> None:
    with pytest.raises(Refused, match="before this instance started"):
        Opener(NOW).open(KEY, HERE, sealed(ask(), now=NOW - 1)[0], now=NOW)


def test_parts_that_never_become_whole_do_not_pile_up() -> None:
    opener = Opener(NOW - 1)
    first = [sealed(ask(bytes(range(256)) * 3, nonce), largest=200) for nonce in range(1, 3 * MOST_PENDING)]
    for parts in first:
        assert opener.open(KEY, HERE, parts[0], now=NOW) is None
    assert len(opener._pending) == MOST_PENDING
    assert heard(opener, first[-1][1:]) is not None, "the last ones are kept"


def test_what_was_heard_is_forgotten_once_it_is_too_old_to_count() -> None:
    opener = Opener(0)
    for second in range(1000):
        heard(opener, sealed(ask(nonce=second + 1), now=NOW + second), now=NOW + second)
    assert len(opener._heard) <= 2 * OLDEST_SECONDS + 1


def test_too_much_is_not_sent_and_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = sealed(ask(bytes(10_000)))
    monkeypatch.setattr(sealing, "MOST_BYTES", 5000)
    with pytest.raises(Refused, match="larger"):
        heard(Opener(NOW - 1), parts)
    with pytest.raises(ValueError, match="more than"):
        sealed(ask(bytes(10_000)))
    with pytest.raises(ValueError, match="NATS server that takes"):
        sealed(ask(), largest=OVERHEAD)
