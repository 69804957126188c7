"""What is switched on in a stream: a scripted server that refuses, drops or does not answer is not asked too often."""

from typing import Any, cast

import pytest

from app.domain.errors import NotAuthorised, SinkUnavailable
from app.domain.watcher import Watcher
from app.jetstream import provisioning
from app.jetstream.errors import ApiError
from app.jetstream.provisioning import Refusals, provide
from app.jetstream.stream_api import StreamApi
from app.jetstream.streams import Stream
from tests.unit.jetstream.test_streams import stream, watcher

ALL = ["allow_atomic", "allow_batched", "allow_direct"]


class ScriptedApi:
    """A server with one stream, which does to updates what it is told to."""

    def __init__(self, found: Stream, *, knows: list[str], error: Exception | None = None) -> None:
        self.stream = found
        self.knows = knows
        """The settings that it takes over; it drops the others, or refuses an update with one by `error`."""
        self.error = error
        self.asked: list[list[str]] = []

    async def look(self, _: Watcher) -> Stream:
        return self.stream

    async def update(self, config: dict[str, Any]) -> Stream:
        wanted = [name for name in ALL if config.get(name) and not self.stream.config.get(name)]
        self.asked.append(wanted)
        taken = [name for name in wanted if name in self.knows]
        if self.error is not None and taken != wanted:
            raise self.error
        self.stream = Stream({**self.stream.config, **dict.fromkeys(taken, True)}, {}, self.stream.created)
        return self.stream

    def on(self) -> list[str]:
        return [name for name in ALL if self.stream.config.get(name)]


async def provided(api: ScriptedApi, refusals: Refusals, ours: Watcher | None = None) -> Stream:
    return await provide(cast("StreamApi", api), ours or watcher(), refusals, may_create=False)


async def test_all_is_switched_on_at_once_and_never_again() -> None:
    api, refusals = ScriptedApi(stream("2.15.1", max_msgs=9), knows=ALL), Refusals()
    for _ in range(2):
        found = await provided(api, refusals)
        assert (found, refusals.reason(found)) == (api.stream, None)
    assert api.asked == [ALL]
    assert api.on() == ALL
    assert api.stream.config["max_msgs"] == 9


@pytest.mark.parametrize(
    ("error", "asked", "on"),
    [
        (ApiError({"err_code": 10025, "description": "unknown field"}), [ALL, *([name] for name in ALL)], 2),
        (NotAuthorised("may not update"), [ALL], 0),
        (None, [ALL], 2),
    ],
    ids=["refused", "forbidden", "dropped"],
)
async def test_what_cannot_be_switched_on_is_asked_for_again_after_a_minute_only(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, asked: list[list[str]], on: int
) -> None:
    knows = ["allow_atomic", "allow_direct"]
    api, refusals = ScriptedApi(stream("2.15.1"), knows=knows, error=error), Refusals()
    for _ in range(2):
        assert await provided(api, refusals) == api.stream
    found = await provided(api, refusals)
    assert api.asked == asked
    assert api.on() == knows[:on]
    assert refusals.reason(found) == (str(error) if error else "the server took it and does not have it")
    changed = Stream({**api.stream.config, "max_msgs": 5}, {}, "")
    assert refusals.reason(changed) is None
    api.asked.clear()
    later = provisioning._now() + provisioning.AGAIN_SECONDS
    monkeypatch.setattr(provisioning, "_now", lambda: later)
    api.knows = ALL
    found = await provided(api, refusals)
    assert (api.asked[0], api.on()) == ([name for name in ALL if name not in knows[:on]], ALL)
    assert refusals.reason(found) is None


async def test_an_update_without_an_answer_is_looked_at_and_asked_for_again_at_the_next_opening() -> None:
    api, refusals = ScriptedApi(stream("2.15.1"), knows=[], error=SinkUnavailable("no answer")), Refusals()
    for _ in range(2):
        found = await provided(api, refusals)
        assert refusals.reason(found) is None
    assert api.asked == [ALL, ALL]


async def test_what_the_server_is_too_old_for_is_not_asked_for() -> None:
    for version, known in (("2.12.8", ["allow_atomic", "allow_direct"]), ("2.11.4", ["allow_direct"])):
        api = ScriptedApi(stream(version), knows=ALL)
        await provided(api, Refusals())
        assert api.asked == [known]


async def test_a_stream_with_the_settings_of_the_connector_is_left_alone() -> None:
    api = ScriptedApi(stream("2.15.1"), knows=ALL)
    assert await provided(api, Refusals(), watcher(stream_settings="connector")) == stream("2.15.1")
    assert api.asked == []
