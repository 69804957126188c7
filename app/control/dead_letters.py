"""What can be done with a watcher's dead letters: look at them, replay one, delete one.

Looking and deleting go straight to NATS, through any instance and in any state. A replay is done by the running watcher
in its turn (`pipeline/replays.py`).
"""

from collections.abc import Awaitable, Callable

from app.control import audit
from app.control.fleet import Watched
from app.domain.dead_letters import DeadLetter, Replay
from app.domain.errors import EventNotEncodable, NotFound
from app.pipeline.dependencies import Dependencies, servers_needed

LOOKS = 3
"""How often a page is asked for again while letters come and go."""


class DeadLetterService:
    """The dead letters of all watchers. `task_of` finds a watcher's task by name, or raises NotFound, Unavailable."""

    def __init__(self, dependencies: Dependencies, task_of: Callable[[str], Awaitable[Watched]]) -> None:
        self._dependencies = dependencies
        self._task_of = task_of

    async def page(self, name: str, *, after: int, limit: int) -> tuple[int, list[DeadLetter]]:
        """Return how many there are in all, and those after a sequence, oldest first. Raises NotFound, Unavailable.

        Both are of one moment: where one was set aside or removed in between, both are asked for again, a few times."""
        task = await self._task_of(name)
        letters = self._dependencies.nats.letters(task.stored.watcher)
        async with servers_needed():
            total, found = await letters.count(), await letters.page(after, limit)
            for _ in range(LOOKS):
                before, total = total, await letters.count()
                if total == before:
                    break
                found = await letters.page(after, limit)
        return total, found

    async def get(self, name: str, sequence: int, largest: int) -> tuple[DeadLetter, bytes | None]:
        """Return one with its event, and that as JSON where it can be written so and has `largest` bytes at the most as
        BSON: to encode a larger one takes time on the event loop. Raises NotFound, Unavailable."""
        task = await self._task_of(name)
        async with servers_needed():
            letter = await self._dependencies.nats.letters(task.stored.watcher).get(sequence)
        if letter is None:
            raise NotFound(f"{name} has no dead letter {sequence}")
        if letter.raw is None or len(letter.raw) > largest:
            return letter, None
        try:
            return letter, self._dependencies.codec.encode(letter.raw, "").body
        except EventNotEncodable:
            return letter, None

    async def replay(self, name: str, sequence: int) -> Replay:
        """Publish one after all, and remove it. Raises NotFound, Conflict, Unavailable."""
        replay = await (await self._task_of(name)).replay(sequence)
        audit.note(letter=sequence, token=replay.token, stream_sequence=replay.sequence)
        return replay

    async def remove(self, name: str, sequence: int) -> None:
        """Delete one: its change is lost to the stream, on purpose. Raises NotFound, Conflict, Unavailable."""
        task = await self._task_of(name)
        letters = self._dependencies.nats.letters(task.stored.watcher)
        async with servers_needed():
            letter = await letters.get(sequence)
            if letter is None or not await letters.remove(letter):
                raise NotFound(f"{name} has no dead letter {sequence}")
            audit.note(letter=sequence, token=letter.token)
            task.statistics.dead_letters = await letters.count()
