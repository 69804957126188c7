"""Streams as the JetStream API describes them, and whether one can carry a watcher.

The API is spoken in raw JSON: nats-py's own types drop every setting they do not know, and an update would reset it.
`assess` decides from values alone; the rest asks and translates. Requests, answers and error codes are those of the
JetStream wire API reference; what servers 2.10, 2.11 and 2.15 really answer was tried.
"""

from base64 import b64decode
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import orjson

from app.domain.errors import ChangewireError, NotAuthorised, SinkUnavailable, StreamRefused, StreamUnsuitable
from app.domain.events import namespace_of
from app.domain.subjects import covers, overlap
from app.domain.watcher import Watcher
from app.jetstream.connection import NatsConnection
from app.jetstream.frames import read_headers

Mode = Literal["atomic", "window", "single"]

NOT_FOUND = 10059
NO_MESSAGE = 10037
NAME_IN_USE = 10058
SUBJECTS_OVERLAP = 10065
_NO_JETSTREAM = (10035, 10039, 10076)
"""Not enabled for the account, or not at all."""
_WRONG_CONFIGURATION = (10027, 10052, 10065, 10074, 10113, 10122)
"""Settings that the server or the account's limits rule out: trying again would not help."""
READ_SECONDS = 2.5
"""How long a read may take; a stream without a leader does not answer at all, and asking again is harmless."""
JETSTREAM_OFF = "JetStream is not enabled on the NATS server; start it with -js"


class ApiError(Exception):
    """The JetStream API refused a request."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("description", "no description")))
        self.status = int(error.get("code", 0))
        self.code = int(error.get("err_code", 0))


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
        """Whether the server echoes `allow_atomic`; servers older than 2.12 drop the setting without a word."""
        return bool(self.config.get("allow_atomic"))

    @property
    def server_version(self) -> tuple[int, int]:
        """The leader's version; (0, 0) below 2.11, where it is not told."""
        text = str((self.config.get("metadata") or {}).get("_nats.ver", ""))
        major, _, rest = text.partition(".")
        minor = rest.partition(".")[0]
        return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)

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


def is_exclusive(stream: Stream, space: str) -> bool:
    """Tell whether nothing but subjects of `space` can get onto the stream: its last sequence is the fence then."""
    return not _feeds(stream) and all(covers(space, subject) for subject in stream.subjects)


def assess(stream: Stream, watcher: Watcher) -> Mode:
    """Return how the watcher's batches can be published safely. Raises StreamUnsuitable, with what to do."""
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


def switches(watcher: Watcher) -> dict[str, bool]:
    """Return what is switched on in the stream of a watcher, beyond what mongodb-nats-connector sets."""
    return {"allow_atomic": True, "allow_direct": True} if watcher.sink.stream_settings == "changewire" else {}


def as_switched(stream: Stream, watcher: Watcher) -> Stream:
    """Return the stream as it is once all is switched on that may be."""
    return replace(stream, config={**stream.config, **switches(watcher)})


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


def translate(error: ApiError, stream: str) -> ChangewireError:
    """Return what an answer of the API means for a watcher."""
    if error.code == NOT_FOUND:
        return StreamRefused(f"the stream {stream} does not exist")
    if error.code in _NO_JETSTREAM:
        return SinkUnavailable(f"JetStream is not enabled for the NATS account ({error})")
    if error.code in _WRONG_CONFIGURATION:
        return StreamUnsuitable(f"NATS refuses the stream {stream}: {error}")
    return StreamRefused(f"NATS refuses the request on the stream {stream}: {error} ({error.code})")


class StreamApi:
    """The part of the JetStream API that Changewire uses.

    Every call raises SinkUnavailable, NotAuthorised, and ApiError for what the server answers.
    """

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._refused: dict[str, NotAuthorised] = {}
        """The streams that the account may not ask for, and what was said. An object is of use for one opening."""

    async def call(self, endpoint: str, body: dict[str, Any] | None = None, *, seconds: float = 5.0) -> dict[str, Any]:
        """Ask `$JS.API.<endpoint>` and return the answer."""
        payload = orjson.dumps(body) if body is not None else b""
        answer = await self._connection.request(f"$JS.API.{endpoint}", payload, seconds=seconds)
        if answer is None:
            raise SinkUnavailable(JETSTREAM_OFF)
        document: dict[str, Any] = orjson.loads(answer)
        if "error" in document:
            raise ApiError(document["error"])
        return document

    async def info(self, name: str) -> Stream:
        return _stream(await self.call(f"STREAM.INFO.{name}", seconds=READ_SECONDS))

    async def look(self, watcher: Watcher) -> Stream:
        """Return the watcher's stream as `info` does, and without the right to that in another way.

        To ask for a stream with the settings that it has is to be told of it: that much mongodb-nats-connector may. It
        is looked for first, since to ask for one that is missing is to make it.
        Raises NotAuthorised where its settings are others."""
        name = watcher.sink.stream
        if name not in self._refused:
            try:
                return await self.info(name)
            except NotAuthorised as error:
                self._refused[name] = error
        await self.message(name, {"last_by_subj": watcher.space})
        try:
            return await self.create(new_config(watcher))
        except ApiError as error:
            if error.code != NAME_IN_USE:
                raise
            raise NotAuthorised(
                f"{self._refused[name]}. Without it only a stream with the settings that Changewire would create it "
                f"with can be used, and {name} has others"
            ) from error

    async def create(self, config: dict[str, Any]) -> Stream:
        return _stream(await self.call(f"STREAM.CREATE.{config['name']}", config))

    async def update(self, config: dict[str, Any]) -> Stream:
        return _stream(await self.call(f"STREAM.UPDATE.{config['name']}", config))

    async def delete(self, name: str) -> None:
        await self.call(f"STREAM.DELETE.{name}")

    async def names(self, subject: str) -> list[str]:
        """Return the streams of which a subject overlaps the filter `subject`."""
        return list((await self.call("STREAM.NAMES", {"subject": subject})).get("streams") or ())

    async def last(self, name: str, subject: str) -> Message | None:
        """Return the last message whose subject matches the filter, asked of the stream's leader."""
        return await self._get(name, {"last_by_subj": subject})

    async def at(self, name: str, sequence: int) -> Message | None:
        """Return the message with this sequence; None where it is gone."""
        return await self._get(name, {"seq": sequence})

    async def next(self, name: str, subject: str, sequence: int) -> Message | None:
        """Return the first message from this sequence on whose subject matches the filter."""
        return await self._get(name, {"seq": sequence, "next_by_subj": subject})

    async def message(self, name: str, wanted: dict[str, Any]) -> dict[str, Any] | None:
        """Return the message that is `wanted` (`seq`, `last_by_subj`, `next_by_subj`) as the API gives it."""
        try:
            answer = await self.call(f"STREAM.MSG.GET.{name}", wanted, seconds=READ_SECONDS)
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return message

    async def _get(self, name: str, wanted: dict[str, Any]) -> Message | None:
        message = await self.message(name, wanted)
        if message is None:
            return None
        namespace = namespace_of(b64decode(message.get("data") or ""))
        return Message(int(message["seq"]), str(message["subject"]), headers_of(message).get("Nats-Msg-Id"), namespace)


def headers_of(message: dict[str, Any]) -> dict[str, str]:
    """Return the headers of a message as the API gives it."""
    return read_headers(b64decode(message["hdrs"])) if message.get("hdrs") else {}


def _stream(answer: dict[str, Any]) -> Stream:
    return Stream(answer["config"], answer["state"], str(answer["created"]), str(answer.get("ts") or ""))


def _moment(text: str | None) -> datetime | None:
    """Read a time of the API to the second; None where there is none, as for a stream that never had a message."""
    if not text or text.startswith("0001"):
        return None
    try:
        return datetime.fromisoformat(text[:19])
    except ValueError:
        return None


def makes_messages(stream: Stream) -> bool:
    """Whether the server itself puts messages onto the stream: markers of what expired, or scheduled ones."""
    return bool(stream.config.get("subject_delete_marker_ttl") or stream.config.get("allow_msg_schedules"))


def _feeds(stream: Stream) -> bool:
    """Whether messages get onto the stream otherwise than under one of its subjects."""
    return bool(stream.config.get("sources") or stream.config.get("mirror") or stream.config.get("subject_transform"))
