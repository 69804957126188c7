"""The settings of traces: off by default, and clear words where they cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.config import tracing
from app.config.settings import load
from tests.unit.config.conftest import refused

ROOT = Path(__file__).parents[3]


def test_nothing_is_traced_by_default_whatever_the_variables_of_others_say() -> None:
    assert not load(environ={}).traces
    assert not load(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_SERVICE_NAME": "x"}).traces


def test_the_switch_and_the_standard_variables() -> None:
    settings = load(
        environ={
            "CHANGEWIRE_TRACING": "Messages",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318",
            "OTEL_SERVICE_NAME": "cdc",
        }
    )
    assert settings.traces
    assert (settings.tracing, settings.otel_service_name) == ("messages", "cdc")
    assert not load(environ={"CHANGEWIRE_TRACING": "spans", "OTEL_SDK_DISABLED": " TRUE "}).traces
    assert load(environ={"CHANGEWIRE_TRACING": "spans", "OTEL_SDK_DISABLED": "yes"}).traces  # as the standard has it


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector:4317", "http://", "http://h:x", "http://[::"])
def test_an_address_that_no_spans_can_go_to_stops_the_start(endpoint: str) -> None:
    said = refused(CHANGEWIRE_TRACING="spans", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert said.startswith("OTEL_EXPORTER_OTLP_ENDPOINT is not the address of a collector")


def test_an_unknown_switch_is_refused() -> None:
    assert "CHANGEWIRE_TRACING=on: should be 'off', 'spans' or 'messages'" in refused(CHANGEWIRE_TRACING="on")


def test_without_the_extra_the_switch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(tracing, "find_spec", absent)
    assert not load(environ={"CHANGEWIRE_TRACING": "spans", "OTEL_SDK_DISABLED": "true"}).traces
    assert "pip install 'changewire[otel]'" in refused(CHANGEWIRE_TRACING="spans")


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_start_and_doctor_say_so_in_one_line(command: str, tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['opentelemetry'] = None; from app.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", hidden, command], cwd=tmp_path, text=True, capture_output=True, timeout=60, check=False,
        env={"PYTHONPATH": str(ROOT), "CHANGEWIRE_TRACING": "spans"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "changewire: invalid settings"
    assert "OpenTelemetry is not installed: run pip install 'changewire[otel]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_it_is_imported_where_it_is_off(tmp_path: Path) -> None:
    script = (
        "import sys; from app.config.settings import load; from app.main import compose\n"
        "import asyncio\n"
        "async def make(): compose(load(environ={}))\n"
        "asyncio.run(make()); print([name for name in sys.modules if 'opentelemetry' in name or 'tracing' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, text=True, capture_output=True, timeout=60, check=True,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "['app.config.tracing']"
