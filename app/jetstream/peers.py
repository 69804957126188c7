"""How instances ask each other: request-reply over the connection that is there anyway, in signed messages.

    <prefix>.<circle>.<instance>            what this instance is asked
    <prefix>.<circle>.<instance>.<nonce>    what it is answered

Answers do not go to `_INBOX`: an account then needs no right to publish there, with which it could answer in place of
JetStream. What is signed, and what a part must be to count, is in `domain/sealing.py`. A client that publishes to these
subjects without the key is not heard.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from app.domain.errors import ChangewireError, InstanceSilent, SinkUnavailable
from app.domain.peer_messages import Answer, Ask
from app.domain.sealing import NOBODY, NONCE_BYTES, Kind, Message, Opener, Refused, seal
from app.jetstream.connection import Listener, NatsConnection
from app.jetstream.errors import ConnectionLost, Forbidden
from app.jetstream.exchange import NO_RESPONDERS, Exchange
from app.ports.peers import Circle, Handler

MOST_AT_ONCE: Final = 64
"""Requests that are carried out for others at the same time."""
LOOK_SECONDS: Final = 0.25
"""How often it is looked whether there is somebody to ask, and what the instances share."""
FRESH_SECONDS: Final = 10.0
"""How often it is looked again: the state database may have been dropped and made again."""
SAID_SECONDS: Final = 60.0
"""For so long what is wrong with a message is not logged again."""
LARGE_BYTES: Final = 128 * 1024
"""A message of more bytes is compressed and signed in a thread."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """This instance among those on its state database."""

    name: str
    prefix: str
    """The first part of all subjects."""
    circle: Callable[[], Awaitable[Circle | None]]
    """Reads what the instances share; None while there is nobody to ask. Raises what the store raises."""


class JetStreamPeers:
    """The other instances (`ports.Peers`). The connection is started and closed by its owner."""

    def __init__(self, connection: NatsConnection, me: Member, clock: Callable[[], float] = time.time) -> None:
        self._connection = connection
        self._me = me
        self._clock = clock
        self._opener = Opener(clock())
        self._handler: Handler | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._circle: Circle | None = None
        self._listeners: list[Listener] = []
        self._asked: dict[bytes, Asked] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._said: dict[str, float] = {}

    # Life

    def serve(self, handler: Handler) -> None:
        self._handler = handler

    def start(self) -> None:
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_listening(), name="peers")
            self._keeping.add_done_callback(_report_end)

    async def close(self) -> None:
        keeping, self._keeping = self._keeping, None
        tasks = [*self._working, *(() if keeping is None else (keeping,))]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._listen(None)

    async def _keep_listening(self) -> None:
        """Listen for what concerns this instance, as soon as it is known under which subjects."""
        while True:
            circle = None
            if self._handler is not None:
                with contextlib.suppress(ChangewireError):  # the state database cannot be reached: what is known counts
                    circle = await self._me.circle()
            if circle is not None and circle != self._circle:
                self._listen(circle)
            await asyncio.sleep(LOOK_SECONDS if circle is None else FRESH_SECONDS)

    def _listen(self, circle: Circle | None) -> None:
        for listener in self._listeners:
            self._connection.unlisten(listener)
        self._listeners.clear()
        self._circle = circle
        if circle is not None:
            mine = self._subject(circle, self._me.name)
            self._listeners = [
                self._connection.listen(mine, self._hear_question),
                self._connection.listen(f"{mine}.*", self._hear_answer),
            ]

    # Asking

    async def ask(self, instance: str, ask: Ask, *, seconds: float) -> Answer:
        message = await self._exchange(instance, ask.to_bytes(), seconds)
        if message.kind is Kind.ANSWER:
            try:
                return Answer.from_bytes(message.data)
            except ValueError as error:
                raise InstanceSilent(f"the instance {instance} answered something else: {error}", begun=True) from error
        if message.kind is Kind.BUSY:
            raise InstanceSilent(f"the instance {instance} answers {MOST_AT_ONCE} requests of others already")
        raise InstanceSilent(f"the instance {instance} met an error of Changewire; its log has the details", begun=True)

    async def _exchange(self, instance: str, data: bytes, seconds: float) -> Message:
        """Ask, and return the answer. Raises InstanceSilent."""
        circle = self._heard_circle()
        subject = self._subject(circle, instance)
        nonce = secrets.token_bytes(NONCE_BYTES)
        asked = Asked((subject,))
        reply = f"{self._subject(circle, self._me.name)}.{nonce.hex()}"
        try:
            frames = await self._frames(circle, subject, Message(Kind.ASK, nonce, NOBODY, data), reply)
            conversation = self._connection.begin(asked)
        except (SinkUnavailable, ValueError) as error:
            raise InstanceSilent(f"the instance {instance} cannot be asked: {error}") from error
        self._asked[nonce] = asked
        try:
            conversation.write(frames)
            async with asyncio.timeout(seconds):
                message = await asked.outcome
        except TimeoutError as error:
            raise InstanceSilent(f"the instance {instance} did not answer within {seconds:g} s", begun=True) from error
        except ConnectionLost as error:
            raise InstanceSilent(f"the answer of the instance {instance} was lost: {error}", begun=True) from error
        except Forbidden as error:
            raise InstanceSilent(f"the instance {instance} cannot be asked: {error}") from error
        finally:
            del self._asked[nonce]
            conversation.end()
        if message is None:
            raise InstanceSilent(f"the instance {instance} does not listen on NATS")
        return message

    def _heard_circle(self) -> Circle:
        """Return what the instances share, where answers arrive. Raises InstanceSilent."""
        for listener in self._listeners:
            if listener.problem is not None:
                raise InstanceSilent(f"other instances cannot be asked: {listener.problem}")
        if self._circle is None:
            raise InstanceSilent("other instances cannot be asked before the state database was reached")
        return self._circle

    def _hear_answer(self, subject: bytes, data: bytes, headers: bytes | None) -> None:
        asked = self._asked.get(_nonce_of(subject))
        if asked is None:
            return  # too late
        if headers is not None and headers.startswith(NO_RESPONDERS):
            asked.resolve(None)
            return
        message = self._open(subject, data)
        if message is not None and message.about == _nonce_of(subject) and message.kind is not Kind.ASK:
            asked.resolve(message)

    # Answering

    def _hear_question(self, subject: bytes, data: bytes, _headers: bytes | None) -> None:
        message = self._open(subject, data)
        if message is None or message.kind is not Kind.ASK:
            return
        try:
            ask = Ask.from_bytes(message.data)
        except ValueError as error:
            self._refused(subject, f"it cannot be read: {error}")
            return
        if len(self._working) < MOST_AT_ONCE:
            work = self._carry_out(ask, message.nonce)
        else:
            if self._may_say("busy"):
                log.warning("peers_busy", at_once=MOST_AT_ONCE)
            work = self._answer(ask, message.nonce, Kind.BUSY, b"")
        task = asyncio.create_task(work, name=f"peer:{ask.method}:{ask.path[:100]}")
        self._working.add(task)
        task.add_done_callback(self._ended)

    async def _carry_out(self, ask: Ask, nonce: bytes) -> None:
        handler = self._handler
        assert handler is not None  # before that nothing is listened to
        try:
            answer = await handler(ask)
        except Exception as error:  # whatever it is, the other instance is told, and need not wait
            path = ask.path[:300]
            log.error("peer_request_failed", method=ask.method, path=path, through=ask.through, exc_info=error)
            await self._answer(ask, nonce, Kind.FAILED, b"")
        else:
            await self._answer(ask, nonce, Kind.ANSWER, answer.to_bytes())

    async def _answer(self, ask: Ask, about: bytes, kind: Kind, data: bytes) -> None:
        circle = self._circle
        if circle is None:
            return
        subject = f"{self._subject(circle, ask.through)}.{about.hex()}"
        message = Message(kind, secrets.token_bytes(NONCE_BYTES), about, data)
        try:
            self._connection.write(await self._frames(circle, subject, message, None))
        except (SinkUnavailable, ValueError) as error:  # the other instance waits no longer than it said
            if self._may_say("unanswered"):
                log.warning("peer_not_answered", instance=ask.through, path=ask.path[:300], reason=str(error))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("peer_task_ended", task=task.get_name(), exc_info=error)

    # Messages

    def _subject(self, circle: Circle, instance: str) -> str:
        return f"{self._me.prefix}.{circle.id}.{token_of(instance)}"

    async def _frames(self, circle: Circle, subject: str, message: Message, reply: str | None) -> list[bytes]:
        """Return a message in the NATS client protocol. Raises ValueError for one that cannot be sent."""
        largest, now = self._connection.max_payload, self._clock()
        if len(message.data) > LARGE_BYTES:
            parts = await asyncio.to_thread(seal, circle.key, subject, message, now=now, largest=largest)
        else:
            parts = seal(circle.key, subject, message, now=now, largest=largest)
        to = subject if reply is None else f"{subject} {reply}"
        if len(to) > self._connection.max_subject:
            raise ValueError(f"the subject {subject[:100]} is longer than NATS takes")
        return [f"PUB {to} {len(part)}\r\n".encode() + part + b"\r\n" for part in parts]

    def _open(self, subject: bytes, data: bytes) -> Message | None:
        circle = self._circle
        if circle is None:
            return None
        try:
            return self._opener.open(circle.key, subject.decode(), data, now=self._clock())
        except (Refused, ValueError) as error:
            self._refused(subject, str(error))
            return None

    def _refused(self, subject: bytes, reason: str) -> None:
        if self._may_say(reason[:12]):  # a number may follow
            log.warning("peer_message_refused", reason=reason, subject=subject.decode(errors="replace"))

    def _may_say(self, what: str) -> bool:
        """Whether it was not said within the last minute."""
        now = self._clock()
        if now - self._said.get(what, -SAID_SECONDS) < SAID_SECONDS:
            return False
        self._said[what] = now
        return True


class Asked(Exchange[Message | None]):
    """A question that is under way: its answer, or None where nobody listens. Both come to a subject of our own."""

    def heard(self, rest: bytes, data: bytes, headers: bytes | None) -> None:
        """Nobody is told the reply subject of the conversation."""


_ANY_GROUP: Final = "0" * 12


def subjects_of(prefix: str) -> tuple[str, ...]:
    """Return patterns that overlap with all other patterns that would take subjects between instances.

    The second token is the group's: twelve random digits, which nobody writes into a subject. So `*.shop.orders`, where
    the first token is an operation, takes none of them."""
    return f"{prefix}.{_ANY_GROUP}.*", f"{prefix}.{_ANY_GROUP}.*.*"


def token_of(instance: str) -> str:
    """Return an instance's name as one token of a subject. No two names have the same."""
    return instance if _PLAIN.fullmatch(instance) else f"={instance.encode().hex()}"


def _nonce_of(subject: bytes) -> bytes:
    last = subject.rpartition(b".")[2]
    try:
        return bytes.fromhex(last.decode())
    except ValueError:
        return NOBODY


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("peers_ended", exc_info=error)
