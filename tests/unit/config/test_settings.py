"""Settings: where they come from, which win, and what a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from app.config.settings import Settings, SettingsError, load, variable, variables
from tests.credentials import Key, Operator
from tests.docs_reference import descriptions

SECRET = "hunter2hunter2"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(**environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        load(environ=environ)
    assert SECRET not in str(error.value)
    assert "Traceback" not in str(error.value)
    return str(error.value)


def test_defaults_are_the_contracts() -> None:
    settings = load(environ={})
    assert settings.mongo_uri.get_secret_value() == "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    assert settings.nats_servers == ["nats://127.0.0.1:4222"]
    assert (settings.host, settings.port, settings.loopback) == ("127.0.0.1", 8080, True)
    assert (settings.batch_size, settings.drain_seconds, settings.state_db) == (500, 10, "changewire")
    assert (settings.standby_silence_seconds, settings.standby_losses, settings.reconcile_seconds) == (10, 3, 5)
    assert settings.api_token is None
    assert not settings.allow_anonymous
    assert settings.connector is None
    assert settings.warnings == ()


def test_every_setting_is_described_and_has_an_example() -> None:
    described = descriptions()
    for name, field in Settings.model_fields.items():
        assert "Default: " in " ".join(described[name].split()), name
        assert field.examples, name


def test_variables_are_the_contracts() -> None:
    assert {
        "MONGO_URI", "NATS_URL", "SERVER_ADDR", "LOG_LEVEL", "CONFIG_FILE", "CHANGEWIRE_API_TOKEN",
        "CHANGEWIRE_ALLOW_ANONYMOUS", "CHANGEWIRE_STATE_DB", "CHANGEWIRE_BATCH_SIZE", "CHANGEWIRE_DRAIN_SECONDS",
        "CHANGEWIRE_LOG_FORMAT", "CHANGEWIRE_NATS_CREDS", "CHANGEWIRE_NATS_USER", "CHANGEWIRE_NATS_PASSWORD",
        "CHANGEWIRE_NATS_TOKEN", "CHANGEWIRE_NATS_NKEY_SEED_FILE", "CHANGEWIRE_NATS_TLS_CA",
        "CHANGEWIRE_NATS_TLS_CERT", "CHANGEWIRE_NATS_TLS_KEY", "CHANGEWIRE_TLS_CERT", "CHANGEWIRE_TLS_KEY",
        "CHANGEWIRE_API_TOKEN_FILE", "CHANGEWIRE_NATS_PASSWORD_FILE", "CHANGEWIRE_NATS_TOKEN_FILE", "MONGO_URI_FILE",
        "NATS_URL_FILE",
    } <= set(variables())  # fmt: skip


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


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://user:{SECRET}@2@host/",
        f"mongodb://user:{SECRET}/2@host/?replicaSet=rs0",
        f"mongodb://user:{SECRET}?2@host/",
        f"mongodb://user:{SECRET}:2@host/",
        f"mongodb://user:{SECRET}%x@host/",
        f"mongodb://us/er:{SECRET}@host/",
        f"mongodb://user:27017/{SECRET}@host/shop",
        f"mongodb+srv://user:{SECRET}@2@cluster.example/shop",
    ],
)
def test_a_password_that_is_not_encoded_is_named_as_the_cause(uri: str) -> None:
    said = refused(MONGO_URI=uri)
    assert said.startswith("MONGO_URI: ")
    assert "percent-encoded, for example @ as %40" in said
    assert "Example: mongodb://" in said


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://user:p%40ss%2F@h1,h2:27018/shop?replicaSet=rs0&authSource=admin",
        "mongodb://h1/?appName=me@home",
        "mongodb://[::1]:27017/",
        "mongodb://%2Ftmp%2Fmongodb-27017.sock",
        "mongodb+srv://user@cluster.example/?retryWrites=true",
    ],
)
def test_a_good_connection_string_is_taken(uri: str) -> None:
    assert load(environ={"MONGO_URI": uri}).mongo_uri.get_secret_value() == uri


def test_a_file_of_keys_or_certificates_is_looked_into(tmp_path: Path) -> None:
    """What no reader of it says clearly, if it says anything: nats-py and OpenSSL, when it is too late."""
    ours, others = trustme.CA().issue_cert("127.0.0.1"), trustme.CA().issue_cert("127.0.0.1")
    ours.cert_chain_pems[0].write_to_path("cert.pem")
    ours.private_key_pem.write_to_path("key.pem")
    others.private_key_pem.write_to_path("other-key.pem")
    key = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    Path("locked-key.pem").write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(SECRET.encode())))
    Path("nonsense").write_text(SECRET)
    Path("user.nk").write_text(Key().seed)
    Path("right.creds").write_text(Operator().credentials())
    Path("account.nk").write_text(Key("account").seed)
    for wrong, said in (
        ({"NATS_CREDS": "nonsense"}, "NATS_CREDS=nonsense: names nonsense, which is no credentials file"),
        ({"NATS_CREDS": "user.nk"}, "which is no credentials file"),
        ({"NATS_NKEY_SEED_FILE": "nonsense"}, "which holds no seed of an NKey"),
        ({"NATS_NKEY_SEED_FILE": "account.nk"}, "of another kind (account)"),
        ({"NATS_TLS_CA": "key.pem"}, "NATS_TLS_CA=key.pem: names key.pem, which holds no certificate"),
        ({"NATS_TLS_CA": "absent.pem"}, "which cannot be read (No such file or directory)"),
        ({"NATS_TLS_CA": "."}, "which cannot be read (Is a directory)"),
        (
            {"NATS_TLS_CERT": "nonsense", "NATS_TLS_KEY": "key.pem"},
            "NATS_TLS_CERT=nonsense: names nonsense, which holds",
        ),
        (
            {"NATS_TLS_CERT": "cert.pem", "NATS_TLS_KEY": "cert.pem"},
            "NATS_TLS_KEY=cert.pem: names cert.pem, which holds",
        ),
        ({"TLS_CERT": "key.pem", "TLS_KEY": "key.pem"}, "CHANGEWIRE_TLS_CERT=key.pem: names key.pem, which holds no"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "other-key.pem"}, "CHANGEWIRE_TLS_KEY=other-key.pem: names other-key.pem"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "other-key.pem"}, "which is not the key of the certificate"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "locked-key.pem"}, "without a password"),
        ({"TLS_CERT": "cert.pem", "TLS_KEY": "absent.pem"}, "which cannot be read (No such file or directory)"),
    ):
        told = refused(**{f"CHANGEWIRE_{name}": value for name, value in wrong.items()})
        assert said in told
        assert "Example: /" in told
        assert len(told.splitlines()) == 1
    pair = {"CHANGEWIRE_NATS_TLS_CERT": "cert.pem", "CHANGEWIRE_NATS_TLS_KEY": "key.pem"}
    load(environ={**pair, "CHANGEWIRE_NATS_TLS_CA": "cert.pem", "CHANGEWIRE_NATS_CREDS": "right.creds"})
    load(environ={"CHANGEWIRE_NATS_NKEY_SEED_FILE": "user.nk"})


def test_all_problems_are_told_at_once() -> None:
    assert len(refused(SERVER_ADDR="x", CHANGEWIRE_BATCH_SIZE="0", CHANGEWIRE_CODEC="y").splitlines()) == 3


def test_two_ways_to_sign_in_are_refused() -> None:
    said = refused(CHANGEWIRE_NATS_TOKEN=SECRET, CHANGEWIRE_NATS_USER="u", CHANGEWIRE_NATS_PASSWORD=SECRET)
    assert "CHANGEWIRE_NATS_USER and CHANGEWIRE_NATS_TOKEN are set" in said


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    (tmp_path / "uri").write_text("mongodb://from-file/")
    settings = load(environ={"CHANGEWIRE_API_TOKEN_FILE": str(tmp_path / "token"), "MONGO_URI_FILE": "uri"})
    assert settings.api_token is not None
    assert settings.api_token.get_secret_value() == SECRET
    assert settings.mongo_uri.get_secret_value() == "mongodb://from-file/"
    assert settings.secrets == (SECRET,)
    assert SECRET not in repr(settings)


def test_secret_in_both_ways_or_an_empty_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    said = refused(CHANGEWIRE_API_TOKEN=SECRET, CHANGEWIRE_API_TOKEN_FILE="empty")
    assert "are both set" in said
    assert "which is empty" in refused(CHANGEWIRE_API_TOKEN_FILE="empty")
    assert "it is not text" in refused(CHANGEWIRE_API_TOKEN_FILE="binary")


def test_unknown_variables_are_warned_about_with_the_nearest_known_name() -> None:
    settings = load(environ={"CHANGEWIRE_BATCHSIZE": "1", "CHANGEWIRE_ZZZ": SECRET, "UNRELATED": "1"})
    assert settings.warnings == (
        "CHANGEWIRE_BATCHSIZE is not a setting; did you mean CHANGEWIRE_BATCH_SIZE?",
        "CHANGEWIRE_ZZZ is not a setting",
    )


def test_anonymous_with_a_token_is_warned_about() -> None:
    environ = {"CHANGEWIRE_ALLOW_ANONYMOUS": "true", "CHANGEWIRE_API_TOKEN": SECRET}
    assert load(environ=environ).warnings == (
        "CHANGEWIRE_ALLOW_ANONYMOUS has no effect where CHANGEWIRE_API_TOKEN is set",
    )


@pytest.mark.parametrize(
    ("address", "host", "port", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        (":8080", "", 8080, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::1]:8080", "::1", 8080, True),
        ("[::]:8080", "::", 8080, False),
        ("localhost:0", "localhost", 0, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("changewire.example:443", "changewire.example", 443, False),
    ],
)
def test_server_address(address: str, host: str, port: int, loopback: bool) -> None:
    settings = load(environ={"SERVER_ADDR": address})
    assert (settings.host, settings.port, settings.loopback) == (host, port, loopback)


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


def test_several_nats_servers() -> None:
    settings = load(environ={"NATS_URL": "nats://a:1, b:2,tls://c"})
    assert settings.nats_servers == ["nats://a:1", "nats://b:2", "tls://c"]


def test_settings_made_by_hand_read_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGEWIRE_BATCH_SIZE", "1")
    monkeypatch.setenv("BATCH_SIZE", "1")
    assert Settings().batch_size == 500
    assert variable("batch_size") == "CHANGEWIRE_BATCH_SIZE"
