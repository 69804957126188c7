"""How dead letters are answered: the event as it is, and not where it is too large."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.api.schemas.base import to_json
from app.api.schemas.dead_letters import SHOWN_BYTES, WholeLetterAnswer
from app.control.dead_letters import DeadLetterService
from app.domain.dead_letters import DeadLetter
from tests.unit.api.fake_registry import TOKEN


@pytest.mark.parametrize(("size", "shown"), [(SHOWN_BYTES, True), (SHOWN_BYTES + 1, False)])
async def test_a_dead_letter_is_encoded_only_where_it_is_shown_and_never_parsed(size: int, shown: bool) -> None:
    letter = DeadLetter(1, TOKEN, "insert", "oversize", "too large", 0.0, size, 0, raw=bytes(size))
    encoded: list[int] = []

    def encode(raw: bytes, _suffix: str) -> Any:
        encoded.append(len(raw))
        return SimpleNamespace(body=b'{"n":1.10}')

    async def found(_: Any) -> Any:
        return SimpleNamespace(stored=SimpleNamespace(watcher=None), get=found) if _ != 1 else letter

    world: Any = SimpleNamespace(
        nats=SimpleNamespace(letters=lambda _: SimpleNamespace(get=found)), codec=SimpleNamespace(encode=encode)
    )
    answer = to_json(WholeLetterAnswer.whole(*await DeadLetterService(world, found).get("orders", 1, SHOWN_BYTES)))
    assert encoded == [size] * shown
    assert (b'"event":{"n":1.10}' in answer) == shown
