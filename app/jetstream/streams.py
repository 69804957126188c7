"""Streams as values, and how one can carry a watcher: decided from what the server tells, without asking.

`assess` chooses the publish mode, and refuses a stream that cannot be published to safely. Asking is `stream_api.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from app.domain.errors import StreamUnsuitable
from app.domain.subjects import covers, overlap
from app.domain.watcher import Watcher
from app.jetstream.limits import BATCH_LINE_BYTES, LINE_BYTES

Mode = Literal["fast_ingest", "atomic", "window", "single"]
"""How changes are published: `publish/` has a module for each."""


SWITCHES: Mapping[str, tuple[int, int]] = {"allow_atomic": (2, 12), "allow_batched": (2, 14), "allow_direct": (0, 0)}
"""What Changewire switches on in a stream, and the server's version that knows it: atomic batches, fast ingest, and
direct reads. A server that does not know a setting refuses it (2.12), or drops it silently (older ones)."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as its leader describes it; `config` and `state` as they came."""

    config: dict[str, Any]
    state: dict[str, Any]
    created: str
    asked: str = ""
    """When that was, by the leader's clock; empty where it does not tell."""

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def subjects(self) -> list[str]:
        return list(self.config.get("subjects") or ())

    @property
    def atomic(self) -> bool:
        """Whether the server echoes `allow_atomic`."""
        return bool(self.config.get("allow_atomic"))

    @property
    def takes_fast_ingest(self) -> bool:
        """Whether the server echoes `allow_batched`, and the stream has one replica: with several, two atomic batches
        at once are faster."""
        return bool(self.config.get("allow_batched")) and self.replicas == 1

    @property
    def replicas(self) -> int:
        return int(self.config.get("num_replicas", 1))

    @property
    def server_version(self) -> tuple[int, int]:
        """The first two numbers of the leader's version; (0, 0) below 2.11, where it is not told."""
        return version_numbers(self.version)

    @property
    def version(self) -> str:
        """The leader's version as it tells it; empty below 2.11."""
        return str((self.config.get("metadata") or {}).get("_nats.ver", ""))

    @property
    def quiet(self) -> float:
        """For how many seconds no message has come, by the server's own clock; 0 where that is not known."""
        last, asked = _moment(self.state.get("last_ts")), _moment(self.asked)
        return max(0.0, (asked - last).total_seconds()) if last is not None and asked is not None else 0.0

    @property
    def max_message(self) -> int | None:
        """The stream's own limit in bytes, headers and body; None without one."""
        limit = int(self.config.get("max_msg_size", -1))
        return limit if limit >= 0 else None


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message: its sequence, subject, `Nats-Msg-Id`, and the collection whose change it is, where it says."""

    sequence: int
    subject: str
    id: str | None
    namespace: str | None = None


def version_numbers(text: str) -> tuple[int, int]:
    """Return the first two numbers of a server's version; (0, 0) for a text that is none."""
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


def is_exclusive(stream: Stream, space: str) -> bool:
    """Whether only subjects of the filter `space` can get onto the stream: its last sequence is the fence then."""
    return not _feeds(stream) and all(covers(space, subject) for subject in stream.subjects)


def makes_messages(stream: Stream) -> bool:
    """Whether the server itself puts messages onto the stream: markers of what expired, or scheduled ones."""
    return bool(stream.config.get("subject_delete_marker_ttl") or stream.config.get("allow_msg_schedules"))


def _feeds(stream: Stream) -> bool:
    """Whether messages get onto the stream otherwise than under one of its subjects."""
    return bool(stream.config.get("sources") or stream.config.get("mirror") or stream.config.get("subject_transform"))


def assess(stream: Stream, watcher: Watcher, max_subject: int | None = None) -> Mode:
    """Return how the watcher's batches can be published safely. Raises StreamUnsuitable, with what to do.

    `max_subject` is the most bytes of a subject that the server takes, where that is known: a fast-ingest batch leaves
    less room for it."""
    name, space, config = stream.name, watcher.space, stream.config
    if config.get("mirror"):
        raise StreamUnsuitable(f"the stream {name} is a mirror, which cannot be published to; name another sink.stream")
    if not any(covers(subject, space) for subject in stream.subjects):
        subjects = ", ".join(stream.subjects) or "none"
        raise StreamUnsuitable(
            f"the stream {name} does not take the watcher's subjects: it has {subjects}, the watcher publishes to "
            f"{space}; add {space} to the stream's subjects, or choose another sink.stream or sink.subject"
        )
    if config.get("no_ack"):
        raise StreamUnsuitable(f"the stream {name} does not acknowledge messages (no_ack); switch that off")
    if config.get("allow_msg_counter"):
        raise StreamUnsuitable(f"the stream {name} holds counters (allow_msg_counter); name another sink.stream")
    transform = config.get("subject_transform")
    if transform and overlap(transform.get("src") or ">", space):
        raise StreamUnsuitable(
            f"the stream {name} stores {space} under other subjects (subject_transform), so that it cannot be read back"
        )
    fits = max_subject is None or watcher.most_subject_bytes + BATCH_LINE_BYTES - LINE_BYTES <= max_subject
    if stream.takes_fast_ingest and fits and is_exclusive(stream, space):  # each message is fenced by its sequence
        return "fast_ingest"
    if stream.atomic:
        return "atomic"
    if is_exclusive(stream, space):
        return "window"
    if stream.server_version >= (2, 11):
        return "single"
    raise StreamUnsuitable(
        f"the stream {name} also carries subjects of others ({', '.join(stream.subjects)}), and this NATS server can "
        "neither publish atomically (2.12 or later, allow_atomic) nor fence by subject (2.11 or later); give the "
        f"watcher a stream of its own with the subjects {space}, or update the server"
    )


def switches(watcher: Watcher, stream: Stream | None = None) -> dict[str, bool]:
    """Return what is switched on in the stream of a watcher, beyond what mongodb-nats-connector sets. Of an existing
    `stream`, only what its server knows.

    Fast ingest only where it is used: an older server, to which somebody goes back, does not load such a stream."""
    if watcher.sink.stream_settings != "changewire":
        return {}
    if stream is None:
        alone, replicas = True, watcher.sink.replicas
    else:
        alone, replicas = is_exclusive(stream, watcher.space), stream.replicas
    wanted = {name: True for name, since in SWITCHES.items() if stream is None or stream.server_version >= since}
    if not (alone and replicas == 1):
        wanted.pop("allow_batched", None)
    return wanted


def as_switched(stream: Stream, watcher: Watcher) -> Stream:
    """Return the stream as it is once all is switched on that may be."""
    return replace(stream, config={**stream.config, **switches(watcher, stream)})


def new_config(watcher: Watcher) -> dict[str, Any]:
    """Return the configuration of the stream that is created for a watcher. Durations are in nanoseconds."""
    sink = watcher.sink
    age = round(sink.max_age_seconds * 1e9)
    window = round(sink.duplicate_window_seconds * 1e9)
    return {
        "name": sink.stream,
        "subjects": [watcher.space],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": sink.replicas,
        "max_age": age,
        "max_bytes": sink.max_bytes,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "duplicate_window": min(window, age) if age else window,  # the server refuses one longer than max_age
        **switches(watcher),
    }


def _moment(text: str | None) -> datetime | None:
    """Read a time of the API to the second; None where there is none, as for a stream that never had a message."""
    if not text or text.startswith("0001"):
        return None
    try:
        return datetime.fromisoformat(text[:19])
    except ValueError:
        return None
