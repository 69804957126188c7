"""Settings: where they come from, which win, and what a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config.settings import Settings, load, variable
from tests.docs_reference import descriptions
from tests.unit.config.conftest import SECRET, refused


def test_defaults_are_the_contracts() -> None:
    settings = load(environ={})
    assert settings.mongo_uri.get_secret_value() == "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    assert settings.nats_servers == ["nats://127.0.0.1:4222"]
    assert (settings.host, settings.port, settings.loopback) == ("127.0.0.1", 8080, True)
    assert (settings.batch_size, settings.drain_seconds, settings.state_db) == (500, 10, "changewire")
    assert (settings.standby_silence_seconds, settings.standby_losses, settings.reconcile_seconds) == (10, 3, 5)
    assert (settings.snapshots_at_once, settings.snapshot_max_lag_seconds) == (4, 10)
    assert settings.api_token is None
    assert not settings.allow_anonymous
    assert settings.connector is None
    assert settings.warnings == ()


def test_every_setting_is_described_and_has_an_example() -> None:
    described = descriptions()
    for name, field in Settings.model_fields.items():
        assert "Default: " in " ".join(described[name].split()), name
        assert field.examples, name


def test_environment_wins_over_dotenv_over_file(tmp_path: Path) -> None:
    (tmp_path / "connector.yaml").write_text(
        "connector: {log: {level: debug}, mongo: {uri: 'mongodb://file'}, nats: {url: 'nats://file'}, "
        "server: {addr: ':1'}}"
    )
    (tmp_path / ".env").write_text("NATS_URL=nats://dotenv\nSERVER_ADDR=:2\nCHANGEWIRE_BATCH_SIZE=7\nLOG_LEVEL=\n")
    settings = load(environ={"SERVER_ADDR": ":3", "MONGO_URI": ""})
    assert settings.mongo_uri.get_secret_value() == "mongodb://file"
    assert settings.nats_url.get_secret_value() == "nats://dotenv"
    assert settings.port == 3
    assert settings.batch_size == 7
    assert settings.log_level == "debug"
    assert settings.connector is not None


def test_command_lines_file_wins_and_a_named_file_has_to_exist(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("connector: {server: {addr: ':9'}}")
    assert load(tmp_path / "other.yaml", environ={"CONFIG_FILE": "absent.yaml"}).port == 9
    assert "absent.yaml: cannot be read" in refused(CONFIG_FILE="absent.yaml")


def test_bad_value_in_the_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "connector.yaml").write_text("connector: {server: {addr: nowhere}}")
    assert "connector.yaml (connector.server.addr)=nowhere: is not host:port" in refused()


def test_problems_of_file_and_environment_come_together(tmp_path: Path) -> None:
    (tmp_path / "connector.yaml").write_text("connector: {collections: [{dbName: shop}]}")
    said = refused(SERVER_ADDR="nowhere")
    assert "collName is missing" in said
    assert "SERVER_ADDR=nowhere" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SERVER_ADDR", "8080", "is not host:port"),
        ("SERVER_ADDR", "::1:8080", "IPv6 address stands in brackets"),
        ("SERVER_ADDR", "host:65536", "port above 65535"),
        ("SERVER_ADDR", "[nonsense]:1", "not an IPv6 address"),
        ("MONGO_URI", f"user:{SECRET}@host", "mongodb:// or mongodb+srv://"),
        ("MONGO_URI", f"mongodb://user:{SECRET}@", "and a host"),
        ("NATS_URL", f"http://user:{SECRET}@host", "not nats, tls, ws or wss"),
        ("NATS_URL", f"nats://user:{SECRET}@host:port", "not host:port"),
        ("NATS_URL", ",", "names no server"),
        ("CHANGEWIRE_API_TOKEN", f"{SECRET} x", "without spaces"),
        ("CHANGEWIRE_BATCH_SIZE", "0", "greater than or equal to 1"),
        ("CHANGEWIRE_BATCH_SIZE", "1001", "less than or equal to 1000"),
        ("CHANGEWIRE_BATCH_SIZE", "many", "valid integer"),
        ("CHANGEWIRE_ALLOW_ANONYMOUS", "perhaps", "valid boolean"),
        ("CHANGEWIRE_STATE_DB", "admin", "system database"),
        ("CHANGEWIRE_STATE_DB", "a.b", "does not allow"),
        ("CHANGEWIRE_DRAIN_SECONDS", "nan", "finite"),
        ("CHANGEWIRE_DRAIN_SECONDS", "-1", "greater than or equal to 0"),
        ("CHANGEWIRE_LOG_FORMAT", "xml", "'json' or 'console'"),
        ("CHANGEWIRE_STANDBY_LOSSES", "0", "greater than or equal to 1"),
        ("CHANGEWIRE_NATS_CREDS", "absent.creds", "cannot be read (No such file"),
        ("CHANGEWIRE_API_TOKEN_FILE", "absent", "cannot be read (No such file"),
        ("CHANGEWIRE_NATS_PASSWORD", SECRET, "CHANGEWIRE_NATS_PASSWORD is set without CHANGEWIRE_NATS_USER"),
        ("CHANGEWIRE_NATS_USER", "me", "CHANGEWIRE_NATS_USER is set without CHANGEWIRE_NATS_PASSWORD"),
    ],
)
def test_bad_value_names_variable_and_problem_and_never_the_secret(name: str, value: str, said: str) -> None:
    message = refused(**{name: value})
    assert name in message
    assert said in message
    assert "Example: " in message or "set both or neither" in message or name.endswith("_FILE")


def test_all_problems_are_told_at_once() -> None:
    assert len(refused(SERVER_ADDR="x", CHANGEWIRE_BATCH_SIZE="0", CHANGEWIRE_CODEC="y").splitlines()) == 3


def test_two_ways_to_sign_in_are_refused() -> None:
    said = refused(CHANGEWIRE_NATS_TOKEN=SECRET, CHANGEWIRE_NATS_USER="u", CHANGEWIRE_NATS_PASSWORD=SECRET)
    assert "CHANGEWIRE_NATS_USER and CHANGEWIRE_NATS_TOKEN are set" in said


def test_the_connectors_log_levels_are_accepted() -> None:
    for given, meant in (("debug", "debug"), ("WARN", "warning"), ("Info", "info"), ("error", "error")):
        settings = load(environ={"LOG_LEVEL": given})
        assert (settings.log_level, settings.warnings) == (meant, ())


def test_a_level_that_is_not_known_is_info_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "connector.yaml").write_text("connector: {log: {level: loud}}")
    for given, where in (
        ({"LOG_LEVEL": "trace"}, "LOG_LEVEL=trace"),
        ({}, "connector.yaml (connector.log.level)=loud"),
    ):
        settings = load(environ=given)
        assert settings.log_level == "info"
        (warning,) = settings.warnings
        assert warning.startswith(f"{where} is not a level")


def test_streams_of_the_file_have_the_settings_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "connector.yaml").write_text("connector: {collections: [{dbName: shop, collName: orders}]}")
    for given, meant in (({}, "connector"), ({"CHANGEWIRE_CONNECTOR_STREAMS": "Changewire"}, "changewire")):
        connector = load(environ=given).connector
        assert connector is not None
        assert [one.sink.stream_settings for one in connector.watchers] == [meant]
    assert "'changewire' or 'connector'" in refused(CHANGEWIRE_CONNECTOR_STREAMS="mine")


def test_settings_made_by_hand_read_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGEWIRE_BATCH_SIZE", "1")
    monkeypatch.setenv("BATCH_SIZE", "1")
    assert Settings().batch_size == 500
    assert variable("batch_size") == "CHANGEWIRE_BATCH_SIZE"


@pytest.mark.parametrize("prefix", ["changewire", "prod.changewire", "a-b_c"])
def test_subjects_between_instances_may_begin_as_wished(prefix: str) -> None:
    assert load(environ={"CHANGEWIRE_NATS_PREFIX": prefix}).nats_prefix == prefix


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        ("a b", "white space"), ("a.*", "wildcard"), (">", "wildcard"), ("a..b", "empty part"), (".a", "empty part"),
        ("a.", "empty part"), ("$JS.a", "NATS reserves"), ("_INBOX", "NATS reserves"), ("a" * 201, "200 characters"),
    ],
)  # fmt: skip
def test_a_prefix_that_cannot_begin_a_subject_is_refused(prefix: str, problem: str) -> None:
    said = refused(CHANGEWIRE_NATS_PREFIX=prefix)
    assert problem in said
    assert said.startswith("CHANGEWIRE_NATS_PREFIX=")
