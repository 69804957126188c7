"""The process around the interface: settings that stop it, addresses, signals, and what it imports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.__main__ import main
from app.cli import CommandError
from app.cli.http_server import server
from app.cli.listening import listen
from app.config.settings import Settings

SECRET = "hunter2hunter2"


def test_bad_settings_are_two_and_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHANGEWIRE_BATCH_SIZE", "0")
    monkeypatch.setenv("MONGO_URI", f"http://u:{SECRET}@h")
    assert main(["serve"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("changewire: invalid settings\n  MONGO_URI: ")
    assert len(said.splitlines()) == 3
    assert SECRET not in said


ANOTHER = "choose another, such as SERVER_ADDR=127.0.0.1:8081"
TAKE_ANY = "take any free port with --port 0"
BY_MAKE = ' (make demo ARGS="--port 0")'


def test_a_connection_may_rest_longer_than_clients_and_load_balancers_keep_theirs() -> None:
    assert server(FastAPI(), Settings()).config.timeout_keep_alive > 60


@pytest.mark.parametrize(
    ("command", "variables", "instead"),
    [("serve", {}, ANOTHER), ("demo", {}, TAKE_ANY), ("demo", {"MAKELEVEL": "1"}, TAKE_ANY + BY_MAKE)],
)
def test_port_in_use_is_one_line_before_anything_starts(
    command: str, variables: dict[str, str], instead: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = child_environment(SERVER_ADDR=f"127.0.0.1:{port}")
        environment.pop("MAKELEVEL", None)
        done = subprocess.run(
            [sys.executable, "-m", "app", command, *(["--port", port] if command == "demo" else [])],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    what = "SERVER_ADDR: " if command == "serve" else ""
    assert (
        done.stderr == f"changewire: {what}127.0.0.1, port {port} is in use by another program; stop it or {instead}\n"
    )


def test_reads_that_are_open_to_other_machines_are_warned_of_once_at_the_start(tmp_path: Path) -> None:
    """The port is taken, so that nothing is ever served there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"0.0.0.0:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "app", "serve"],
            cwd=tmp_path,
            env=child_environment(SERVER_ADDR=address, LOG_FORMAT="json"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    (line,) = [json.loads(each) for each in done.stdout.splitlines() if "reads_open" in each]
    assert line["level"] == "warning"
    assert "SERVER_ADDR is reachable from other machines" in line["problem"]
    assert "CHANGEWIRE_READS_NEED_TOKEN" in line["hint"]


def test_directory_in_the_place_of_the_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONFIG_FILE", raising=False)
    (tmp_path / "connector.yaml").mkdir()
    assert main(["serve"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("changewire: invalid settings\n  connector.yaml: is a directory, not a file. ")


def test_a_file_that_cannot_be_used_ends_the_start_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "bad.creds").write_text("nothing of the kind")
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=child_environment(CHANGEWIRE_NATS_CREDS=str(tmp_path / "bad.creds")),
    )
    assert done.returncode == 2
    assert f"CHANGEWIRE_NATS_CREDS={tmp_path / 'bad.creds'}: " in done.stderr
    assert "Example: " in done.stderr
    assert "Traceback" not in done.stderr


async def test_service_that_does_not_start_and_bad_certificates_are_told(tmp_path: Path) -> None:
    @asynccontextmanager
    async def broken(_app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no")
        yield

    with pytest.raises(CommandError, match="did not start") as refused:
        await server(FastAPI(lifespan=broken), Settings()).serve(listen("127.0.0.1", 0))
    assert refused.value.code == 1
    (tmp_path / "no.pem").write_text("no certificate")
    # Replaced after the settings were read, which would have refused it.
    settings = Settings().model_copy(update=dict.fromkeys(("tls_cert", "tls_key"), tmp_path / "no.pem"))
    with pytest.raises(CommandError, match="CHANGEWIRE_TLS_CERT and CHANGEWIRE_TLS_KEY cannot be used") as refused:
        await server(FastAPI(), settings).serve(listen("127.0.0.1", 0))
    assert refused.value.code == 2


def test_addresses_that_cannot_be_served() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(CommandError, match="is not an address of this machine") as refused:
            listen(host, 0)
        assert refused.value.code == 2


def test_every_address_and_each_kind_can_be_served() -> None:
    for host in ("", "127.0.0.1", "localhost"):
        for each in listen(host, 0):
            with each, socket.create_connection(("127.0.0.1", each.getsockname()[1]), timeout=5):
                pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
async def test_serve_answers_without_servers_and_stops_with_zero(number: signal.Signals, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve",
        cwd=tmp_path,
        env=child_environment(
            SERVER_ADDR="127.0.0.1:0", MONGO_URI=f"mongodb://user:{SECRET}@127.0.0.1:9/", NATS_URL="nats://127.0.0.1:9",
            CHANGEWIRE_API_TOKEN=SECRET, CHANGEWIRE_LOG_FORMAT="json", CHANGEWIRE_BATCHSIZE="5",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[bytes] = []
    while b'"listening"' not in (lines[-1] if lines else b""):
        lines.append(await asyncio.wait_for(process.stdout.readline(), 60))
        assert lines[-1], b"".join(lines).decode()
    ((_, port),) = json.loads(lines[-1])["addresses"]
    assert await asyncio.to_thread(status_of, port, "/livez") == 200
    assert await asyncio.to_thread(status_of, port, "/readyz") == 503
    assert await asyncio.to_thread(status_of, port, "/healthz") == 503
    process.send_signal(number)
    rest, _ = await asyncio.wait_for(process.communicate(), 60)
    said = (b"".join(lines) + rest).decode()
    assert process.returncode == 0, said
    assert SECRET not in said
    events = [json.loads(each) for each in said.splitlines()]
    assert events[-1]["event"] == "stopped"
    assert any("CHANGEWIRE_BATCH_SIZE?" in each.get("problem", "") for each in events)


async def test_serve_imports_nothing_of_the_other_commands(tmp_path: Path) -> None:
    """Every module costs time at each start; rich would also draw the log's tracebacks."""
    script = (
        "import atexit, json, pathlib, sys\n"
        "atexit.register(lambda: pathlib.Path('modules').write_text(json.dumps(sorted(sys.modules))))\n"
        "from app.__main__ import main\n"
        "sys.exit(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, "serve",
        cwd=tmp_path,
        env=child_environment(
            SERVER_ADDR="127.0.0.1:0", MONGO_URI="mongodb://127.0.0.1:9/", NATS_URL="nats://127.0.0.1:9",
            CHANGEWIRE_LOG_FORMAT="console",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    while b"listening" not in (line := await asyncio.wait_for(process.stdout.readline(), 60)):
        assert line
    process.send_signal(signal.SIGTERM)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said
    modules = set(json.loads((tmp_path / "modules").read_text()))
    assert "app.main" in modules
    vendors = {"rich", "typer", "httpx", "pygments", "markdown_it", "shellingham"}
    assert vendors & {name.partition(".")[0] for name in modules} == set()
    ours = {name for name in modules if name.startswith("app.cli.")}
    own = ("serve", "http_protocol", "http_server", "listening", "signals")
    assert ours == {f"app.cli.{name}" for name in own}
    assert modules & {"app.doctor.examination", "app.mongodb.examiner", "app.jetstream.examiner"} == set()


def status_of(port: int, path: str) -> int:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def child_environment(**values: str) -> dict[str, str]:
    root = str(Path(__file__).parents[3])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHANGEWIRE_")}
    return {**kept, "PYTHONPATH": root, **values}


def test_the_version_is_printed_without_a_parser(tmp_path: Path) -> None:
    told = "import sys; from app.__main__ import main; main(['--version']); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", told], check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    modules = set(done.stdout.split())
    assert {name for name in modules if name.startswith("app.cli.")} == {"app.cli.signals"}
    assert {"argparse", "asyncio", "rich", "typer"} & modules == set()


def test_the_watchers_are_started_without_what_only_http_or_a_terminal_needs(tmp_path: Path) -> None:
    """When the address is taken all is imported that the watchers need."""
    told = (
        "import sys, app.cli.listening as listening\n"
        "def listen(*_, **__):\n"
        "    print(*sys.modules)\n"
        "    raise SystemExit\n"
        "listening.listen = listen\n"
        "from app.__main__ import main\n"
        "main(['serve'])"
    )
    environment = {**os.environ, "SERVER_ADDR": "127.0.0.1:0", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", told], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    modules = done.stdout.split()
    assert "app.pipeline.capture" in modules, done.stderr
    assert not {"fastapi", "prometheus_client", "rich", "starlette", "typer", "uvicorn", "yaml"}.intersection(modules)
