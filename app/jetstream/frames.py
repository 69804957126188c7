"""The bytes of a publish, a whole batch at a time.

nats-py builds one message per call from a dictionary of headers, which costs three times as much as everything else the
hot path does. Here a batch becomes a few large chunks of the client protocol's HPUB frames, by concatenation alone or
natively. The chunks are handed out while the batch is being built, so that the server parses the beginning meanwhile.

Headers as in the NATS documentation (JetStream headers, ADR-50 for the batch). Pure: no I/O, no vendor.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from app.domain.events import Change
from app.domain.packed import Numbered, PackedChanges

CHUNK_BYTES = 192 * 1024
"""About how many bytes go into one write."""
CHUNK_PARTS = 4 * 256
"""And how many parts at most, where they are put together here: a message has four."""

_LINE_BREAKS = str.maketrans({"\r": " ", "\n": " "})


def fence(stream: str, sequence: int, space: str | None) -> str:
    """Return the header lines that refuse a message unless `sequence` is the last one.

    The last one of the stream where `space` is None, else of the messages whose subject the filter `space` matches.
    The stream's name goes with it: were the stream gone, another one could have taken its subjects over.
    """
    if space is None:
        return f"{_expected(stream)}{sequence}\r\n"
    return (
        f"Nats-Expected-Stream: {stream}\r\nNats-Expected-Last-Subject-Sequence: {sequence}\r\n"
        f"Nats-Expected-Last-Subject-Sequence-Subject: {space}\r\n"
    )


def _expected(stream: str) -> str:
    """The header lines of a fence by the stream's own sequence, up to the number."""
    return f"Nats-Expected-Stream: {stream}\r\nNats-Expected-Last-Sequence: "


def overhead(stream: str, space: str) -> int:
    """Return the most bytes of headers that a message without headers of its own gets, its id's value not counted."""
    batch = f"Nats-Batch-Id: {'x' * 64}\r\nNats-Batch-Sequence: 1000\r\nNats-Batch-Commit: 1\r\n"
    return len(f"NATS/1.0\r\nNats-Msg-Id: \r\n{fence(stream, 10**20, space)}{batch}\r\n".encode())


def size(change: Change) -> int:
    """Return the bytes of a change's body, id and own headers; with `overhead` what `max_payload` is compared to."""
    own = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in change.headers)
    return len(change.body) + len(change.id.encode()) + own


def subject_of(change: Change, subjects: Mapping[str, str]) -> str:
    """Return a change's own subject, or that of its operation."""
    return change.subject or subjects[change.operation]


def single(change: Change, subject: str, reply: str, lines: str) -> bytes:
    """Return one message's frame; `lines` are its fence."""
    return b"".join(_frame(change, subject, reply, lines))


def atomic(
    changes: Sequence[Change], subjects: Mapping[str, str], reply: str, batch_id: str, fence_lines: str
) -> Iterator[bytes]:
    """Yield the frames of an atomic batch of two or more messages.

    The first carries the fence and asks for early errors on `reply` + `0`, the last commits and asks for the
    acknowledgement on `reply` + its index.
    """
    first, middle, last = changes[0], changes[1:-1], changes[-1]
    prefix = f"Nats-Batch-Id: {batch_id}\r\nNats-Batch-Sequence: "
    yield single(first, subject_of(first, subjects), f"{reply}0", f"{fence_lines}{prefix}1\r\n")
    yield from numbered(middle, subjects, None, Numbered(prefix, 2, "\r\n"))
    commit = f"{prefix}{len(changes)}\r\nNats-Batch-Commit: 1\r\n"
    yield single(last, subject_of(last, subjects), f"{reply}{len(changes) - 1}", commit)


def window(
    changes: Sequence[Change], subjects: Mapping[str, str], reply: str, stream: str, base: int
) -> Iterator[bytes]:
    """Yield the frames of a window: message k (from 0) expects the stream's last sequence to be `base` + k.

    Each asks for its acknowledgement on `reply` + k.
    """
    lines = Numbered(_expected(stream), base, "\r\n")
    return numbered(changes, subjects, Numbered(reply, 0, ""), lines)


def numbered(
    changes: Sequence[Change], subjects: Mapping[str, str], reply: Numbered | None, lines: Numbered
) -> Iterator[bytes]:
    """Yield the frames of messages whose reply subjects and header lines differ by a number only, in chunks.

    This is the hot path of every mode. The first message has the first numbers. The frames of packed changes are
    written natively; what is here is the reference for them.
    """
    if isinstance(changes, PackedChanges):
        yield from changes.frames(subjects, reply, lines, CHUNK_BYTES)
        return
    frames: list[bytes] = []
    size = 0
    for index, change in enumerate(changes):
        frames += _frame(
            change, subject_of(change, subjects), "" if reply is None else reply.at(index), lines.at(index)
        )
        size += len(change.body)
        if size >= CHUNK_BYTES or len(frames) >= CHUNK_PARTS:
            yield b"".join(frames)
            frames.clear()
            size = 0
    if frames:
        yield b"".join(frames)


START, APPEND, COMMIT, COMMIT_ONLY = 0, 1, 2, 3
"""Operations of a fast-ingest batch; the last one ends the batch and stores nothing."""


def fast_ingest(
    changes: Sequence[Change],
    subjects: Mapping[str, str],
    reply: str,
    first: int,
    stream: str,
    fence: int,
    *,
    commit: bool,
) -> Iterator[bytes]:
    """Yield the frames of a part of a fast-ingest batch: numbers `first` on, each expecting the sequence of the one
    before, the first of them `fence`. With `commit` the last one ends the batch.

    `reply` is the batch's reply subject with flow and gap mode, to which number and operation are appended.
    """
    prefix = _expected(stream)

    def alone(index: int, operation: int) -> bytes:
        change, lines = changes[index], f"{prefix}{fence + index}\r\n"
        return single(change, subject_of(change, subjects), f"{reply}.{first + index}.{operation}.$FI", lines)

    begin, end = (1 if first == 1 else 0), len(changes) - (1 if commit else 0)
    if begin <= end and first == 1:
        yield alone(0, START)
    append = Numbered(f"{reply}.", first + begin, f".{APPEND}.$FI")
    yield from numbered(changes[begin:end], subjects, append, Numbered(prefix, fence + begin, "\r\n"))
    if commit:
        yield alone(len(changes) - 1, COMMIT)


NEVER = 2**53 - 1
"""A sequence that no stream comes to."""


def end_of_batch(subject: str, reply: str, number: int, stream: str) -> bytes:
    """Return the frame that ends a fast-ingest batch without storing anything; `number` follows the last message's.

    A server that does not know such batches takes it for a message. The fence lets no stream store that."""
    return message(subject, f"{reply}.{number}.{COMMIT_ONLY}.$FI", _never(stream), b"")


def where_is(change: Change, subject: str, reply: str, stream: str) -> bytes:
    """Return the frame that asks which sequence the change's message has: a fast-ingest batch of one message with its
    id and no body. The server looks for the id first, and answers where it is. The fence lets no stream store it.

    `reply` ends in the batch's name, which no other batch under way has."""
    headers = (("Nats-Msg-Id", change.id), *_never(stream))
    return message(subject, f"{reply}.1.fail.1.{COMMIT}.$FI", headers, b"")


def _never(stream: str) -> tuple[tuple[str, str], ...]:
    """A fence that no stream can meet."""
    return ("Nats-Expected-Stream", stream), ("Nats-Expected-Last-Sequence", str(NEVER))


def _frame(change: Change, subject: str, reply: str, lines: str) -> tuple[bytes, bytes, bytes, bytes]:
    own = "".join(
        f"{name}: {value.translate(_LINE_BREAKS).strip()}\r\n" for name, value in change.headers
    ) if change.headers else ""  # fmt: skip
    head = f"NATS/1.0\r\nNats-Msg-Id: {change.id}\r\n{own}{lines}\r\n".encode()
    length = len(head)
    where = f"{subject} {reply}" if reply else subject
    return f"HPUB {where} {length} {length + len(change.body)}\r\n".encode(), head, change.body, b"\r\n"


def message(subject: str, reply: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return the frame of a message that is no change."""
    head = _head(headers)
    return f"HPUB {subject} {reply} {len(head)} {len(head) + len(body)}\r\n".encode() + head + body + b"\r\n"


def message_size(headers: Iterable[tuple[str, str]], body: bytes) -> int:
    """Return what `max_payload` is compared to."""
    return len(_head(headers)) + len(body)


def _head(headers: Iterable[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value.translate(_LINE_BREAKS).strip()}\r\n" for name, value in headers)
    return f"NATS/1.0\r\n{lines}\r\n".encode("utf-8", "replace")


def read_headers(block: bytes) -> dict[str, str]:
    """Return the headers of a stored message (`NATS/1.0`, then one `Name: value` a line)."""
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
