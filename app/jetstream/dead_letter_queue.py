"""A watcher's dead letters in JetStream: `ports.DeadLetterQueue`.

The stream takes one message a subject and refuses a second (`discard_new_per_subject`), and each message expects its
subject to be empty. So to store a letter again is harmless, and whatever a publish came to, its subject tells. No
message ids: the duplicate window would acknowledge a letter that was deleted a moment ago.

An event that no message can hold goes to the object store, in a bucket of the letters' own: the stream's holds bodies,
under the same names. Not its business: what is a dead letter (`pipeline/capture.py`), replaying one
(`pipeline/replays.py`).
"""

from base64 import b64decode
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from app.domain.buckets import bucket_of, bucket_problem
from app.domain.dead_letters import (
    DeadLetter,
    Receipt,
    Unpublishable,
    brief,
    letter_subject,
    letters_of,
    letters_space,
    name_of,
)
from app.domain.errors import (
    FieldProblem,
    Invalid,
    NotAuthorised,
    OutcomeUnknown,
    SinkUnavailable,
    StreamRefused,
    StreamUnsuitable,
)
from app.domain.subjects import covers
from app.domain.watcher import Watcher
from app.jetstream import frames
from app.jetstream.acks import read_ack
from app.jetstream.connection import Answer, ConnectionLost, Forbidden, NatsConnection
from app.jetstream.object_store import ObjectStore
from app.jetstream.streams import (
    NAME_IN_USE,
    NOT_FOUND,
    READ_SECONDS,
    SUBJECTS_OVERLAP,
    ApiError,
    Stream,
    StreamApi,
    headers_of,
    translate,
)

ACK_SECONDS: Final = 5.0
KEY_LIMIT: Final = 1024
"""A document's key of more than that is left out of the headers."""
ERROR_LIMIT: Final = 500
SHORT_ERROR: Final = 100
_NEEDS_SIZE: Final = 10113
_FAR: Final = 1 << 30
"""Beyond every subject: of a list of them only the number is wanted."""

log = structlog.get_logger(__name__)


class JetStreamDeadLetterQueue:
    """One watcher's letters, in the dead-letter stream of the stream that it publishes to."""

    def __init__(self, connection: NatsConnection, watcher: Watcher) -> None:
        self._connection = connection
        self._api = StreamApi(connection)
        self._objects = ObjectStore(connection)
        self._watcher = watcher
        self._source = watcher.sink.stream
        self._name = letters_of(self._source)
        self._bucket = bucket_of(self._name)
        self._filter = self._subject("*")

    def _subject(self, token: str, kind: str = "event") -> str:
        return letter_subject(self._source, self._watcher.name, token, kind)

    async def check(self) -> None:
        """Look whether letters could be kept, changing nothing.

        Raises StreamUnsuitable, Invalid, ApiError, SinkUnavailable, NotAuthorised."""
        problem = bucket_problem(self._bucket)
        if problem is not None:
            raise Invalid(problems=(FieldProblem("sink.stream", f"{problem}, which dead letters need"),))
        space = letters_space(self._source)
        try:
            stream = await self._api.info(self._name)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
        else:
            fault = _fault(stream, space)
            if fault is not None:
                raise StreamUnsuitable(fault)
        others = [name for name in await self._api.names(space) if name != self._name]
        if others:
            raise StreamUnsuitable(
                f"the stream {self._name} for dead letters cannot be created: {', '.join(others)} already takes "
                f"subjects of {space}; choose another sink.stream, or another sink.oversize than dead_letter"
            )

    async def store(self, letter: Unpublishable, epoch: int) -> bool:
        stream = await self._stream()
        subject = self._subject(letter.token)
        headers = [
            ("Changewire-Watcher", self._watcher.name),
            ("Changewire-Token", brief(letter.token)),
            ("Changewire-Operation", letter.operation),
            ("Changewire-Reason", letter.reason),
            ("Changewire-Error", letter.error[:ERROR_LIMIT]),
            ("Changewire-Epoch", str(epoch)),
            ("Changewire-Size", str(len(letter.raw))),
        ]
        if letter.key is not None and len(letter.key) <= KEY_LIMIT:
            headers.append(("Changewire-Key", letter.key))
        if letter.reduced:
            headers.append(("Changewire-Reduced", ", ".join(letter.reduced)))
        body = letter.raw
        limit = min(self._connection.max_payload, stream.max_message or self._connection.max_payload)
        if frames.message_size(self._fenced(headers), body) > limit:
            if await self._last(subject) is not None:
                return False  # its event is there too, and need not be looked at
            name = name_of(letter.token)
            await self._objects.store(self._bucket, name, body, replicas=int(stream.config.get("num_replicas", 1)))
            headers.append(("Changewire-Object", f"{self._bucket}/{name}"))
            body = b""
            if frames.message_size(self._fenced(headers), body) > limit:  # a server that takes very small messages only
                short = {"Changewire-Error": letter.error[:SHORT_ERROR], "Changewire-Token": name}
                headers = [(key, short.get(key, value)) for key, value in headers if key != "Changewire-Key"]
        return await self._put(subject, headers, body)

    async def keep_receipt(self, receipt: Receipt) -> bool:
        await self._stream()
        headers = [
            ("Changewire-Watcher", self._watcher.name),
            ("Changewire-Token", brief(receipt.token)),
            ("Changewire-Epoch", str(receipt.epoch)),
            ("Changewire-Fence", str(receipt.fence)),
            ("Changewire-Created", receipt.created),
        ]
        return await self._put(self._subject(receipt.token, "replay"), headers, b"")

    async def page(self, after: int, limit: int) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        while len(found) < limit:
            message = await self._get({"seq": after + 1, "next_by_subj": self._filter})
            if message is None:
                break
            after = int(message["seq"])
            found.append(_letter(message, None))
        return found

    async def get(self, sequence: int) -> DeadLetter | None:
        message = await self._get({"seq": sequence})
        if message is None or not covers(self._filter, str(message["subject"])):
            return None
        letter = _letter(message, b64decode(message.get("data") or ""))
        if letter.object is None:
            return letter
        return _letter(message, await self._objects.fetch(*letter.object.split("/", 1)))

    async def receipt(self, token: str) -> Receipt | None:
        message = await self._last(self._subject(token, "replay"))
        if message is None:
            return None
        headers = headers_of(message)
        return Receipt(
            token=headers["Changewire-Token"],
            epoch=int(headers["Changewire-Epoch"]),
            fence=int(headers["Changewire-Fence"]),
            created=headers["Changewire-Created"],
            sequence=int(message["seq"]),
        )

    async def remove(self, letter: DeadLetter) -> bool:
        there = await self._delete(letter.sequence)
        if letter.object is not None:
            try:
                await self._objects.delete(*letter.object.split("/", 1))
            except (SinkUnavailable, StreamRefused) as error:
                log.warning("object_left_behind", object=letter.object, reason=str(error))
        return there

    async def drop_receipt(self, receipt: Receipt) -> None:
        await self._delete(receipt.sequence)

    async def count(self) -> int:
        try:
            answer = await self._api.call(
                f"STREAM.INFO.{self._name}", {"subjects_filter": self._filter, "offset": _FAR}, seconds=READ_SECONDS
            )
        except ApiError as error:
            if error.code == NOT_FOUND:
                return 0
            raise self._meaning(error) from error
        return int(answer.get("total", 0))

    # The stream.

    async def _stream(self) -> Stream:
        """Find the stream, or create it. Raises StreamRefused where it is not made for letters, or cannot be."""
        try:
            try:
                stream = await self._api.info(self._name)
            except ApiError as error:
                if error.code != NOT_FOUND:
                    raise
                stream = await self._create()
        except ApiError as error:
            raise self._meaning(error) from error
        fault = _fault(stream, letters_space(self._source))
        if fault is not None:
            raise StreamRefused(fault)
        return stream

    async def _create(self) -> Stream:
        source = await self._api.info(self._source)
        config = {
            "name": self._name,
            "description": f"Changewire: changes that could not be published to {self._source}",
            "subjects": [letters_space(self._source)],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": 1,
            "num_replicas": int(source.config.get("num_replicas", 1)),
            "max_bytes": -1,
            "allow_direct": True,
        }
        try:
            try:
                stream = await self._api.create(config)
            except ApiError as error:
                if error.code != _NEEDS_SIZE or self._watcher.sink.max_bytes < 0:
                    raise
                stream = await self._api.create({**config, "max_bytes": self._watcher.sink.max_bytes})
        except ApiError as error:
            if error.code == NAME_IN_USE:  # another instance was faster
                return await self._api.info(self._name)
            if error.code == SUBJECTS_OVERLAP:
                raise StreamRefused(
                    f"the stream {self._name} for dead letters cannot be created: another stream takes subjects of "
                    f"{letters_space(self._source)}"
                ) from error
            raise
        log.info("dead_letter_stream_created", watcher=self._watcher.name, stream=self._name)
        return stream

    def _meaning(self, error: ApiError) -> Exception:
        """What an answer of the API means here: the letters' stream is never a reason to fail a watcher for good."""
        meaning = translate(error, self._name)
        return StreamRefused(str(meaning)) if isinstance(meaning, StreamUnsuitable) else meaning

    async def _get(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return await self._api.message(self._name, wanted)
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise self._meaning(error) from error

    async def _last(self, subject: str) -> dict[str, Any] | None:
        return await self._get({"last_by_subj": subject})

    async def _delete(self, sequence: int) -> bool:
        try:
            await self._api.call(f"STREAM.MSG.DELETE.{self._name}", {"seq": sequence, "no_erase": True})
        except ApiError as error:
            if error.code == NOT_FOUND or await self._get({"seq": sequence}) is None:
                return False
            raise self._meaning(error) from error
        return True

    # Publishing.

    def _fenced(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        fence = (("Nats-Expected-Stream", self._name), ("Nats-Expected-Last-Subject-Sequence", "0"))
        return [*fence, *headers]

    async def _put(self, subject: str, headers: Iterable[tuple[str, str]], body: bytes) -> bool:
        """Store a message where its subject has none; False where it has. After any doubt the subject tells."""
        named = self._fenced(headers)
        size, most = frames.message_size(named, body), self._connection.max_payload
        if size > most or len(subject.encode()) > self._connection.max_subject:  # else it would cut the connection
            raise StreamRefused(
                f"a dead letter of {size:,} bytes, with a subject of {len(subject):,}, is more than the NATS server "
                f"takes (max_payload {most:,}, subjects of {self._connection.max_subject:,})"
            )

        def build(reply: str) -> Iterable[bytes]:
            return (frames.message(subject, f"{reply}0", named, body),)

        try:
            read_ack(await self._connection.converse(Answer((subject,)), build, seconds=ACK_SECONDS))
        except Forbidden as error:
            raise NotAuthorised(str(error)) from error
        except (OutcomeUnknown, StreamRefused, ConnectionLost, TimeoutError) as error:
            if await self._last(subject) is not None:
                return False
            if isinstance(error, StreamRefused):
                raise StreamRefused(f"the stream {self._name} for dead letters: {error}") from error
            raise SinkUnavailable(f"{self._name} has not acknowledged a dead letter: {error}") from error
        return True


def _fault(stream: Stream, space: str) -> str | None:
    """Return why a stream cannot hold dead letters; None where it can."""
    config, name = stream.config, stream.name
    if config.get("sealed"):
        return f"the stream {name}, for dead letters, is sealed"
    if config.get("mirror") or not any(covers(subject, space) for subject in stream.subjects):
        return f"the stream {name} exists and does not take the subjects of dead letters, {space}"
    if config.get("no_ack"):
        return f"the stream {name}, for dead letters, does not acknowledge messages (no_ack)"
    if config.get("retention", "limits") != "limits":
        return f"the stream {name} has the retention {config['retention']}: a dead letter would not stay; use limits"
    if not (
        config.get("discard") == "new"
        and config.get("discard_new_per_subject")
        and config.get("max_msgs_per_subject") == 1
    ):
        return (
            f"the stream {name} exists and is not made for dead letters: it needs discard `new`, "
            "discard_new_per_subject, and max_msgs_per_subject 1"
        )
    return None


def _letter(message: dict[str, Any], raw: bytes | None) -> DeadLetter:
    headers = headers_of(message)
    time = datetime.fromisoformat(str(message["time"]).partition(".")[0].rstrip("Z")).replace(tzinfo=UTC)
    return DeadLetter(
        sequence=int(message["seq"]),
        token=headers.get("Changewire-Token", ""),
        operation=headers.get("Changewire-Operation", ""),
        reason=headers.get("Changewire-Reason", ""),
        error=headers.get("Changewire-Error", ""),
        time=time.timestamp(),
        size=int(headers.get("Changewire-Size", 0)),
        epoch=int(headers.get("Changewire-Epoch", 0)),
        key=headers.get("Changewire-Key"),
        object=headers.get("Changewire-Object"),
        reduced=headers.get("Changewire-Reduced"),
        raw=raw,
    )
