"""A held connection is held in the middle of a batch of the stream that is meant, and nowhere else."""

import pytest

from app.domain.events import Change
from app.jetstream import frames
from tests.faults.middle import open_batch

SUBJECTS = {"insert": "FAULTS_ORDERS.insert"}
CHANGES = [Change(f"82{number:08X}", "insert", b"{}", 0.0, f"82{number:08X}") for number in range(3)]
OTHER = {"insert": "FAULTS_CUSTOMERS.insert"}


def fast(subjects: dict[str, str], changes: list[Change], first: int, *, commit: bool) -> bytes:
    reply = "_INBOX.a.b.500.fail"
    return b"".join(frames.fast_ingest(changes, subjects, reply, first, "FAULTS_ORDERS", 7, commit=commit))


def atomic(subjects: dict[str, str]) -> bytes:
    return b"".join(frames.atomic(CHANGES, subjects, "_INBOX.a.", "b", frames.fence("FAULTS_ORDERS", 7, None)))


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        (fast(SUBJECTS, CHANGES, 1, commit=False), True),
        (fast(SUBJECTS, CHANGES[:1], 1, commit=False), False),  # a batch's first message
        (fast(SUBJECTS, CHANGES[:1], 5, commit=True), False),  # its last one
        (fast(OTHER, CHANGES, 1, commit=False), False),
        (atomic(SUBJECTS), True),
        (atomic(OTHER), False),
        (frames.single(CHANGES[0], SUBJECTS["insert"], "_INBOX.a.0", frames.fence("FAULTS_ORDERS", 7, None)), False),
    ],
)
def test_what_is_held_is_a_message_in_the_middle_of_a_batch(sent: bytes, held: bool) -> None:
    assert bool(open_batch("FAULTS_ORDERS").search(sent)) is held
