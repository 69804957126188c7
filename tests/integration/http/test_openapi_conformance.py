"""The HTTP interface under fire: schemathesis sends what openapi.json allows, and what it does not, to a real service.

Every answer has to be one that the document knows, none may be an error of ours, and what the document forbids has to
be refused. What is sent is the same each time, and its amount is bounded. By one client alone: schemathesis's threads
meet a fault of Python 3.11, and of two clients one may rightly be told 503 while the other stops its watcher.
"""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from app.devservers.servers import MongoServer, NatsServer
from tests.live import Live

DOCUMENT = Path(__file__).parents[3] / "openapi.json"
TOKEN = "write-0123456789abcdef"
EXAMPLES = 4
CONFIG = """
[checks]
# A request that the document allows may still be refused for what is there.
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "412"]
negative_data_rejection.expected-statuses = ["400", "404", "405", "409", "412", "413", "415", "422"]

# What no schema can say: the body's name is the URL's, the server takes pipeline, stream, position and filter.
[[operations]]
include-operation-id = ["addWatcher", "putWatcher", "setToken", "beginSnapshot"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "412", "422"]
"""
STREAMING = "text/event-stream"
"""Answers of this kind do not end by themselves."""


def endless() -> list[str]:
    """The options that leave out the calls whose answers do not end."""
    calls = json.loads(DOCUMENT.read_text())["paths"].values()
    return [
        option
        for methods in calls
        for call in methods.values()
        if STREAMING in call["responses"].get("200", {}).get("content", {})
        for option in ("--exclude-operation-id", call["operationId"])
    ]


def troubles(said: str) -> str:
    """What schemathesis says of failures and errors: between its progress and its sums."""
    found = re.search(r"=+ (FAILURES|ERRORS) =+.*", said, re.DOTALL)
    return (said if found is None else found[0])[:12_000]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_no_request_is_answered_otherwise_than_documented(
    own_mongo: MongoServer, own_nats: NatsServer, unique: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"CHANGEWIRE_API_TOKEN": TOKEN, "CHANGEWIRE_READS_NEED_TOKEN": "true"}
    async with Live(own_mongo.uri, own_nats.url, unique, **settings) as live:
        await live.add("known")
        live.insert(1)
        await live.seen("1")
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("st")), "run", str(DOCUMENT), "--url", live.url,
            "--header", f"Authorization: Bearer {TOKEN}", "--checks", "all", "--phases", "examples,coverage,fuzzing",
            "--max-examples", str(EXAMPLES), "--generation-deterministic",
            "--request-timeout", "20", "--no-color", "--continue-on-failure", *endless(),
            cwd=tmp_path,
            env={name: os.environ[name] for name in ("PATH", "PYTHONPYCACHEPREFIX")} | {"HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, troubles(said.decode())
        await live.call("GET", "/livez", 200)
