"""A dead-letter stream in memory, and one watcher's dead letters on it."""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

from app.domain.dead_letters import DeadLetter, Receipt, Unpublishable
from app.domain.watcher import Watcher


@dataclass
class FakeBox:
    """A dead-letter stream. `faults` are raised, one per call that changes something; `lost` answers are not heard."""

    letters: dict[int, tuple[str, DeadLetter]] = field(default_factory=dict)
    """Watcher and letter, by sequence."""
    receipts: dict[tuple[str, str], Receipt] = field(default_factory=dict)
    sequence: int = 0
    faults: deque[Exception | None] = field(default_factory=deque)
    misfortune: Exception | None = None

    def change(self) -> None:
        self.reach()
        if self.faults and (fault := self.faults.popleft()) is not None:
            raise fault

    def reach(self) -> None:
        if self.misfortune is not None:
            raise self.misfortune

    def tokens(self) -> list[str]:
        return [letter.token for _, letter in self.letters.values()]


class FakeLetters:
    """One watcher's letters in a `FakeBox`."""

    def __init__(self, box: FakeBox, watcher: Watcher) -> None:
        self._box = box
        self._name = watcher.name

    def _own(self) -> list[DeadLetter]:
        return [letter for name, letter in self._box.letters.values() if name == self._name]

    async def store(self, letter: Unpublishable, epoch: int) -> bool:
        await asyncio.sleep(0)
        self._box.change()
        if any(there.token == letter.token for there in self._own()):
            return False
        self._box.sequence += 1
        sequence = self._box.sequence
        stored = DeadLetter(
            sequence, letter.token, letter.operation, letter.reason, letter.error, 0.0, len(letter.raw), epoch,
            key=letter.key, reduced=", ".join(letter.reduced) or None, raw=letter.raw,
        )  # fmt: skip
        self._box.letters[sequence] = self._name, stored
        await asyncio.sleep(0)
        return True

    async def keep_receipt(self, receipt: Receipt) -> bool:
        await asyncio.sleep(0)
        self._box.change()
        if (self._name, receipt.token) in self._box.receipts:
            return False
        self._box.sequence += 1
        self._box.receipts[self._name, receipt.token] = replace(receipt, sequence=self._box.sequence)
        await asyncio.sleep(0)
        return True

    async def page(self, after: int, limit: int) -> list[DeadLetter]:
        await asyncio.sleep(0)
        self._box.reach()
        return [replace(letter, raw=None) for letter in self._own() if letter.sequence > after][:limit]

    async def get(self, sequence: int) -> DeadLetter | None:
        await asyncio.sleep(0)
        self._box.reach()
        return next((letter for letter in self._own() if letter.sequence == sequence), None)

    async def receipt(self, token: str) -> Receipt | None:
        await asyncio.sleep(0)
        self._box.reach()
        return self._box.receipts.get((self._name, token))

    async def remove(self, letter: DeadLetter) -> bool:
        await asyncio.sleep(0)
        self._box.change()
        there = self._box.letters.pop(letter.sequence, None) is not None
        await asyncio.sleep(0)
        return there

    async def drop_receipt(self, receipt: Receipt) -> None:
        await asyncio.sleep(0)
        self._box.change()
        there = self._box.receipts.get((self._name, receipt.token))
        if there is not None and there.sequence == receipt.sequence:
            del self._box.receipts[self._name, receipt.token]

    async def count(self) -> int:
        await asyncio.sleep(0)
        self._box.reach()
        return len(self._own())
