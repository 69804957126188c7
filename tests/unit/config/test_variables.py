"""The variables of the settings: their names, and secrets in files of their own."""

from pathlib import Path

from app.config.settings import load, variables
from tests.unit.config.conftest import SECRET, refused


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
