"""What the service is told from outside: environment, `.env`, and the settings in `connector.yaml`.

Each setting is documented where it is declared. `load` is the way in; a value that cannot be used raises SettingsError,
which names the variable, what is wrong with it and an example, and never holds a secret. Not its business: the watchers
in mongodb-nats-connector's file (`connector_yaml.py` reads them; they are handed on in `Settings.connector`).
"""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.config import api_tokens as token_list
from app.config import key_files
from app.config.addresses import is_loopback, mongo_uri_problem, nats_url_problem, parse_hosts, split_address
from app.domain.namespaces import Namespaces
from app.domain.text import is_text
from app.domain.watcher import Source, StreamSettings, Watcher, problems
from app.formats import native

if TYPE_CHECKING:
    from app.config.connector_yaml import ConnectorFile

__all__ = ["Settings", "SettingsError", "is_loopback", "load", "split_address", "variable", "variables"]

PREFIX = "CHANGEWIRE_"
UNPREFIXED = frozenset({"mongo_uri", "nats_url", "server_addr", "log_level", "config_file"})
"""mongodb-nats-connector's five; every other setting's variable starts with PREFIX."""
ELSEWHERE = frozenset({"CHANGEWIRE_URL"})
"""Variables that other commands read; no reason to warn."""

_FILES = {"nats_creds": key_files.credentials_problem, "nats_nkey_seed_file": key_files.nkey_problem}
"""What looks at the files that hold no certificate."""

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LOG_LEVELS = {*get_args(LogLevel), "warn"}
"""As they may be written. Any other is info, as in mongodb-nats-connector, which would start with it too."""


class SettingsError(Exception):
    """The service cannot start with these settings. `problems` has a sentence for each; none holds a secret."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseSettings):
    """Every setting of the service; the text below each is its documentation, which nothing reads at run time."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    mongo_uri: SecretStr = Field(
        default=SecretStr("mongodb://127.0.0.1:27017/?replicaSet=rs0"),
        examples=["mongodb://user:password@host1:27017,host2:27017/?replicaSet=rs0"],
    )
    """Connection string of the MongoDB deployment (a replica set or a sharded cluster: change streams need one).
    Secret, since it may hold a password, which has to be percent-encoded (@ as %40). Default: a replica
    set `rs0` on this machine."""

    nats_url: SecretStr = Field(
        default=SecretStr("nats://127.0.0.1:4222"), examples=["nats://host1:4222,nats://host2:4222"]
    )
    """One NATS server or several of one cluster, separated by commas; `tls://` asks for TLS. Secret as the one above.
    Default: a server on this machine, where nats-server listens by itself."""

    server_addr: str = Field(default="127.0.0.1:8080", examples=["127.0.0.1:8080", ":8080"])
    """Where HTTP is served, as `host:port`; `:8080` is every address of the machine, port 0 a free one. Default:
    127.0.0.1:8080, so that nobody else reaches an interface without a token."""

    log_level: LogLevel = Field(default="info", examples=["debug", "info", "warning", "error"])
    """The least that is logged: debug, info, warning (or warn), error, critical; in capitals too. Any other is
    taken for info, with a warning. Default: info."""

    config_file: Path = Field(default=Path("connector.yaml"), examples=["connector.yaml"])
    """The configuration file of mongodb-nats-connector. Default: connector.yaml in the working directory, read where it
    exists; a file that is named here has to exist."""

    api_token: SecretStr | None = Field(default=None, examples=["the output of: openssl rand -hex 32"])
    """Bearer token that changing calls need; in the log its name is `api`. Default: none; without any token changes are
    allowed only on a loopback address."""

    api_tokens: SecretStr | None = Field(default=None, examples=["grafana:read:(token),deploy:write:(token)"])
    """More tokens, each as `name:role:token`, separated by commas or line breaks; a line that begins with # is a
    remark. The role `write` may do everything, `read` changes nothing. The name stands for its owner in the log. A
    token has at least 16 characters. Default: none."""

    reads_need_token: bool = Field(default=False, examples=["true"])
    """Whether reading needs a token too, of any role: watchers, positions, dead letters, `/lag` and `/metrics`. The
    probes `/healthz`, `/livez` and `/readyz` stay open, as do the page and the documentation, which hold nothing of the
    service. Default: false; only changes need one."""

    allow_anonymous: bool = Field(default=False, examples=["true"])
    """Whether anybody may change watchers where there is no token, whatever address is served. Default: false; meant
    for networks that keep others out by themselves."""

    allowed_hosts: str | None = Field(default=None, examples=["changewire.example.com,*.corp.example.com"])
    """Under which names the service may be asked without a token, besides those that no other site can have: hosts,
    each with or without a port, `*.` before a domain for all below it, `*` for any name. On a loopback address they may
    read, as a proxy on the same machine lets them; changes need a token there. Default: none."""

    namespaces: str | None = Field(default=None, examples=["shop.*,crm.contacts"])
    """Which collections may be watched, as `database.collection`, separated by commas; `*` stands for any characters,
    so that `shop.*` is all of a database. Watchers of others are refused, also those in the file and those stored
    already. Positions are kept among these too, or in the database `resume-tokens`. Default: none, all that the MongoDB
    account may read."""

    allow_server_side_javascript: bool = Field(default=False, examples=["true"])
    """Whether pipelines may run JavaScript in the MongoDB server (`$function`, `$accumulator`, `$where`). Everyone who
    may change watchers can keep a processor of the server busy then. Watchers that use it are refused otherwise, also
    those stored already. Default: false."""

    state_db: str = Field(default="changewire", examples=["changewire"])
    """The MongoDB database that holds the registry of watchers. Instances with the same one share their watchers.
    Default: changewire."""

    batch_size: int = Field(default=500, ge=1, le=1000, examples=["500"])
    """The most events in one batch, 1 to 1000 (what JetStream takes in an atomic batch). Default: 500, beyond which
    throughput hardly grows while memory and the work repeated after an error do."""

    drain_seconds: float = Field(default=10, ge=0, le=3600, allow_inf_nan=False, examples=["10"])
    """How many seconds stopping may take to finish the batches in flight. Default: 10, less than the 30 after which
    Kubernetes kills."""

    log_format: Literal["json", "console"] | None = Field(default=None, examples=["json", "console"])
    """json: one object a line; console: for people. Default: console on a terminal, json otherwise."""

    codec: native.Wish = Field(default="auto", examples=["auto", "python"])
    """What encodes events: native, the transcoder in Rust; python, the encoder that it is measured by, several times
    slower; auto, the native one where it was built. The messages are the same. Default: auto; the log says at the start
    which one it is."""

    connector_streams: StreamSettings = Field(default="connector", examples=["connector", "changewire"])
    """Whose settings the streams of connector.yaml's watchers have. connector: they are created as
    mongodb-nats-connector creates them, and never changed, so that it can start again; changewire: atomic batches and
    direct reads are switched on, which is faster on a stream with replicas, and mongodb-nats-connector refuses such a
    stream until `changewire streams switch` has switched it back. Default: connector."""

    nats_creds: Path | None = Field(default=None, examples=["/run/secrets/nats.creds"])
    """A NATS credentials file (JWT and seed). Default: none. One way to sign in at most: this, user and password,
    token, or NKey."""

    nats_user: str | None = Field(default=None, examples=["changewire"])
    """The NATS user; goes with a password. Default: none."""

    nats_password: SecretStr | None = Field(default=None, examples=["(the user's password)"])
    """The NATS user's password. Default: none."""

    nats_token: SecretStr | None = Field(default=None, examples=["(the server's token)"])
    """The NATS server's token. Default: none."""

    nats_nkey_seed_file: Path | None = Field(default=None, examples=["/run/secrets/user.nk"])
    """A file that holds the seed of a NATS NKey. Default: none."""

    nats_tls_ca: Path | None = Field(default=None, examples=["/etc/nats/ca.pem"])
    """PEM file of the authority that signed the NATS server's certificate. Default: the system's authorities."""

    nats_tls_cert: Path | None = Field(default=None, examples=["/etc/nats/client.pem"])
    """PEM file of the certificate shown to the NATS server; goes with its key. Default: none."""

    nats_tls_key: Path | None = Field(default=None, examples=["/etc/nats/client-key.pem"])
    """PEM file of that certificate's key, without a password. Default: none."""

    tls_cert: Path | None = Field(default=None, examples=["/etc/changewire/server.pem"])
    """PEM file of the HTTP server's certificate; goes with its key. Default: none, plain HTTP."""

    tls_key: Path | None = Field(default=None, examples=["/etc/changewire/server-key.pem"])
    """PEM file of that certificate's key, without a password. Default: none."""

    standby_silence_seconds: float = Field(default=10, ge=1, le=3600, allow_inf_nan=False, examples=["10"])
    """For how many seconds the other writer has to be silent, with events waiting, before a standby takes over.
    Default: 10, longer than an election in a NATS cluster."""

    standby_losses: int = Field(default=3, ge=1, le=1000, examples=["3"])
    """After how many lost races running a writer stands by. Default: 3; a single one also comes from a time-out."""

    reconcile_seconds: float = Field(default=5, ge=0.1, le=3600, allow_inf_nan=False, examples=["5"])
    """How often, in seconds, an instance reads what others changed in the registry. Default: 5."""

    min_headroom_seconds: float = Field(default=3600, ge=0, le=31_536_000, allow_inf_nan=False, examples=["3600"])
    """With fewer seconds of oplog left before a watcher's position, `/healthz` warns that history is about to be lost;
    only where the oplog is full, so that a young one is no reason. Default: 3600, an hour to act in; 0 never warns."""

    _connector: "ConnectorFile | None" = PrivateAttr(default=None)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def connector(self) -> "ConnectorFile | None":
        """mongodb-nats-connector's file with its watchers; None where there is no file."""
        return self._connector

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks like a mistake in the settings and does not keep the service from starting."""
        return self._warnings

    @property
    def host(self) -> str:
        """The host part of `server_addr`; empty for every address."""
        return split_address(self.server_addr)[0]

    @property
    def port(self) -> int:
        return split_address(self.server_addr)[1]

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the HTTP server."""
        return is_loopback(self.host)

    @property
    def nats_servers(self) -> list[str]:
        """The URLs of `nats_url`, each with its scheme."""
        return [
            url if "://" in url else f"nats://{url}"
            for url in (part.strip() for part in self.nats_url.get_secret_value().split(","))
            if url
        ]

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be printed. Connection strings are not among them: only their credentials are."""
        others = (self.nats_password, self.nats_token)
        values = (*(token.secret for token in self.tokens), *(one.get_secret_value() for one in others if one))
        return tuple(values)

    @property
    def tokens(self) -> tuple[token_list.Token, ...]:
        """Every token that is known, `api_token` first."""
        one, more = self.api_token, self.api_tokens
        own = () if one is None else (token_list.Token(token_list.API, "write", one.get_secret_value()),)
        return (*own, *(() if more is None else token_list.parse(more.get_secret_value())))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names in `allowed_hosts`."""
        return () if self.allowed_hosts is None else parse_hosts(self.allowed_hosts)

    @property
    def allowed(self) -> Namespaces | None:
        """The collections that may be watched; None: all."""
        return None if self.namespaces is None else Namespaces.parse(self.namespaces)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: Any, init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` collected; `Settings(…)` itself reads nothing behind anybody's back."""
        del settings_cls
        return (init_settings,)

    @field_validator("mongo_uri")
    @classmethod
    def _check_mongo_uri(cls, value: SecretStr) -> SecretStr:
        _refuse(mongo_uri_problem(value.get_secret_value()))
        return value

    @field_validator("nats_url")
    @classmethod
    def _check_nats_url(cls, value: SecretStr) -> SecretStr:
        _refuse(nats_url_problem(value.get_secret_value()))
        return value

    @field_validator("server_addr")
    @classmethod
    def _check_server_addr(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("log_level", "log_format", "codec", "connector_streams", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        word = value.strip().lower() if isinstance(value, str) else value
        return "warning" if word == "warn" else word

    @field_validator("codec")
    @classmethod
    def _check_codec(cls, value: native.Wish) -> native.Wish:
        _refuse(native.absence() if value == "native" else None)
        return value

    @field_validator("api_token")
    @classmethod
    def _check_api_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not token_list.PRINTABLE.fullmatch(value.get_secret_value()):
            raise ValueError("may hold printable ASCII characters only, without spaces: it travels in a header")
        return value

    @field_validator("api_tokens")
    @classmethod
    def _check_api_tokens(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            token_list.parse(value.get_secret_value())
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, value: str | None) -> str | None:
        if value is not None:
            parse_hosts(value)
        return value

    @field_validator("namespaces")
    @classmethod
    def _check_namespaces(cls, value: str | None) -> str | None:
        if value is not None:
            Namespaces.parse(value)
        return value

    @field_validator("state_db")
    @classmethod
    def _check_state_db(cls, value: str) -> str:
        probe = Watcher(name="probe", source=Source(database=value, collection="probe")).with_defaults()
        found = [each.problem for each in problems(probe, state_database="") if each.field == "source.database"]
        if found:
            raise ValueError(found[0])
        return value

    @field_validator(
        "nats_creds", "nats_nkey_seed_file", "nats_tls_ca", "nats_tls_cert", "nats_tls_key", "tls_cert", "tls_key"
    )
    @classmethod
    def _check_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        name = str(info.field_name)
        if name.endswith("_key"):
            certificate = info.data.get(name.removesuffix("key") + "cert")
            # Without its certificate, which is refused by itself, nothing can be said about a key.
            problem = None if certificate is None else key_files.private_key_problem(value, certificate)
        else:
            problem = _FILES.get(name, key_files.certificates_problem)(value)
        _refuse(problem and f"names {value}, which {problem}")
        return value

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        for one, other in (("nats_user", "nats_password"), ("nats_tls_cert", "nats_tls_key"), ("tls_cert", "tls_key")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                there, missing = (other, one) if getattr(self, one) is None else (one, other)
                raise ValueError(f"{variable(there)} is set without {variable(missing)}; set both or neither")
        ways = [
            name for name in ("nats_creds", "nats_user", "nats_token", "nats_nkey_seed_file") if getattr(self, name)
        ]
        if len(ways) > 1:
            raise ValueError(
                f"{' and '.join(variable(name) for name in ways)} are set; one way to sign in to NATS is enough"
            )
        clash = token_list.clash(self.tokens)
        if clash is not None:
            raise ValueError(f"{variable('api_tokens')}: {clash}; {variable('api_token')} is named {token_list.API}")
        if self.reads_need_token and not self.tokens:
            raise ValueError(
                f"{variable('reads_need_token')} is true and there is no token: set {variable('api_tokens')} or "
                f"{variable('api_token')}"
            )
        return self


def load(
    config_file: Path | None = None, *, environ: Mapping[str, str] | None = None, dotenv: Path = Path(".env")
) -> Settings:
    """Read the settings: environment over `.env` over connector.yaml over the defaults. Raises SettingsError.

    `config_file` is the command line's and wins over CONFIG_FILE; a file that is named in either way has to exist.
    """
    raw = {**_read_dotenv(dotenv), **(os.environ if environ is None else environ)}
    given = {name: value for name, value in raw.items() if value and value.strip()}  # as in mongodb-nats-connector
    wrong = [f"{name} is not UTF-8 text" for name in variables() if not is_text(given.get(name, ""))]
    if wrong:
        raise SettingsError(*wrong)
    values: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        try:
            value = _value_of(name, field, given)
        except SettingsError as error:
            wrong.extend(error.problems)
        else:
            if value is not None:
                values[name] = value
    if config_file is not None:
        values["config_file"] = str(config_file)
    path = Path(values.get("config_file", Settings.model_fields["config_file"].default))
    origins: dict[str, str] = {}
    odd: list[str] = []
    connector: ConnectorFile | None = None
    if "config_file" in values or path.exists():
        from app.config import connector_yaml  # a start without such a file does without a YAML parser

        try:
            connector = connector_yaml.read(path)
        except connector_yaml.ConnectorFileError as error:
            wrong.extend(error.problems)
        for name, value in (connector.settings if connector else {}).items():
            if name not in values:
                values[name] = value
                origins[name] = f"{path} ({connector_yaml.SETTINGS[name]})"
    level = values.get("log_level")
    if level is not None and level.strip().lower() not in LOG_LEVELS:
        odd.append(
            f"{origins.get('log_level') or variable('log_level')}={level} is not a level, and info is used; there "
            f"are {', '.join(get_args(LogLevel))}"
        )
        del values["log_level"]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(*wrong, *_explain(error, values, origins)) from None
    if wrong:
        raise SettingsError(*wrong)
    settings._connector = connector and connector.with_stream_settings(settings.connector_streams)
    settings._warnings = (*_warnings(given, settings), *odd, *(connector.warnings if connector else ()))
    return settings


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return name.upper() if name in UNPREFIXED else PREFIX + name.upper()


def variables() -> Iterator[str]:
    """Every environment variable that is read, with the `_FILE` variant of each secret."""
    for name, field in Settings.model_fields.items():
        yield variable(name)
        if _is_secret(field):
            yield f"{variable(name)}_FILE"


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise ValueError(problem)


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _read_dotenv(path: Path) -> Mapping[str, str | None]:
    try:
        return dotenv_values(path) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None


def _value_of(name: str, field: FieldInfo, given: Mapping[str, str]) -> str | None:
    """What a setting's variable says, or the file that its `_FILE` variant names; None where neither is set."""
    own, from_file = variable(name), f"{variable(name)}_FILE"
    if not _is_secret(field) or from_file not in given:
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


def _explain(error: ValidationError, values: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    for each in error.errors(include_url=False, include_context=True, include_input=False):
        cause = each.get("ctx", {}).get("error")
        problem = str(cause) if isinstance(cause, Exception) else each["msg"].replace("Input should", "should", 1)
        if not each["loc"]:  # of several settings together; the sentence names them
            yield problem
            continue
        name = str(each["loc"][0])
        field = Settings.model_fields[name]
        shown = "" if _is_secret(field) else f"={values.get(name)}"
        example = " or ".join(str(one) for one in field.examples or ())
        yield f"{origins.get(name) or variable(name)}{shown}: {problem}. Example: {example}"


def _warnings(given: Mapping[str, str], settings: Settings) -> Iterator[str]:
    known = {*variables(), *ELSEWHERE}
    tails = [each.removeprefix(PREFIX) for each in known if each.startswith(PREFIX)]
    for name in sorted(given):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name.removeprefix(PREFIX), tails, n=1)
            yield f"{name} is not a setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "")
    if settings.allow_anonymous and settings.tokens:
        name = variable("api_tokens" if settings.api_token is None else "api_token")
        yield f"{variable('allow_anonymous')} has no effect where {name} is set"
    if settings.tokens and all(token.role == "read" for token in settings.tokens):
        yield f"no token in {variable('api_tokens')} has the role write; nothing can be changed over HTTP"
