"""What a setting's value has to be: the types that the settings are declared with, and what holds between several.

Each check raises ValueError with the end of a sentence that begins with the variable; none repeats a secret.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo

from app.config import api_tokens, key_files
from app.config.addresses import mongo_uri_problem, nats_url_problem, parse_hosts, split_address
from app.config.variables import variable
from app.domain.namespaces import Namespaces
from app.domain.subjects import subject_problem
from app.domain.watcher import Source, StreamSettings, Watcher, problems
from app.formats import native

T = TypeVar("T")

_INBOX = re.compile(r"(?=.{1,100}\Z)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
MAX_PREFIX = 200
"""Characters of the first part of the subjects between instances, whose names follow."""


def _without(problem: Callable[[str], str | None]) -> Callable[[SecretStr], SecretStr]:
    """Return a check that refuses a secret of which `problem` says something."""

    def check(value: SecretStr) -> SecretStr:
        _refuse(problem(value.get_secret_value()))
        return value

    return check


def _readable(read: Callable[[str], object]) -> Callable[[T], T]:
    """Return a check that refuses a text, secret or not, of which `read` raises ValueError. None is no text."""

    def check(value: T) -> T:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is not None:
            read(str(text))
        return value

    return check


def _lower(value: object) -> object:
    word = value.strip().lower() if isinstance(value, str) else value
    return "warning" if word == "warn" else word


def _codec(value: native.Wish) -> native.Wish:
    _refuse(native.absence() if value == "native" else None)
    return value


def _state_database(value: str) -> str:
    probe = Watcher(name="probe", source=Source(database=value, collection="probe")).with_defaults()
    found = (each.problem for each in problems(probe, state_database="") if each.field == "source.database")
    _refuse(next(found, None))
    return value


def _subject_prefix(value: str) -> str:
    _refuse(subject_problem(value))
    _refuse(f"is longer than {MAX_PREFIX} characters" if len(value) > MAX_PREFIX else None)
    return value


def _inbox_prefix(value: str) -> str:
    if _INBOX.fullmatch(value) is None:
        raise ValueError("must be 1 to 100 letters, digits, hyphens and underscores, in parts with dots between them")
    return value


def _instance(value: str | None) -> str | None:
    if value is not None and INSTANCE.fullmatch(value) is None:
        raise ValueError("must have 1 to 128 letters, digits, dots, hyphens and underscores")
    return value


def _file(problem: Callable[[Path], str | None]) -> Callable[[Path | None], Path | None]:
    """Return a check that refuses a file of which `problem` says something."""

    def check(value: Path | None) -> Path | None:
        if value is not None:
            _refuse_file(value, problem(value))
        return value

    return check


def _private_key(value: Path | None, info: ValidationInfo) -> Path | None:
    certificate = info.data.get(str(info.field_name).removesuffix("key") + "cert")
    # Without its certificate, which is refused by itself, nothing can be said about a key.
    if value is not None and certificate is not None:
        _refuse_file(value, key_files.private_key_problem(value, certificate))
    return value


def _refuse_file(path: Path, problem: str | None) -> None:
    _refuse(problem and f"names {path}, which {problem}")


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise ValueError(problem)


INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A name of an instance."""
Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS = {*get_args(Level), "warn"}
"""As they may be written. Any other is info, as in mongodb-nats-connector, which would start with it too."""

MongoUri = Annotated[SecretStr, AfterValidator(_without(mongo_uri_problem))]
NatsUrl = Annotated[SecretStr, AfterValidator(_without(nats_url_problem))]
Address = Annotated[str, AfterValidator(_readable(split_address))]
LogLevel = Annotated[Level, BeforeValidator(_lower)]
LogFormat = Annotated[Literal["json", "console"] | None, BeforeValidator(_lower)]
Codec = Annotated[native.Wish, BeforeValidator(_lower), AfterValidator(_codec)]
ConnectorStreams = Annotated[StreamSettings, BeforeValidator(_lower)]
ApiToken = Annotated[SecretStr | None, AfterValidator(_readable(api_tokens.check_secret))]
ApiTokens = Annotated[SecretStr | None, AfterValidator(_readable(api_tokens.parse))]
Hosts = Annotated[str | None, AfterValidator(_readable(parse_hosts))]
WatchedNamespaces = Annotated[str | None, AfterValidator(_readable(Namespaces.parse))]
InboxPrefix = Annotated[str, AfterValidator(_inbox_prefix)]
SubjectPrefix = Annotated[str, AfterValidator(_subject_prefix)]
Instance = Annotated[str | None, AfterValidator(_instance)]
StateDatabase = Annotated[str, AfterValidator(_state_database)]
CredentialsFile = Annotated[Path | None, AfterValidator(_file(key_files.credentials_problem))]
NKeyFile = Annotated[Path | None, AfterValidator(_file(key_files.nkey_problem))]
CertificatesFile = Annotated[Path | None, AfterValidator(_file(key_files.certificates_problem))]
PrivateKeyFile = Annotated[Path | None, AfterValidator(_private_key)]
"""The key of the certificate that the setting with `cert` for `key` in its name has; declared after that one."""

_PAIRS = (("nats_user", "nats_password"), ("nats_tls_cert", "nats_tls_key"), ("tls_cert", "tls_key"))
_SIGN_IN = ("nats_creds", "nats_user", "nats_token", "nats_nkey_seed_file")


def contradiction(values: Mapping[str, object], tokens: Iterable[api_tokens.Token]) -> str | None:
    """Return what is wrong with the values of all settings together, as a whole sentence; None where they agree."""
    for one, other in _PAIRS:
        if (values[one] is None) != (values[other] is None):
            there, missing = (other, one) if values[one] is None else (one, other)
            return f"{variable(there)} is set without {variable(missing)}; set both or neither"
    ways = [name for name in _SIGN_IN if values[name]]
    if len(ways) > 1:
        return f"{' and '.join(map(variable, ways))} are set; one way to sign in to NATS is enough"
    tokens = tuple(tokens)
    clash = api_tokens.clash(tokens)
    if clash is not None:
        return f"{variable('api_tokens')}: {clash}; {variable('api_token')} is named {api_tokens.API}"
    if values["reads_need_token"] and not tokens:
        return (
            f"{variable('reads_need_token')} is true and there is no token: set {variable('api_tokens')} or "
            f"{variable('api_token')}"
        )
    return None
