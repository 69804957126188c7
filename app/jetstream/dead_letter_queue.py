"""A watcher's dead letters in JetStream: `ports.DeadLetterQueue`.

The stream takes one message per subject and refuses a second (`discard_new_per_subject`), and each message expects its
subject to be empty. So storing a letter again is harmless, and after any outcome of a publish its subject tells whether
it is there. No message ids: the duplicate window would acknowledge a letter that was deleted a moment ago.

An event that no message can hold goes to the object store, in the letters' own bucket: the stream's bucket holds
bodies, under the same names. What is a dead letter is decided in `pipeline/`.
"""

from base64 import b64decode
from collections.abc import Iterable
from typing import Any, Final

import structlog

from app.domain.buckets import bucket_of
from app.domain.dead_letters import DeadLetter, Receipt, Unpublishable, letter_subject, letters_of, name_of
from app.domain.errors import OutcomeUnknown, SinkUnavailable, StreamRefused
from app.domain.subjects import covers
from app.domain.watcher import Watcher
from app.jetstream import dead_letter_stream, frames
from app.jetstream.connection import NatsConnection
from app.jetstream.dead_letter_messages import (
    letter_headers,
    object_header,
    read_letter,
    read_receipt,
    receipt_headers,
    shortened,
)
from app.jetstream.errors import NOT_FOUND, ApiError, passing_refusal, passing_refusals
from app.jetstream.exchange import Answer
from app.jetstream.object_store import ObjectStore
from app.jetstream.publish.acks import read_ack
from app.jetstream.stream_api import READ_SECONDS, StreamApi, unless_missing
from app.jetstream.streams import Stream

ACK_SECONDS: Final = 5.0
_FAR: Final = 1 << 30
"""Beyond every subject: of the list of subjects only the number is wanted."""

log = structlog.get_logger(__name__)


class JetStreamDeadLetterQueue:
    """One watcher's letters, in the dead-letter stream of the stream that it publishes to."""

    def __init__(self, connection: NatsConnection, watcher: Watcher) -> None:
        self._connection = connection
        self._api = StreamApi(connection)
        self._objects = ObjectStore(connection)
        self._watcher = watcher
        self._name = letters_of(watcher.sink.stream)
        self._bucket = bucket_of(self._name)
        self._filter = self._subject("*")

    def _subject(self, token: str, kind: str = "event") -> str:
        return letter_subject(self._watcher.sink.stream, self._watcher.name, token, kind)

    async def check(self) -> None:
        """Look whether letters could be kept, changing nothing.

        Raises StreamUnsuitable, Invalid, ApiError, SinkUnavailable, NotAuthorised."""
        await dead_letter_stream.check(self._api, self._watcher.sink.stream)

    async def store(self, letter: Unpublishable, epoch: int) -> bool:
        stream = await self._stream()
        subject = self._subject(letter.token)
        headers = letter_headers(self._watcher.name, letter, epoch)
        body = letter.raw
        limit = min(self._connection.max_payload, stream.max_message or self._connection.max_payload)
        if frames.message_size(self._fenced(headers), body) > limit:
            if await self._last(subject) is not None:
                return False  # its event is there too, and need not be looked at
            name = name_of(letter.token)
            await self._objects.store(self._bucket, name, body, replicas=int(stream.config.get("num_replicas", 1)))
            headers.append(object_header(self._bucket, name))
            body = b""
            if frames.message_size(self._fenced(headers), body) > limit:
                headers = shortened(headers, letter)
        return await self._put(subject, headers, body)

    async def keep_receipt(self, receipt: Receipt) -> bool:
        await self._stream()
        subject = self._subject(receipt.token, "replay")
        return await self._put(subject, receipt_headers(self._watcher.name, receipt), b"")

    async def page(self, after: int, limit: int) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        while len(found) < limit:
            message = await self._get({"seq": after + 1, "next_by_subj": self._filter})
            if message is None:
                break
            after = int(message["seq"])
            found.append(read_letter(message, None))
        return found

    async def get(self, sequence: int) -> DeadLetter | None:
        message = await self._get({"seq": sequence})
        if message is None or not covers(self._filter, str(message["subject"])):
            return None
        letter = read_letter(message, b64decode(message.get("data") or ""))
        if letter.object is None:
            return letter
        return read_letter(message, await self._objects.fetch(*letter.object.split("/", 1)))

    async def receipt(self, token: str) -> Receipt | None:
        message = await self._last(self._subject(token, "replay"))
        return None if message is None else read_receipt(message)

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
        wanted = {"subjects_filter": self._filter, "offset": _FAR}
        with passing_refusals(self._name):
            asked = self._api.call(f"STREAM.INFO.{self._name}", wanted, seconds=READ_SECONDS)
            answer = await unless_missing(asked)
        return 0 if answer is None else int(answer.get("total", 0))

    # The stream. It is never a reason to fail the watcher, so what it refuses counts as passing.

    async def _stream(self) -> Stream:
        """Find the stream, or create it. Raises StreamRefused where it is not made for letters, or cannot be."""
        with passing_refusals(self._name):
            return await dead_letter_stream.provide(self._api, self._watcher)

    async def _get(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        with passing_refusals(self._name):
            return await unless_missing(self._api.message(self._name, wanted))

    async def _last(self, subject: str) -> dict[str, Any] | None:
        return await self._get({"last_by_subj": subject})

    async def _delete(self, sequence: int) -> bool:
        try:
            await self._api.call(f"STREAM.MSG.DELETE.{self._name}", {"seq": sequence, "no_erase": True})
        except ApiError as error:
            if error.code == NOT_FOUND or await self._get({"seq": sequence}) is None:
                return False
            raise passing_refusal(error, self._name) from error
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
            answer = Answer((subject,))
            read_ack(await self._connection.publish(answer, build, stream=self._name, seconds=ACK_SECONDS))
        except (OutcomeUnknown, StreamRefused) as error:
            if await self._last(subject) is not None:
                return False
            if isinstance(error, StreamRefused):
                raise StreamRefused(f"the stream {self._name} for dead letters: {error}") from error
            raise SinkUnavailable(f"{self._name} has not acknowledged a dead letter: {error}") from error
        return True
