"""A command, as somebody calls it whose environment names service and token."""

import asyncio
import json
from typing import Any

import pytest

from app.__main__ import main

SECRET = "hunter2hunter2"


class Command:
    """One of `changewire`'s commands."""

    def __init__(self, name: str, capfd: pytest.CaptureFixture[str]) -> None:
        self._name = name
        self._capfd = capfd

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints: of an error the message, else the output."""
        self._capfd.readouterr()
        got = await asyncio.to_thread(main, [self._name, *arguments])
        said, errors = self._capfd.readouterr()
        assert SECRET not in said + errors
        assert got == code, said + errors
        assert errors == "" or code
        return errors if code else said

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self(*arguments, "--json"))
