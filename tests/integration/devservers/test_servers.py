"""The embedded servers: they start ready, keep port and data, and never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import nats
import pytest
from nats.errors import NoServersError
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from app.devservers import process
from app.devservers.servers import Launch, MongoServer, NatsServer, NotAvailable, Server, StartError, find_program
from tests.conftest import MakeMongo, MakeNats
from tests.service import is_stopped

KINDS: list[type[Server]] = [MongoServer, NatsServer]


async def test_mongod_is_a_writable_replica_set(mongo_server: MongoServer, mongo_uri: str, database: str) -> None:
    with MongoClient(mongo_uri, tz_aware=True) as client:
        client[database].c.insert_one({"_id": 1})
        with client[database].c.watch() as changes:
            client[database].c.insert_one({"_id": 2})
            assert next(changes)["documentKey"] == {"_id": 2}
    assert mongo_server.running
    assert mongo_server.uri == f"mongodb://127.0.0.1:{mongo_server.port}/?replicaSet=rs0"
    assert "Waiting for connections" in mongo_server.log.read_text()


async def test_nats_server_takes_atomic_batches(nats_server: NatsServer, nats_url: str, stream: str) -> None:
    client = await nats.connect(nats_url)
    await client.jetstream().add_stream(StreamConfig(name=stream, subjects=[f"{stream}.>"]))
    ack = await client.jetstream().publish(f"{stream}.a", b"x")
    assert ack.seq == 1
    await client.close()
    assert nats_server.log.read_text().count("Server is ready") == 1


async def test_mongod_keeps_port_and_data_over_kill_and_restart(own_mongo: MongoServer) -> None:
    uri, pid = own_mongo.uri, own_mongo.pid
    with MongoClient(uri) as client:
        client.db.c.insert_one({"_id": 1})
    own_mongo.kill()
    assert not own_mongo.running
    await own_mongo.start()
    await own_mongo.restart()
    assert own_mongo.pid != pid
    with MongoClient(uri) as client:
        assert client.db.c.find_one() == {"_id": 1}


async def test_nats_server_keeps_port_and_data_over_kill_and_restart(own_nats: NatsServer) -> None:
    url = own_nats.url
    client = await nats.connect(url)
    await client.jetstream().add_stream(StreamConfig(name="S", subjects=["S"]))
    await client.jetstream().publish("S", b"x")
    await client.close()
    own_nats.kill()
    await own_nats.start()
    await own_nats.restart()
    client = await nats.connect(url)
    assert (await client.jetstream().stream_info("S")).state.messages == 1
    await client.close()


async def test_frozen_server_does_nothing_more_from_the_moment_on(own_mongo: MongoServer) -> None:
    done = Event()

    def ask() -> None:
        with MongoClient[dict[str, object]](own_mongo.uri) as client:
            while not done.is_set():
                client.admin.command("ping")

    askers = [Thread(target=ask, name=f"asker-{number}") for number in range(4)]
    for asker in askers:
        asker.start()
    try:
        seen = []
        for _ in range(20):
            own_mongo.freeze()
            report = os.waitid(os.P_PID, own_mongo.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            seen.append(report is not None and is_stopped(own_mongo.pid))
            own_mongo.thaw()
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert seen == [True] * 20


async def test_frozen_server_answers_after_thaw_and_can_be_stopped_frozen(own_nats: NatsServer) -> None:
    own_nats.freeze()
    with pytest.raises((NoServersError, asyncio.TimeoutError)):
        await nats.connect(own_nats.url, connect_timeout=1, allow_reconnect=False, max_reconnect_attempts=0)
    own_nats.thaw()
    client = await nats.connect(own_nats.url)
    await client.close()
    own_nats.freeze()
    await own_nats.stop()
    assert not own_nats.running


@pytest.mark.parametrize("kind", KINDS)
async def test_temporary_data_is_removed_and_named_data_is_kept(kind: type[Server], tmp_path: Path) -> None:
    async with kind() as server:
        temporary = server.data
        assert temporary.exists()
    assert not temporary.exists()
    async with kind(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept" / f"{kind.program}.log").exists()


async def test_kept_mongo_data_serves_under_another_port(tmp_path: Path) -> None:
    async with MongoServer(tmp_path) as first:
        with MongoClient(first.uri) as client:
            client.db.c.insert_one({"_id": 1})
    async with MongoServer(tmp_path) as second:
        assert second.port != first.port
        with MongoClient(second.uri) as client:
            assert client.db.c.find_one() == {"_id": 1}


async def test_mongod_standalone_has_no_change_streams(make_mongo: MakeMongo) -> None:
    server = await make_mongo(replica_set=None)
    with MongoClient(server.uri) as client, pytest.raises(OperationFailure) as refused:
        client.db.c.watch()
    assert refused.value.code == 40573


async def test_mongod_with_auth_oplog_size_and_arguments(make_mongo: MakeMongo) -> None:
    server = await make_mongo(auth=("ro:ot", "p@ss/word"), oplog_mb=20, args=["--syncdelay", "1"])
    await server.restart()
    with MongoClient(f"mongodb://127.0.0.1:{server.port}/?replicaSet=rs0") as stranger:
        with pytest.raises(OperationFailure) as refused:
            stranger.db.c.find_one()
        assert refused.value.code == 13
    with MongoClient(server.uri) as client:
        assert client.local.command("collStats", "oplog.rs")["maxSize"] == 20 * 1024 * 1024


async def test_nats_server_without_jetstream(make_nats: MakeNats) -> None:
    server = await make_nats(jetstream=False)
    client = await nats.connect(server.url)
    with pytest.raises((ServiceUnavailableError, NoStreamResponseError, nats.errors.NoRespondersError)):
        await client.jetstream().account_info()
    await client.close()


async def test_nats_server_limits_and_users(make_nats: MakeNats) -> None:
    server = await make_nats(
        max_payload=4096, store_limit=1_000_000, config='authorization { users: [ { user: "u", password: "p" } ] }'
    )
    client = await nats.connect(server.url, user="u", password="p")
    assert client.max_payload == 4096
    with pytest.raises(APIError):
        await client.jetstream().add_stream(StreamConfig(name="S", subjects=["S"], max_bytes=2_000_000))
    await client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_server_dies_with_a_parent_that_is_killed(kind: type[Server]) -> None:
    script = (
        "import asyncio, time; from app.devservers.servers import *\n"
        f"async def main():\n s = {kind.__name__}()\n await s.start()\n print(s.pid, s.data, flush=True)\n"
        " await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, data = parent.stdout.readline().strip().split(maxsplit=1)
        child = os.pidfd_open(int(pid))
        parent.kill()
    try:
        assert select.select([child], [], [], 60)[0] == [child], "the server outlived its parent"
    finally:
        os.close(child)
        shutil.rmtree(data)


async def test_stopping_an_ended_server_signals_nobody(own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    os.kill(own_nats.pid, signal.SIGKILL)
    await own_nats.stop()
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(pid))
    await own_nats.stop()
    own_nats.kill()
    with pytest.raises(RuntimeError, match="not running"):
        own_nats.freeze()
    assert sent == []


async def test_start_is_refused_twice_and_off_the_main_thread(own_nats: NatsServer) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        await own_nats.start()
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(lambda: asyncio.run(NatsServer().start()))


@pytest.mark.parametrize("kind", KINDS)
async def test_taken_port_is_passed_over_at_first_and_an_error_later(
    kind: type[Server], own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offered = process.free_port, [own_nats.port]
    monkeypatch.setattr(process, "free_port", lambda wish=None: offered.pop() if offered else real())
    async with kind(launch=Launch(ready_seconds=30)) as server:
        assert server.port != own_nats.port
        await server.stop()
        server.port = own_nats.port
        with pytest.raises(StartError, match=r"(?i)address already in use"):
            await server.start()


async def test_a_server_that_is_down_keeps_its_port_for_itself_until_it_is_closed(make_nats: MakeNats) -> None:
    below = random.randrange(10_000, process.PORTS.start)  # where nobody takes it who wishes for none
    own_nats = await make_nats(launch=Launch(port=below))

    async def elsewhere(wish: int) -> int:
        asks = f"from app.devservers.process import free_port; print(free_port({wish}))"
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", asks, stdout=subprocess.PIPE)
        said, _ = await child.communicate()
        return int(said)

    port = own_nats.port
    own_nats.kill()
    assert process.free_port(port) != port
    assert await elsewhere(port) != port
    await own_nats.start()
    assert own_nats.port == port
    await own_nats.close()
    assert await elsewhere(port) == port
    assert process.free_port(port) == port
    process.release_port(port)


async def test_bad_arguments_are_told_in_the_servers_own_words() -> None:
    with pytest.raises(StartError, match="no-such-option"):
        await MongoServer(args=["--no-such-option"]).start()
    with pytest.raises(StartError, match="Parse error"):
        await NatsServer(config="nonsense {").start()


def test_missing_wheel_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    monkeypatch.setenv("PATH", "")
    for kind in KINDS:
        assert any(each.startswith(kind.distribution) for each in extras["embedded"])
        monkeypatch.setattr(kind, "distribution", "no-such-distribution")
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        with pytest.raises(NotAvailable, match=rf"pip install 'changewire\[embedded\]', or set {kind.setting}"):
            find_program(kind)
        monkeypatch.setattr("platform.machine", lambda: "riscv64")
        with pytest.raises(NotAvailable, match=r"no .* wheel .*riscv64.*MONGO_URI and NATS_URL"):
            find_program(kind)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(NotAvailable, match=r"changewire\[embedded\]"):
        find_program(NatsServer)  # has a wheel for it, unlike mongod
    with pytest.raises(NotAvailable, match="no mongod wheel"):
        find_program(MongoServer)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_missing_library_is_told_with_its_package(tmp_path: Path) -> None:
    broken = script(
        tmp_path / "mongod", "echo 'error while loading shared libraries: libcurl.so.4: no such file' >&2; exit 127"
    )
    with pytest.raises(NotAvailable, match=r"libcurl\.so\.4.*apt-get install libcurl4"):
        await MongoServer(launch=Launch(binary=broken)).start()


async def test_processor_without_the_instructions_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="AVX"):
        await MongoServer(launch=Launch(binary=script(tmp_path / "mongod", "kill -ILL $$"))).start()


async def test_silent_server_is_given_up_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = script(tmp_path / "nats-server", "echo waiting; exec sleep 60")
    server = NatsServer(launch=Launch(binary=silent, ready_seconds=30))

    def now() -> float:
        """Too late once it has said all that it ever says."""
        return 60.0 if server.log.exists() and "waiting" in server.log.read_text() else 0.0

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=now, sleep=time.sleep))
    with pytest.raises(StartError, match=r"(?s)not ready in time.*waiting"):
        await server.start()
    assert not server.running


async def test_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    server = NatsServer(launch=Launch(binary=script(tmp_path / "nats-server", "exec sleep 60")))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await server.start()
    assert not server.running


async def test_server_that_ignores_the_request_to_end_is_killed(own_nats: NatsServer) -> None:
    process = own_nats._process
    assert process is not None
    process.terminate = lambda: None  # type: ignore[method-assign]
    await own_nats.stop(seconds=0.2)
    assert not own_nats.running


def test_program_without_its_run_bit_gets_one_or_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script(tmp_path / "mongod", "exit 0")
    program.chmod(0o644)
    assert process._executable(program) == program
    assert os.access(program, os.X_OK)

    program.chmod(0o644)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chmod = Path.chmod

    def refuse(path: Path, mode: int) -> None:
        if path == program:
            raise PermissionError(path)
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", refuse)
    copy = process._executable(program)
    assert copy.parent == tmp_path / "cache" / "changewire"
    assert os.access(copy, os.X_OK)
    assert process._executable(program) == copy
