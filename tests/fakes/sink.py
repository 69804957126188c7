"""A watcher's place on a stream in memory."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from app.domain.dead_letters import Following
from app.domain.errors import (
    FenceLost,
    OutcomeUnknown,
    SeenBefore,
    SinkUnavailable,
    StreamFull,
    StreamRefused,
    StreamUnsuitable,
)
from app.domain.events import Change, namespace_of
from app.domain.position import OwnMessage, Tail
from app.domain.subjects import covers, is_reserved
from app.domain.tokens import MessageId, parse_message_id
from app.domain.watcher import Watcher
from tests.fakes.stream import FakeStream

MAX_ID = 65_000
"""The headers hold no longer one."""


class FakeSink:
    """A watcher's place on a `FakeStream`."""

    look_back = 200

    def __init__(self, stream: FakeStream, watcher: Watcher, max_payload: int = 1024 * 1024) -> None:
        self._stream = stream
        self._watcher = watcher
        self._max_payload = max_payload
        self.slower: str | None = None
        self._under_way: list[asyncio.Task[int]] = []
        self._followed: asyncio.Future[None] | None = None
        """Done when something follows the last change sent, or nothing ever will."""
        self._late = False

    @property
    def exclusive(self) -> bool:
        return all(covers(self._watcher.space, subject) for subject in self._stream.subjects)

    @property
    def mode(self) -> Literal["fast_ingest", "atomic", "window", "single"]:
        return self._stream.mode if self.exclusive else "atomic"

    @property
    def pipelined(self) -> bool:
        return self.exclusive and (self.mode == "fast_ingest" or self._stream.keeps)

    async def prepare(self, *, may_create: bool) -> None:
        await asyncio.sleep(0)
        if self._stream.misfortune is not None:
            raise self._stream.misfortune
        if not self._stream.exists:
            if not may_create:
                raise StreamRefused(f"the stream {self._stream.name} does not exist")
            self._stream.exists = True
            self._stream.subjects = [self._watcher.space]
        if not any(covers(subject, self._watcher.space) for subject in self._stream.subjects):
            raise StreamUnsuitable("the stream's subjects do not cover the watcher's")

    async def tail(self, since: int = 0) -> Tail:
        await asyncio.sleep(0)
        stream = self._stream
        stream.arrive_late()
        if not stream.exists:
            raise StreamRefused(f"the stream {stream.name} does not exist")
        ours = [m for m in stream.messages if covers(self._watcher.space, m.subject)]
        foreign = 0
        own = None
        unsearched = False
        for message in reversed(ours):
            if message.sequence <= since or unsearched:
                break
            parsed = parse_message_id(message.change.id)
            told = namespace_of(message.change.body)
            if parsed is not None and self._watcher.source.may_have_had(told):
                own = OwnMessage(message.sequence, parsed)
                break
            foreign += 1
            unsearched = foreign > self.look_back
        return Tail(
            stream.created, stream.last_sequence, ours[-1].sequence if ours else 0, own, foreign, unsearched,
            counts=self.exclusive, quiet=stream.quiet,
        )  # fmt: skip

    async def holds(self, message: OwnMessage) -> bool | None:
        await asyncio.sleep(0)
        for one in self._stream.messages:
            if one.sequence == message.sequence:
                return one.change.id == str(message.id) and covers(self._watcher.space, one.subject)
        return None

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        stream = self._stream
        await asyncio.sleep(0)
        if stream.before_publish is not None:
            stream.before_publish()
        if not stream.exists:
            raise StreamRefused(f"the stream {stream.name} does not exist")
        batch = [(change.subject or self._watcher.subject(change.operation), replace(change)) for change in changes]
        deed = stream.faults.popleft() if stream.faults else "ok"
        if deed == "unavailable":
            raise SinkUnavailable("connection refused")
        if deed == "refused":
            raise StreamRefused("maximum bytes exceeded")
        if deed == "late":
            self._come_late(batch, fence)
        elif deed == "torn":
            self._tear(batch, fence)
        elif deed != "timeout":
            stream.arrive_late()
            if self.mode == "fast_ingest":
                sequence = stream.store_front(batch, fence, self._watcher.space)
            else:
                sequence = stream.store(batch, fence, self._watcher.space, exclusive=self.exclusive)
            await asyncio.sleep(0)
            if deed == "ok":
                return sequence
        raise OutcomeUnknown("no answer in time")

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]:
        """Atomic batches arrive whatever befell the one before, with their own fence. Of a fast-ingest batch nothing
        arrives behind a change that was refused, or lost; where it came late, the rest comes late too."""
        before = self._under_way[-1] if self._under_way else None
        self.settle()
        if self.mode == "fast_ingest":
            self._followed = asyncio.get_running_loop().create_future() if more else None
            task = asyncio.ensure_future(self._ingest(changes, fence, before, self._followed))
        else:
            task = asyncio.ensure_future(self.publish(changes, fence))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._under_way.append(task)
        return task

    async def _ingest(
        self,
        changes: Sequence[Change],
        fence: int,
        before: asyncio.Task[int] | None,
        followed: asyncio.Future[None] | None,
    ) -> int:
        if before is not None:
            await asyncio.wait([before])
            error = before.exception()
            if error is not None:
                if self._late:
                    self._come_late(
                        [(one.subject or self._watcher.subject(one.operation), replace(one)) for one in changes], fence
                    )
                refused = isinstance(error, FenceLost | SeenBefore | StreamFull | StreamRefused | SinkUnavailable)
                raise FenceLost("the batch has ended") if refused else OutcomeUnknown("the batch has ended")
        self._late = False
        sequence = await self.publish(changes, fence)
        if followed is not None:
            await asyncio.wait([followed])
        return sequence

    def _come_late(self, batch: list[tuple[str, Change]], fence: int) -> None:
        space = self._watcher.space
        if self.mode == "fast_ingest":
            self._late = True
            self._stream.late += [([one], fence + index, space) for index, one in enumerate(batch)]
        else:
            self._stream.late.append((batch, fence, space))

    async def ready(self, changes: Sequence[Change]) -> None:
        at_once = 3 if self.mode == "fast_ingest" else 2
        while True:
            ended = [each for each in self._under_way if each.done()]
            self._under_way = [each for each in self._under_way if not each.done()]
            if len(self._under_way) < at_once or any(each.cancelled() or each.exception() for each in ended):
                return
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    def settle(self) -> None:
        if self._followed is not None and not self._followed.done():
            self._followed.set_result(None)

    def _tear(self, batch: list[tuple[str, Change]], fence: int) -> None:
        for index, one in enumerate(batch[: (len(batch) + 1) // 2]):
            try:
                self._stream.store([one], fence + index, self._watcher.space, exclusive=self.exclusive)
            except (OutcomeUnknown, StreamFull):
                return

    async def publish_singly(self, change: Change, fence: int) -> int:
        await asyncio.sleep(0)
        if change.id in self._stream.ids:
            return fence
        return await self.publish([change], fence)

    @property
    def surely_fits(self) -> tuple[int, int]:
        return self._max_payload // 2, 1000

    def too_large(self, change: Change) -> bool:
        return len(change.body) > self._max_payload or len(change.id) > MAX_ID or self.unusable(change) is not None

    def unusable(self, change: Change) -> str | None:
        return f"its subject {change.subject} is reserved by NATS" if is_reserved(change.subject) else None

    async def last_of_each(self, namespaces: Collection[str], since: int = 0) -> Mapping[str, OwnMessage]:
        await asyncio.sleep(0)
        found: dict[str, OwnMessage] = {}
        for message in self._stream.messages:
            parsed, told = parse_message_id(message.change.id), namespace_of(message.change.body)
            if parsed is not None and told is not None and told in namespaces and message.sequence > since:
                found[told] = OwnMessage(message.sequence, parsed)
        return found

    async def published(self, id_: MessageId) -> bool:
        await asyncio.sleep(0)
        return any(message.change.id == str(id_) for message in self._stream.messages)

    def room(self, change: Change) -> int:
        return self._max_payload if len(change.id) <= MAX_ID and self.unusable(change) is None else -1

    async def following(self, sequence: int) -> Following:
        await asyncio.sleep(0)
        stream = self._stream
        stream.arrive_late()
        after = [m for m in stream.messages if m.sequence > sequence and covers(self._watcher.space, m.subject)]
        first_sequence = stream.messages[0].sequence if stream.messages else stream.last_sequence + 1
        whole, moved = first_sequence <= sequence + 1, bool(after)
        if self.exclusive and stream.last_sequence > sequence:
            whole, moved = bool(after) and after[0].sequence == sequence + 1, True
        if not after:
            return Following(stream.created, moved=moved, whole=whole)
        first = after[0]
        return Following(stream.created, first.sequence, parse_message_id(first.change.id), True, moved, whole)

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        await asyncio.sleep(0)
        self._stream.objects[change.token] = change.body
        return replace(
            change,
            body=pointer,
            pointer=None,
            headers=(*change.headers, ("Changewire-Object", f"{self._stream.name}/{change.token}")),
        )

    async def close(self) -> None:
        for each in self._under_way:
            each.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
