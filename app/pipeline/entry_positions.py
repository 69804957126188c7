"""Where a watcher of several entries goes on: each entry's position is found by itself (`domain/entries.py`).

The order of reading is that of every opening: first the places, then the stream. One search back from the stream's end
finds each collection's last message. It goes back to what the places know, which is little, or for tokens of
mongodb-nats-connector over as many messages as a search may take. Further back nothing is expected: that program has at
most one message of an entry on the stream whose token it has not stored.
"""

from dataclasses import replace

import structlog

from app.domain.entries import ahead_of, check_stream, position_of, searched_until, undecidable
from app.domain.evidence import claim_of_message, claim_of_position
from app.domain.opening import Facts
from app.domain.position import Checkpoint, OwnMessage, last_epoch
from app.pipeline.proof import Proof
from app.pipeline.run import Run

log = structlog.get_logger(__name__)


class EntryPositions:
    """One opening's look at all entries."""

    def __init__(self, run: Run, proof: Proof) -> None:
        self._run = run
        self._watcher = run.watcher
        self._proof = proof

    async def told(self, facts: Facts) -> Facts:
        """Return the facts with one position that holds for all entries, and those that are ahead of it.

        Unchanged where no entry has a position. Raises HistoryLost, PositionUndecidable, and as `Proof.of_opening`."""
        entries, tail, checkpoint = self._watcher.entries, facts.tail, facts.checkpoint
        parts = checkpoint.parts if checkpoint is not None else (None,) * len(entries)
        epoch, _ = last_epoch(tail, checkpoint, facts.memory)
        memory = facts.memory if facts.memory is not None and facts.memory.epoch == epoch else None
        lost = check_stream(parts, memory, tail) or facts.lost_end
        since = 0 if lost else searched_until(parts, memory, tail)
        messages = await self._run.ports.sink.last_of_each([entry.source.namespace for entry in entries], since)
        places = [place.namespace for place in self._run.watcher.places]
        positions: dict[str, str] = {}
        without: list[str] = []
        for entry, place, part in zip(entries, places, parts, strict=True):
            namespace = entry.source.namespace
            shared, message = places.count(place) > 1, messages.get(namespace)
            known = (None, None) if lost and message is not None else (part, memory)
            token = position_of(known[0], message, known[1], namespace, shared=shared)
            if token is None:
                without.append(namespace)
                continue
            if lost and message is None:
                raise undecidable(namespace, tail)
            positions[namespace] = token
            if memory is None or not memory.proved or token != max(memory.token, dict(memory.ahead).get(namespace, "")):
                await self._prove(token, epoch, part, message)
        if not positions:
            return facts
        # An entry without any position begins where it was when it came into the file, or with the earliest other.
        begin = self._run.stored.begin or min(positions.values())
        positions |= dict.fromkeys(without, begin)
        token = min(positions.values())
        ahead = ahead_of(token, positions)
        log.info("entries_found", watcher=self._watcher.name, token=token, ahead=len(ahead), since=since, lost=lost)
        told = Checkpoint(
            token=token, epoch=epoch, sequence=tail.end, stream_created=tail.created, counted=False,
            ahead=ahead, unsettled=checkpoint.unsettled if checkpoint is not None else (),
            updated_at=checkpoint.updated_at if checkpoint is not None else None, parts=tuple(parts),
        )  # fmt: skip
        return Facts(replace(tail, own=None), told, None, facts.exclusive)

    async def _prove(self, token: str, epoch: int, part: Checkpoint | None, message: OwnMessage | None) -> None:
        stream = self._watcher.sink.stream
        if part is not None and part.token == token:
            claim = claim_of_position(token, epoch, tail=None, checkpoint=part, memory=None, stream=stream)
        else:
            claim = None if message is None else claim_of_message(message, stream)
        await self._proof.of_opening(claim)
