"""The process around the interface: command line, logging, addresses, and the demo's bookkeeping."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from fastapi import FastAPI

from app import __version__
from app.__main__ import COMMANDS, main
from app.cli import CommandError
from app.cli.http_server import server
from app.cli.listening import listen
from app.cli.traffic import Key, compare, key_of, line, on_their_way, shortfall, totals
from app.config import logging as our_logging
from app.config.settings import Settings

SECRET = "hunter2hunter2"


# Command line


def test_help_names_every_command_and_needs_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    assert main([]) == 2
    assert "usage: changewire" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "watchers"])
def test_help_of_each_command_made_with_typer(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"Usage: changewire {command}" in printed
    assert "Exit codes: 0 " in printed


@pytest.mark.parametrize("command", ["serve", "demo", "openapi"])
def test_help_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: changewire {command}" in printed
    assert command == "openapi" or "Exit codes: 0 after" in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"changewire {__version__}\n"


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serv"]) == 2
    assert capsys.readouterr().err == "changewire: there is no command serv; did you mean serve?\n"
    assert main(["xyz"]) == 2
    assert "commands: serve, demo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["serve", "--cofnig"], ["serve", "x"], ["demo", "--rate", "0"], ["demo", "--rate", "nan"],
     ["demo", "--port", "65536"], ["demo", "--port", "1.5"], ["demo", "--for", "-1"], ["demo", "--for", "soon"],
     ["openapi", "x"]],
)  # fmt: skip
def test_misuse_is_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"changewire {arguments[0]}: ")
    assert said[0].endswith(f"; see changewire {arguments[0]} --help")


def test_misplaced_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said == "changewire: there is no option --port; write options after the command; see changewire --help\n"


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
    (port_socket,) = listen("127.0.0.1", 0)
    port = port_socket.getsockname()[1]
    port_socket.close()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve",
        cwd=tmp_path,
        env=child_environment(
            SERVER_ADDR=f"127.0.0.1:{port}", MONGO_URI=f"mongodb://user:{SECRET}@127.0.0.1:9/", NATS_URL="nats://127.0.0.1:9",
            CHANGEWIRE_API_TOKEN=SECRET, CHANGEWIRE_LOG_FORMAT="json", CHANGEWIRE_BATCHSIZE="5",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[bytes] = []
    while b"startup complete" not in (lines[-1] if lines else b""):
        lines.append(await asyncio.wait_for(process.stdout.readline(), 60))
        assert lines[-1], b"".join(lines).decode()
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
    (port_socket,) = listen("127.0.0.1", 0)
    port = port_socket.getsockname()[1]
    port_socket.close()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, "serve",
        cwd=tmp_path,
        env=child_environment(
            SERVER_ADDR=f"127.0.0.1:{port}", MONGO_URI="mongodb://127.0.0.1:9/", NATS_URL="nats://127.0.0.1:9",
            CHANGEWIRE_LOG_FORMAT="console",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    while b"startup complete" not in (line := await asyncio.wait_for(process.stdout.readline(), 60)):
        assert line
    process.send_signal(signal.SIGTERM)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said
    modules = set(json.loads((tmp_path / "modules").read_text()))
    assert "app.main" in modules
    vendors = {"rich", "typer", "httpx", "pygments", "markdown_it", "shellingham"}
    assert vendors & {name.partition(".")[0] for name in modules} == set()
    ours = {name for name in modules if name.startswith("app.cli.")}
    own = ("serve", "arguments", "http_protocol", "http_server", "listening", "signals")
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


# Logging


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("restored_logging")
def test_log_lines_are_json_events_whoever_writes_them() -> None:
    out = io.StringIO()
    our_logging.configure("info", "json", stream=out, secrets=[SECRET])
    structlog.get_logger("ours").info("published", watcher="orders", count=3, uri=f"nats://u:{SECRET}@h")
    logging.getLogger("uvicorn.error").warning("from %s", "uvicorn", extra={"color_message": "coloured"})
    logging.getLogger("elsewhere").info("token %s", SECRET)
    structlog.get_logger("ours").debug("not shown")
    logging.getLogger("pymongo").info("not shown")
    try:
        raise ValueError(f"mongodb://u:pw@h and {SECRET}")
    except ValueError:
        structlog.get_logger("ours").exception("failed", authorization="Bearer abc", nested={"a": [f"x{SECRET}"]})
    first, second, third, fourth = (json.loads(each) for each in out.getvalue().splitlines())
    assert (first["event"], first["watcher"], first["count"], first["level"]) == ("published", "orders", 3, "info")
    assert first["uri"] == "nats://***@h"
    assert first["time"].endswith("Z")
    assert (second["event"], second["logger"], "color_message" in second) == ("from uvicorn", "uvicorn.error", False)
    assert third["event"] == "token ***"
    assert (fourth["authorization"], fourth["nested"]) == ("***", {"a": ["x***"]})
    assert "ValueError: mongodb://***@h and ***" in fourth["exception"]


@pytest.mark.usefixtures("restored_logging")
def test_console_lines_are_for_people_and_without_colour_off_a_terminal() -> None:
    out = io.StringIO()
    our_logging.configure("debug", "console", stream=out)
    structlog.get_logger("ours").debug("published", count=3)
    assert "published" in out.getvalue()
    assert "count=3" in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mongodb://user:pw@host/?a=b", "mongodb://***@host/?a=b"),
        ("mongodb+srv://user:p@ss@host", "mongodb+srv://***@host"),
        ("nats://a:1,nats://token@b:2", "nats://a:1,nats://***@b:2"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("Basic dXNlcjpwdw== here", "Basic *** here"),
        ("password=pw&x=1", "password=***&x=1"),
        ('{"password": "pw", "a": 1}', '{"password": "***", "a": 1}'),
        ("http://host:8080/path", "http://host:8080/path"),
        ("someone@example.org", "someone@example.org"),
        ("resume token 8263B1", "resume token 8263B1"),
    ],
)
def test_redaction(text: str, clean: str) -> None:
    assert our_logging.redact(text) == clean


# The demo's bookkeeping

A, B, C = Key("insert", "r-1", 1), Key("update", "r-1", 2), Key("delete", "r-1", None)


def test_every_write_once_and_in_order_is_right() -> None:
    verdict = compare([A, B, C], [A, B, C])
    assert verdict.right
    assert str(verdict) == "3 writes, 3 messages: every one once, in order"


@pytest.mark.parametrize(
    ("received", "said"),
    [
        ([A, C], "3 writes, 2 messages; 1 lost (update r-1)"),
        ([A, B, B, C], "3 writes, 4 messages; 1 doubled (update r-1)"),
        ([B, A, C], "3 writes, 3 messages; 1 reordered (insert r-1)"),
        ([A, B, C, Key("insert", "r-9", 9)], "3 writes, 4 messages; 1 unknown (insert r-9)"),
        ([], "3 writes, 0 messages; 3 lost (insert r-1, update r-1, delete r-1)"),
    ],
)
def test_what_is_wrong_is_named(received: list[Key], said: str) -> None:
    verdict = compare([A, B, C], received)
    assert not verdict.right
    assert str(verdict) == said


def test_one_is_no_plural_and_what_is_in_flight_is_no_loss() -> None:
    assert totals(1, 1) == "1 write, 1 message"
    assert totals(2, 1_000) == "2 writes, 1,000 messages"
    assert str(compare([A], [A])) == "1 write, 1 message: every one once, in order"
    assert on_their_way([A, B, C], [A], {B}) == 1


def test_rate_that_was_not_reached_is_told_and_one_that_was_is_not() -> None:
    assert shortfall(9_000, 3, 5_000) == "this machine made 3,000 writes a second instead of 5,000"
    assert shortfall(15_000, 3, 5_000) is None
    assert shortfall(1, 0.01, 0.5) is None
    assert shortfall(0, 0, 2) is None


def test_write_that_ended_in_an_error_may_be_missing_but_not_twice() -> None:
    assert compare([A, B, C], [A, C], {B}).right
    assert compare([A, B, C], [A, B, C], {B}).right
    assert not compare([A, B, C], [A, B, B, C], {B}).right


def test_keys_and_lines_of_messages() -> None:
    insert = {
        "operationType": "insert", "documentKey": {"_id": "r-1"}, "wallTime": {"$date": "2023-11-14T22:13:20.5Z"},
        "fullDocument": {"number": 1, "table": 4, "quantity": 2, "item": "soup", "total": 13.8},
    }  # fmt: skip
    update = insert | {
        "operationType": "update",
        "updateDescription": {"updatedFields": {"number": 2, "status": "paid"}},
    }
    delete = insert | {"operationType": "delete", "fullDocument": None}
    assert [key_of(each) for each in (insert, update, delete)] == [A, B, C]
    shown = line("ORDERS.insert", 7, insert, 1_700_000_000.502)
    assert shown.split() == [
        "ORDERS.insert",
        "#7",
        "r-1",
        "table",
        "4",
        "orders",
        "2",
        "×",
        "soup,",
        "13.80",
        "2",
        "ms",
    ]
    assert "now paid" in line("ORDERS.update", 8, update, 1_700_000_001)
    assert "closed" in line("ORDERS.delete", 9, delete, 1_700_000_001)


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
