"""The one connection to NATS: made again in the background whenever it is lost, and never buffering.

nats-py reconnects by itself, but it sends what it had buffered after the reconnect, closes for good on errors it does
not know, and waits for a frozen peer to take the last bytes before it says that the peer is gone. So each connection
here is a new client that may not reconnect, and `NatsConnection` replaces it as soon as it is lost.
"""

import asyncio
import random
import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from nats.aio.client import Client

from app.domain.errors import SinkUnavailable
from app.domain.subjects import covers
from app.jetstream.client import CONNECT_SECONDS, Heard, NatsOptions, OneConnection
from app.jetstream.errors import (
    NOT_CONNECTED,
    ConnectionLost,
    Forbidden,
    describe,
    unacknowledged,
    unanswered,
    without_secrets,
)
from app.jetstream.exchange import Answer, Exchange
from app.jetstream.limits import LINE_BYTES, Kind, Limits

RETRY_SECONDS = (0.1, 1.0)
"""The pause after a round of failed attempts over all servers, drawn from this range."""
LOOK_SECONDS = 1.0
"""How often the connection is looked at for signs of life."""
STALE_LOOKS = 6
"""After so many looks at which the server had neither said nor taken anything, it is given up."""

_FORBIDDEN = re.compile(r'permissions violation for (publish|subscription)\b.* to "([^"]*)"')

T = TypeVar("T")

log = structlog.get_logger(__name__)


class NatsConnection:
    """A connection that is always there or being made. One per process; `start` it inside the event loop."""

    def __init__(self, options: NatsOptions) -> None:
        self._options = options
        self._task: asyncio.Task[None] | None = None
        self._client: OneConnection | None = None
        self._reason = "the connection to NATS has not been started"
        self._tried = asyncio.Event()
        self._discovered: dict[str, str | None] = {}
        self._exchanges: dict[bytes, Exchange[Any]] = {}
        self._count = 0
        self._name = f"{secrets.token_hex(5)}-"
        """Before the number of a conversation: a server knows batches of other clients by such names too."""
        self._limits = Limits()
        self._listeners: dict[str, Listener] = {}
        self._told = ""

    @property
    def max_payload(self) -> int:
        """The most bytes, headers and body, of a message; the server's, or the last known one's."""
        return self._limits.max_payload

    @property
    def max_subject(self) -> int:
        """The most bytes of a subject to publish to; likewise."""
        return self._limits.max_control_line - LINE_BYTES

    @property
    def server_version(self) -> str:
        """The connected server's version, or an empty string."""
        return str(self._client.info.get("version", "")) if self._client else ""

    def start(self) -> None:
        """Begin to connect, and return at once."""
        if self._task is None:
            self._reason = "connecting to NATS"
            self._task = asyncio.create_task(self._supervise(), name="nats-connection")

    async def close(self) -> None:
        """Disconnect. What is still awaited fails. Never raises; may be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._reason = "the connection to NATS is closed"

    async def ready(self, seconds: float = 1.0) -> None:
        """Wait for the first attempt to end, then raise SinkUnavailable with the reason where it failed."""
        if self._client is None and self._task is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._tried.wait(), seconds)
        self._require()

    def client(self) -> Client:
        """Return nats-py's client, for its own interfaces. Raises SinkUnavailable while not connected."""
        return self._require()

    async def converse(self, exchange: Exchange[T], frames: Callable[[str], Iterable[bytes]], *, seconds: float) -> T:
        """Write the frames and wait for the exchange's outcome.

        `frames` gets the subject that replies have to go to, to which an index is to be appended. The frames are
        written without giving way to another task, all of them to one connection.
        Raises SinkUnavailable (nothing was written), ConnectionLost, Forbidden, TimeoutError.
        """
        conversation = self.begin(exchange)
        try:
            conversation.write(frames(f"{conversation.reply}."))
            async with asyncio.timeout(seconds):
                return await exchange.outcome
        finally:
            conversation.end()

    def begin(self, exchange: Exchange[Any]) -> "Conversation":
        """Have an exchange get what is sent to its reply subject, until the conversation is ended.

        Raises SinkUnavailable while not connected."""
        client = self._require()
        self._count += 1
        conversation = Conversation(self._exchanges, client, f"{self._name}{self._count}")
        self._exchanges[conversation.key] = exchange
        return conversation

    async def publish(
        self, exchange: Exchange[T], frames: Callable[[str], Iterable[bytes]], *, stream: str, seconds: float
    ) -> T:
        """Publish to a stream, as `converse`, and return what comes of it.

        Raises SinkUnavailable (nothing was written), NotAuthorised, OutcomeUnknown (connection lost, silence).
        """
        try:
            return await self.converse(exchange, frames, seconds=seconds)
        except (TimeoutError, ConnectionLost, Forbidden) as error:
            raise unacknowledged(error, stream, seconds) from error

    async def request(self, subject: str, payload: bytes = b"", *, seconds: float = 5.0) -> bytes | None:
        """Ask something and return the answer, None where nobody listens.

        Raises SinkUnavailable (not connected, connection lost, no answer in time, more than the server takes),
        NotAuthorised.
        """
        if len(subject) > self.max_subject or len(payload) > self.max_payload:  # else it would cut the connection
            raise SinkUnavailable(f"a request of {len(payload):,} bytes to {subject[:100]} is more than NATS takes")

        def frames(reply: str) -> Iterable[bytes]:
            return (f"PUB {subject} {reply}0 {len(payload)}\r\n".encode() + payload + b"\r\n",)

        try:
            return await self.converse(Answer((subject,)), frames, seconds=seconds)
        except (TimeoutError, ConnectionLost, Forbidden) as error:
            raise unanswered(error, subject, seconds) from error

    def listen(self, subject: str, heard: Heard) -> "Listener":
        """Have each message to a subject heard, over this connection and those that follow, until it is unlistened."""
        listener = self._listeners[subject] = Listener(subject, heard)
        if self._client is not None:
            listener.subscribe(self._client)
        return listener

    def unlisten(self, listener: "Listener") -> None:
        """Hear nothing more of a subject. May be called twice."""
        if self._listeners.get(listener.subject) is listener:
            del self._listeners[listener.subject]
        listener.unsubscribe(self._client)

    def write(self, frames: Iterable[bytes]) -> None:
        """Write whole frames that are not answered. Raises SinkUnavailable while not connected."""
        client = self._require()
        for frame in frames:
            client.send(frame)

    def _require(self) -> OneConnection:
        client = self._client
        if client is not None and client.lost.done():
            raise SinkUnavailable(f"the connection to NATS was lost: {client.lost.result()}")
        if client is None:
            raise SinkUnavailable(self._reason)
        return client

    async def _supervise(self) -> None:
        try:
            while True:
                _heed_cancellation()
                try:
                    client = await self._connect()
                    if client is not None:
                        await self._keep(client)
                except Exception as error:  # an error of ours or nats-py's must not end the service's only connection
                    self._reason = f"cannot connect to NATS: {describe(error)}"
                    if self._reason != self._told:  # the same one comes with every attempt
                        log.error("nats_connection_trouble", exc_info=error)
                    self._told = self._reason
                    client = None
                self._tried.set()
                if client is None:
                    await asyncio.sleep(random.uniform(*RETRY_SECONDS))
        finally:
            self._client = None
            self._fail_all(ConnectionLost("the connection to NATS was closed"))

    async def _connect(self) -> OneConnection | None:
        """Try every known server once."""
        candidates: dict[str, str | None] = dict.fromkeys(random.sample(self._options.urls, len(self._options.urls)))
        for url, tls_name in self._discovered.items():
            candidates.setdefault(url, tls_name)
        reasons = []
        for url, tls_name in candidates.items():
            client = OneConnection(self._dispatch, self._forbidden, self._options.inbox_prefix)
            try:
                async with asyncio.timeout(3 * CONNECT_SECONDS):
                    await client.establish(url, tls_name, self._options)
            except (*NOT_CONNECTED, SinkUnavailable) as error:
                reasons.append(f"{without_secrets(url)}: {describe(client.last_failure or error)}")
                await client.dispose()
            except BaseException:
                await client.dispose()
                raise
            else:
                self._told = ""
                log.info("nats_connected", server=without_secrets(url), version=client.info.get("version"))
                return client
        self._reason = "cannot connect to NATS: " + "; ".join(reasons)
        if self._reason != self._told:
            log.debug("nats_unreachable", reason=self._reason)  # the server probe says it, as the reason of an outage
            self._told = self._reason
        return None

    async def _keep(self, client: OneConnection) -> None:
        """Serve until the connection is lost, or its server has been silent for too long."""
        try:
            await self._limits.meet(client.max_payload, lambda kind, size: self._fits(client, kind, size))
            self._client = client
            for listener in self._listeners.values():
                listener.subscribe(client)
            self._tried.set()
            _heed_cancellation()
            idle, before = 0, client.progress()
            while not client.lost.done():
                await asyncio.wait([client.lost], timeout=LOOK_SECONDS)
                # Counted in looks, not in time: a process that was frozen itself has to look again before it judges.
                now = client.progress()
                idle, before = (0 if now != before else idle + 1), now
                if idle >= STALE_LOOKS:
                    client.lose(f"the NATS server has been silent for {STALE_LOOKS * LOOK_SECONDS:g} s")
            self._reason = f"the connection to NATS was lost: {client.lost.result()}"
            self._limits.lost(client.lost.result())
            log.info("nats_disconnected", reason=client.lost.result(), awaited=len(self._exchanges))
        finally:
            self._client = None
            self._fail_all(ConnectionLost(self._reason))
            for url in client.discovered():
                self._discovered.setdefault(url, client.tls_name_of(url))
            await client.dispose()

    async def _fits(self, client: OneConnection, kind: Kind, size: int) -> bool:
        """Try, on a connection of its own to the same server, whether that takes a message or a command of this size.

        Raises SinkUnavailable where it cannot be reached."""
        probe = OneConnection(lambda *_: None, lambda _: None, self._options.inbox_prefix)
        try:
            async with asyncio.timeout(3 * CONNECT_SECONDS):
                await probe.establish(*client.address, self._options)
            if kind == "payload":
                probe.send(f"PUB {probe.inbox}probe {size}\r\n".encode() + b"x" * size + b"\r\n")
            else:
                arguments = f"{probe.inbox}{'x' * size}"[: size - 2] + " 0"
                probe.send(f"PUB {arguments}\r\n\r\n".encode())
            answered = asyncio.create_task(probe.flush(3 * CONNECT_SECONDS), name="nats-limit-probe")
            try:
                await asyncio.wait((answered, probe.lost), return_when=asyncio.FIRST_COMPLETED)
                if probe.lost.done():  # whatever the reason: its words may be lost with the connection
                    return False
                await answered
            finally:
                answered.cancel()
                await asyncio.gather(answered, return_exceptions=True)
        except NOT_CONNECTED as error:
            raise SinkUnavailable(f"the limits of the NATS server cannot be found out: {describe(error)}") from error
        else:
            return True
        finally:
            await probe.dispose()

    def _fail_all(self, error: Exception) -> None:
        for exchange in list(self._exchanges.values()):  # a failed one may end its conversation
            exchange.fail(error)

    def _dispatch(self, token: bytes, data: bytes, headers: bytes | None) -> None:
        key, _, rest = token.partition(b".")
        exchange = self._exchanges.get(key)
        if exchange is not None and not exchange.outcome.done():
            exchange.heard(rest, data, headers)

    def _forbidden(self, text: str) -> None:
        """Fail what needed the subject. The server names it in an error, which nats-py puts in lower case."""
        found = _FORBIDDEN.search(text)
        subject = found.group(2) if found else ""
        if found is not None and found.group(1) == "subscription":
            for listener in self._listeners.values():
                if listener.subject.lower() == subject:
                    listener.refuse()
            return
        for exchange in list(self._exchanges.values()):
            if exchange.outcome.done():
                continue
            for wanted in exchange.subjects:
                if covers(wanted.lower(), subject):
                    exchange.fail(
                        Forbidden(
                            f"the NATS account may not publish to {wanted}; add that to the user's publish permissions"
                        )
                    )
                    break


class Conversation:
    """What is written over one connection, and answered to one exchange."""

    def __init__(self, exchanges: dict[bytes, Exchange[Any]], client: OneConnection, name: str) -> None:
        self._exchanges = exchanges
        self._client = client
        self.name = name
        """No other conversation has it, of this client or another."""
        self.key = name.encode()
        self.reply = client.inbox + name
        """The subject whose sub-subjects the exchange hears."""

    def write(self, frames: Iterable[bytes]) -> None:
        """Write to the connection, without giving way to another task. Where it is lost, the exchange is told."""
        for chunk in frames:
            if not self._client.lost.done():
                self._client.send(chunk)

    def end(self) -> None:
        """Hear nothing more. May be called twice."""
        self._exchanges.pop(self.key, None)


class Listener:
    """A subject that is listened to, over one connection after the other."""

    def __init__(self, subject: str, heard: Heard) -> None:
        self.subject = subject
        self.problem: str | None = None
        """Why nothing is heard; None where the server has not refused it."""
        self._heard = heard
        self._over: tuple[OneConnection, int] | None = None

    def subscribe(self, client: OneConnection) -> None:
        self.problem = None
        self._over = client, client.listen(self.subject, self._heard)

    def unsubscribe(self, client: OneConnection | None) -> None:
        if self._over is not None and self._over[0] is client and not client.lost.done():
            client.unlisten(self._over[1])
        self._over = None

    def refuse(self) -> None:
        """The server does not let this account listen there."""
        self.problem = (
            f"the NATS account may not subscribe to {self.subject}; add that to the user's subscribe permissions"
        )
        log.warning("nats_permission_denied", subject=self.subject, reason=self.problem)


def _heed_cancellation() -> None:
    """Raise the CancelledError that nats-py swallowed, as it does while it connects and closes."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
