"""The variables that hold the settings: their names, and what environment, `.env` and `…_FILE` say.

A secret may be in a file; the variable `NAME_FILE` holds its path.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from app.domain.text import is_text

PREFIX: Final = "CHANGEWIRE_"
UNPREFIXED: Final = frozenset(
    {
        "mongo_uri", "nats_url", "server_addr", "log_level", "config_file",
        "otel_exporter_otlp_endpoint", "otel_service_name", "otel_sdk_disabled",
    }
)  # fmt: skip
"""The five of mongodb-nats-connector, and those of OpenTelemetry; every other setting's variable starts with PREFIX."""
MISTAKEN: Final = {
    **dict.fromkeys(("MONGO_URL", "MONGODB_URI", "MONGODB_URL", "MONGO_CONNECTION_STRING"), "MONGO_URI"),
    **dict.fromkeys(("NATS_URI", "NATS_SERVER", "NATS_SERVERS", "NATS_ADDR"), "NATS_URL"),
}
"""Names that other programs read, and that are easily taken for ours, with ours."""
ELSEWHERE: Final = frozenset({"CHANGEWIRE_URL"})
"""Variables that other commands read; no reason to warn."""


class SettingsError(Exception):
    """The service cannot start with these settings. `problems` has a sentence for each; none holds a secret."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return name.upper() if name in UNPREFIXED else PREFIX + name.upper()


def file_variable(name: str) -> str:
    """Return the variable that names a file with the setting's value, where the setting is a secret."""
    return f"{variable(name)}_FILE"


def given_variables(environ: Mapping[str, str], dotenv: Path, known: Iterable[str]) -> dict[str, str]:
    """Return what environment and `.env` say, the environment first. An empty variable counts as not set, as in
    mongodb-nats-connector.

    Raises SettingsError where `.env` cannot be read, or a `known` variable is not text."""
    raw = {**_read_dotenv(dotenv), **environ}
    given = {name: value for name, value in raw.items() if value and value.strip()}
    wrong = [f"{name} is not UTF-8 text" for name in known if not is_text(given.get(name, ""))]
    if wrong:
        raise SettingsError(*wrong)
    return given


def value_of(name: str, given: Mapping[str, str], *, secret: bool) -> str | None:
    """Return what a setting's variable says, or the file that its `_FILE` variant names; None where neither is set.

    Raises SettingsError."""
    own, from_file = variable(name), file_variable(name)
    if not secret or from_file not in given:
        return given.get(own)
    if own in given:
        raise SettingsError(f"{own} and {from_file} are both set; set one of them")
    path = Path(given[from_file])
    try:
        value = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "it is not text")
        raise SettingsError(f"{from_file} names {path}, which cannot be read ({why})") from None
    if not value:
        raise SettingsError(f"{from_file} names {path}, which is empty")
    return value


def _read_dotenv(path: Path) -> Mapping[str, str | None]:
    try:
        return dotenv_values(path) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
