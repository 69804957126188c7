"""What a watcher's messages may measure: looked at before they are sent, since a server cuts the connection of a client
that sends more than it takes, and every watcher's with it.

A message has to fit the server (`max_payload`, headers of 64 KiB) and the stream (`max_msg_size`, `max_bytes`), its
subject a command (`max_control_line`). The server's limits are found out in `limits.py`; what becomes of a change that
does not fit is decided in `pipeline/batch_encoder.py`.
"""

from dataclasses import replace

from app.domain.errors import StreamUnsuitable
from app.domain.events import Change
from app.domain.subjects import MAX_SUBJECT, is_reserved
from app.domain.watcher import Watcher
from app.jetstream import frames
from app.jetstream.connection import NatsConnection
from app.jetstream.limits import MAX_HEADERS
from app.jetstream.streams import Stream

_ROOM = 8192
"""More than the headers of a message can take that has none of its own, and an id of `_SHORT` at most."""
_SHORT = 4096
_RECORD_BYTES = 64
"""More than a stream counts for a message beside its subject, headers and body (against max_bytes)."""


class Sizes:
    """The limits of one watcher's messages."""

    def __init__(self, connection: NatsConnection, watcher: Watcher, header_bytes: int = 0) -> None:
        """`header_bytes` are those of headers that each message gets when it is sent."""
        self._connection = connection
        self._room = _ROOM + header_bytes
        self._overhead = frames.overhead(watcher.sink.stream, watcher.space) + header_bytes
        self._longest = watcher.longest_subject
        self._most = watcher.most_subject_bytes
        self._stream: int | None = None
        self.limit = 0
        """The most bytes of a message, headers and body, as of the last `refresh`."""
        self._surely = 0
        self.refresh()

    def refresh(self) -> None:
        """Look at what the server takes by now."""
        most = self._connection.max_payload
        self.limit = most if self._stream is None else min(most, self._stream)
        # A subject that depends on its collection's name may be too long: then each change is looked at.
        self._surely = self.limit - self._room if self._most <= max(self._longest, self.max_subject) else 0

    def adopt(self, stream: Stream) -> None:
        """Take in the stream's own limits."""
        self._stream = stream.max_message
        whole = int(stream.config.get("max_bytes", -1))
        if whole >= 0:  # a message larger than that is refused for good, or with `discard: old` stored and dropped
            most = max(0, whole - self._most - _RECORD_BYTES)
            self._stream = most if self._stream is None else min(self._stream, most)
        self.refresh()

    @property
    def surely(self) -> tuple[int, int]:
        """The bytes of a body, and of an id, below which a message without headers of its own surely fits."""
        return max(0, self._surely), _SHORT

    def too_large(self, change: Change) -> bool:
        """Whether server or stream would refuse the message."""
        if len(change.body) < self._surely and len(change.id) < _SHORT and not change.headers:
            return bool(change.subject) and is_reserved(change.subject)  # of every change: first the cheap answer
        if change.subject and self.unusable(change) is not None:
            return True
        size = frames.size(change) + self._overhead
        return size > self.limit or size - len(change.body) > MAX_HEADERS

    def room(self, change: Change, pointer: str) -> int:
        """The bytes that are left for a body beside the header `pointer`; below 0: none."""
        self.refresh()
        if self.unusable(change) is not None:
            return -1
        headers = self._overhead + frames.size(replace(change, body=b"")) + len(pointer.encode())
        return self.limit - headers if headers <= MAX_HEADERS else -1

    def unusable(self, change: Change) -> str | None:
        """Say in a sentence why the change's own subject cannot be published to, or return None."""
        if is_reserved(change.subject):
            return f"its subject {change.subject} is reserved by NATS"
        length = len(change.subject.encode())
        if length > min(self.max_subject, MAX_SUBJECT):
            return (
                f"its subject of {length:,} bytes is longer than the {self.max_subject:,} that the NATS server takes "
                "(its max_control_line)"
            )
        return None

    @property
    def max_subject(self) -> int:
        """The most bytes of a subject that the server takes."""
        return self._connection.max_subject

    def subject_problem(self) -> str | None:
        """Say in a sentence why the watcher's subjects cannot be published to, or return None."""
        most = self.max_subject
        if self._longest <= most:
            return None
        return f"makes subjects of up to {self._longest:,} bytes; the NATS server takes {most:,} (its max_control_line)"

    def check_subject(self) -> None:
        """Raise StreamUnsuitable where a command with the watcher's subject would cut the connection."""
        problem = self.subject_problem()
        if problem is not None:
            raise StreamUnsuitable(f"sink.subject {problem}; choose a shorter one")
