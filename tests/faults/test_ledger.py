"""The ledger tells what was destroyed from what was lost, and what a marker names from what is missing."""

from tests.faults.ledger import Account, audit
from tests.faults.recorder import Record

TOKENS = [f"82{number:08X}" for number in range(10)]
HISTORY = [(token, ("insert", number, f"n{number}")) for number, token in enumerate(TOKENS)]


def record(sequence: int, number: int, incarnation: int = 0) -> Record:
    return Record(incarnation, sequence, *HISTORY[number])


def marker(sequence: int, number: int, incarnation: int) -> Record:
    return Record(incarnation, sequence, TOKENS[number], None)


def account(*records: Record, resets: dict[int, str] | None = None) -> Account:
    return audit(records, HISTORY, resets or {})


WHOLE = [record(number + 1, number) for number in range(10)]


def wrong(found: Account) -> list[str]:
    return [kind for kind in ("lost", "doubled", "reordered", "altered", "unknown") if getattr(found, kind)]


def test_all_in_order_is_right() -> None:
    assert wrong(account(*WHOLE)) == []


def test_what_is_missing_without_a_jump_of_the_sequence_is_lost() -> None:
    assert wrong(account(*WHOLE[:4], *(record(number, number) for number in range(5, 10)))) == ["lost"]


def test_what_is_missing_at_the_end_is_lost() -> None:
    assert wrong(account(*WHOLE[:9])) == ["lost"]


def test_what_is_missing_with_a_jump_as_large_was_destroyed_unread() -> None:
    found = account(*WHOLE[2:5], *WHOLE[8:])
    assert wrong(found) == []
    assert found.destroyed == 2 + 3


def test_a_larger_jump_hides_what_was_published_twice() -> None:
    assert wrong(account(*WHOLE[:5], *(record(number + 2, number) for number in range(5, 10)))) == ["doubled"]


def test_the_same_again_is_doubled_and_something_earlier_reordered() -> None:
    assert wrong(account(*WHOLE, record(11, 9))) == ["doubled"]
    assert wrong(account(record(1, 0), record(2, 2), record(3, 1), *WHOLE[3:])) == ["lost", "reordered"]


def test_other_contents_are_altered_and_another_token_is_unknown() -> None:
    assert wrong(account(*WHOLE[:9], Record(0, 10, TOKENS[9], ("insert", 9, "other")))) == ["altered"]
    assert wrong(account(*WHOLE, Record(0, 11, "83", ("insert", 9, "n9")))) == ["unknown"]


def test_a_marker_at_a_streams_begin_stands_for_what_is_missing_there_alone() -> None:
    later = [record(number - 4, number, 1) for number in range(6, 10)]
    found = account(*WHOLE[:3], marker(1, 5, 1), *later)
    assert wrong(found) == []
    assert (found.gaps, found.in_gaps) == (1, 3)
    assert wrong(account(*WHOLE[:3], marker(1, 5, 1), record(2, 7, 1), record(3, 8, 1), record(4, 9, 1))) == ["lost"]
    assert wrong(account(*WHOLE[:3], *(record(number - 5, number, 1) for number in range(6, 10)))) == [
        "lost",
        "unknown",
    ]


def test_a_stream_that_somebody_had_filled_from_a_token_on_has_all_after_it() -> None:
    again = [record(number - 2, number, 1) for number in range(3, 10)]
    assert wrong(account(*WHOLE[:3], *again, resets={1: TOKENS[2]})) == []
    assert wrong(account(*WHOLE[:3], *again[1:], resets={1: TOKENS[2]})) == []  # its first message was destroyed
    shifted = [record(number - 3, number, 1) for number in range(4, 10)]
    assert wrong(account(*WHOLE[:3], *shifted, resets={1: TOKENS[2]})) == ["lost"]
