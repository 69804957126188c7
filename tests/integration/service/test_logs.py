"""What a real service logs in its life: one line per fact, at a level that an alert can use.

Each test takes the lines that a step has added, and compares them with what there is to say about that step.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.config.log_events import EVENTS
from app.devservers.servers import MongoServer, NatsServer
from tests.integration.service.test_servers import down
from tests.service import Service, Stage, staged, until

SERIOUS = ("warning", "error", "critical")
PASSING = {"nats_disconnected", "nats_connected", "read_back", "batch_refused", "checkpoint_delayed"}
"""What an outage may or may not bring, by what was under way."""


class Log:
    """A service's log, read step by step."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._read = 0

    def new(self) -> list[dict[str, Any]]:
        """The lines since the last call. Each has the form of all, and an event of the catalogue."""
        lines = self._service.logged(self._read)
        self._read += len(lines)
        for line in lines:
            assert list(line)[:3] == ["time", "level", "event"], line
            assert line["event"] in EVENTS, line
            assert bool(line.get("hint")) is (line["level"] in SERIOUS), line
        return lines

    async def until_new(self, event: str) -> list[dict[str, Any]]:
        """The lines until this event is among them: what is logged may come a moment after what it tells of."""
        before = self._read
        await until(lambda: any(one["event"] == event for one in self._service.logged(before)), f"{event} is logged")
        return self.new()

    async def tells(self, *expected: str) -> None:
        """Wait for as many lines as are expected, and compare; one too many that comes later fails the next step."""
        await all_tell([self], *expected)


def told(lines: list[dict[str, Any]]) -> list[str]:
    """Each line in a word: the event, of the audit log what was asked for; with its level where that is not info."""
    return [
        ("" if line["level"] == "info" else f"{line['level']} ")
        + (f"audit {line['action']}" if line["event"] == "audit" else line["event"])
        for line in lines
        if not line["event"].startswith("feed_")  # who shares a change stream with whom is told elsewhere
    ]


async def all_tell(logs: Sequence[Log], *expected: str) -> list[dict[str, Any]]:
    """Wait for as many new lines as are expected in all the logs together, compare, and return them."""
    lines: list[dict[str, Any]] = []

    def all_there() -> bool:
        lines.extend(line for log in logs for line in log.new())
        return len(told(lines)) >= len(expected)

    await until(all_there, f"{expected} is logged")
    assert sorted(told(lines)) == sorted(expected)
    return lines


async def started(stage: Stage, name: str = "service") -> tuple[Service, Log]:
    service = await stage.service(name).start()
    await until(lambda: stage.takes(service), f"{name} is ready")
    return service, Log(service)


async def test_each_step_of_a_service_and_a_watcher_is_told_once(stage: Stage) -> None:
    service, log = await started(stage)
    await log.tells("encoder", "instance_joined", "listening", "nats_connected")
    path = f"/watchers/{stage.watcher}"

    async def asked(method: str, path: str, body: object = None, *, state: str, tells: Sequence[str]) -> None:
        answer = await service.call(method, path, body)
        assert answer.status_code < 300, answer.text
        if state:
            await service.until_state(stage.watcher, state)
        await log.tells(*tells)

    added = ("audit add_watcher", "stream_created", "watcher_opened")
    paused, resumed = ("audit pause_watcher", "watcher_stopped"), ("audit resume_watcher", "watcher_opened")
    await asked("POST", "/watchers", stage.described(), state="RUNNING", tells=added)
    await stage.write(50)
    await stage.until_length(50)
    await log.tells()  # changes are not logged
    await asked("PUT", f"{path}/pause", state="PAUSED", tells=paused)
    await asked("PUT", f"{path}/token", {"at": "latest"}, state="PAUSED", tells=["audit set_token"])
    await asked("PUT", f"{path}/resume", state="RUNNING", tells=resumed)

    restarted = ("watcher_stopped", "watcher_opened")
    await asked("POST", f"{path}/restart", state="", tells=["audit restart_watcher", *restarted])
    await service.until_state(stage.watcher, "RUNNING")
    other = stage.described()
    other["source"]["full_document"] = "default"
    await asked("PUT", path, other, state="RUNNING", tells=["audit put_watcher", *restarted])

    taken = ("audit begin_snapshot", "snapshot_begun", "snapshot_done")
    await asked("POST", f"{path}/snapshot", state="", tells=taken)
    await asked("PUT", f"{path}/pause", state="PAUSED", tells=paused)
    await asked("POST", f"{path}/snapshot", state="", tells=["audit begin_snapshot"])
    await asked("DELETE", f"{path}/snapshot", state="", tells=["audit cancel_snapshot"])
    await asked("PUT", f"{path}/resume", state="RUNNING", tells=resumed)
    await asked("DELETE", path, state="", tells=["audit remove_watcher", "watcher_stopped"])

    await asked("POST", "/watchers", stage.described(), state="RUNNING", tells=[added[0], added[2]])
    assert await service.terminate() == 0
    assert told(log.new()) == ["stopping", "watcher_stopped", "stopped"]


async def test_a_watcher_that_cannot_run_is_an_error_once(stage: Stage) -> None:
    service, log = await started(stage)
    await stage.add(service)
    log.new()
    client = await stage.nats()
    info = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stage.stream}", timeout=10)).data)
    elsewhere = json.dumps({**info["config"], "subjects": [f"{stage.stream}.elsewhere.>"]}).encode()
    answer = json.loads((await client.request(f"$JS.API.STREAM.UPDATE.{stage.stream}", elsewhere, timeout=10)).data)
    assert "error" not in answer, answer
    await stage.write(10)
    serious = [line for line in await log.until_new("watcher_failed") if line["level"] in SERIOUS]
    await service.until_state(stage.watcher, "FAILED")
    assert [line["event"] for line in serious][-1] == "watcher_failed"
    assert Counter(line["event"] for line in serious)["watcher_failed"] == 1
    assert {line["watcher"] for line in serious} == {stage.watcher}
    assert all(line["reason"] for line in serious)
    await service.call("PUT", f"/watchers/{stage.watcher}/pause", status=202)
    await service.until_state(stage.watcher, "PAUSED")
    await log.tells("audit pause_watcher")  # nothing ran, so nothing has stopped


async def with_three_watchers(stage: Stage) -> tuple[Service, Log]:
    """A service with watchers of three collections, and its log from then on."""
    service, log = await started(stage)
    for name in ("a", "b", "c"):
        described = {"name": name, "source": {"database": stage.database, "collection": name}}
        await service.call("POST", "/watchers", described | {"sink": {"stream": f"{stage.stream}{name}"}}, status=201)
    for name in ("a", "b", "c"):
        await service.until_state(name, "RUNNING")

    async def recorded() -> bool:
        return {"a", "b", "c"} <= (await stage.owners()).keys()

    await until(recorded, "the watchers have an owner in the record")
    log.new()
    return service, log


async def is_well(service: Service) -> None:
    await until(service.up, "/healthz is UP again", within=40)
    for name in ("a", "b", "c"):
        await service.until_state(name, "RUNNING")


def facts(lines: Sequence[dict[str, Any]]) -> Counter[str]:
    """How often each fact was told: an event, and what it is about."""
    about = (f"{line['event']} {line.get('component') or line.get('watcher') or ''}".strip() for line in lines)
    passing = {line["event"] for line in lines if line["event"] in PASSING or line["event"].startswith("feed_")}
    return Counter(fact for fact in about if fact.split()[0] not in passing)


async def test_an_outage_of_nats_is_one_warning_and_its_end_one_line(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
        service, log = await with_three_watchers(stage)
        await asyncio.to_thread(own_nats.kill)
        await down(service, "nats")
        await own_nats.start()
        lines = await log.until_new("server_reachable")
        await is_well(service)
        lines += log.new()
        assert facts(lines) == {"server_unreachable NATS": 1, "server_reachable NATS": 1}
        assert [line["level"] for line in lines if line["event"] == "server_unreachable"] == ["warning"]


async def test_an_outage_of_mongodb_is_one_warning_and_one_of_each_watcher_that_it_interrupts(
    own_mongo: MongoServer, nats_url: str, tmp_path: Path, unique: str
) -> None:
    async with staged(own_mongo.uri, nats_url, tmp_path, unique) as stage:
        service, log = await with_three_watchers(stage)
        await asyncio.to_thread(own_mongo.kill)
        await down(service, "mongo")
        for name in ("a", "b", "c"):
            await service.until_state(name, "RETRYING")
        await own_mongo.start()
        lines = await log.until_new("server_reachable")
        await is_well(service)
        told = facts([*lines, *log.new()])
        servers = {fact: count for fact, count in told.items() if fact.startswith("server_")}
        assert servers == {"server_unreachable MongoDB": 1, "server_reachable MongoDB": 1}
        # A watcher says it again with a new reason, where the server takes its time to come back.
        assert told.keys() - servers.keys() == {
            f"{event} {name}" for event in ("watcher_retrying", "watcher_opened") for name in ("a", "b", "c")
        }


async def test_an_outage_of_both_servers_is_two_warnings(
    own_mongo: MongoServer, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    async with staged(own_mongo.uri, own_nats.url, tmp_path, unique) as stage:
        service, log = await with_three_watchers(stage)
        await asyncio.to_thread(own_mongo.kill)
        await asyncio.to_thread(own_nats.kill)
        await down(service, "mongo")
        await down(service, "nats")
        for name in ("a", "b", "c"):
            await service.until_state(name, "RETRYING")
        await own_nats.start()
        await own_mongo.start()
        await is_well(service)
        told = facts([line for line in log.new() if line["level"] in SERIOUS])
        assert {fact: count for fact, count in told.items() if not fact.startswith("watcher_retrying")} == {
            "server_unreachable MongoDB": 1,
            "server_unreachable NATS": 1,
        }
        assert {fact for fact in told if fact.startswith("watcher_retrying")} == {
            f"watcher_retrying {name}" for name in ("a", "b", "c")
        }


async def test_an_instance_that_is_killed_is_one_warning_in_one_of_the_others(stage: Stage) -> None:
    services = [await started(stage, name) for name in ("a", "b", "c")]
    await stage.add(services[0][0], running=False)
    owner = await stage.owner()
    others = [(service, log) for service, log in services if service is not owner]
    for _, log in others:
        log.new()
    owner.kill()

    async def taken_over() -> bool:
        return (await stage.owners()).get(stage.watcher) in {service.name for service, _ in others}

    await until(taken_over, "another one owns the watcher")
    for service, _ in others:
        await service.until_state(stage.watcher, "RUNNING")
    lines = await all_tell([log for _, log in others], "warning instance_gone", "watcher_opened", "watchers_placed")
    assert [line["instance"] for line in lines if line["event"] == "instance_gone"] == [owner.name]


async def test_an_instance_that_stops_hands_its_watchers_over_without_a_warning(stage: Stage) -> None:
    (first, first_log), (second, second_log) = [await started(stage, name) for name in ("a", "b")]
    await stage.add(first, running=False)
    owner = await stage.owner()
    other = second if owner is first else first
    first_log.new(), second_log.new()
    assert await owner.terminate() == 0
    await other.until_state(stage.watcher, "RUNNING")
    await until(lambda: _owns(stage, other), "the record names the other one")
    events = ("stopping", "watcher_stopped", "stopped", "watcher_opened", "watchers_placed")
    await all_tell([first_log, second_log], *events)


async def _owns(stage: Stage, service: Service) -> bool:
    return (await stage.owners()).get(stage.watcher) == service.name
