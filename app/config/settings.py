"""What the service is told from outside: environment, `.env`, and the settings in mongodb-nats-connector's file.

Each setting is documented where it is declared; its type says how it is checked (`checks.py`). `load` is the way in; a
value that cannot be used raises SettingsError, which names the variable, what is wrong with it and an example, and
never holds a secret. The watchers in mongodb-nats-connector's file are handed on in `Settings.connector`.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource, SettingsConfigDict

from app.config import checks
from app.config.addresses import is_loopback, parse_hosts, split_address
from app.config.api_tokens import Token, all_tokens
from app.config.start_warnings import unknown_variables, useless_tokens
from app.config.tracing import TracingSettings
from app.config.variables import SettingsError, file_variable, given_variables, value_of, variable
from app.domain.namespaces import Namespaces

if TYPE_CHECKING:
    from app.config.connector_yaml import ConnectorFile

__all__ = ["Settings", "SettingsError", "is_loopback", "load", "split_address", "variable", "variables"]


class Settings(TracingSettings):
    """Every setting of the service; the text below each is its documentation, which nothing reads at run time."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    mongo_uri: checks.MongoUri = Field(
        default=SecretStr("mongodb://127.0.0.1:27017/?replicaSet=rs0"),
        examples=["mongodb://user:password@host1:27017,host2:27017/?replicaSet=rs0"],
    )
    """Connection string of the MongoDB deployment (a replica set or a sharded cluster: change streams need one).
    Secret, since it may hold a password, which has to be percent-encoded (@ as %40). A `maxPoolSize` below what change
    streams need is not applied. Default: a replica set `rs0` on this machine."""

    nats_url: checks.NatsUrl = Field(
        default=SecretStr("nats://127.0.0.1:4222"), examples=["nats://host1:4222,nats://host2:4222"]
    )
    """One NATS server or several of one cluster, separated by commas; `tls://` asks for TLS. Secret for the same reason
    as MONGO_URI. Default: a server on this machine, on nats-server's usual port."""

    server_addr: checks.Address = Field(default="127.0.0.1:8080", examples=["127.0.0.1:8080", ":8080"])
    """Where HTTP is served, as `host:port`; `:8080` means every address of the machine, port 0 a free one. Default:
    127.0.0.1:8080, so that an interface without a token is reached from this machine only."""

    log_level: checks.LogLevel = Field(default="info", examples=["debug", "info", "warning", "error"])
    """The least severe level that is logged: debug, info, warning (or warn), error, critical; upper case works too. Any
    other value counts as info, with a warning. Default: info."""

    config_file: Path = Field(default=Path("connector.yaml"), examples=["connector.yaml"])
    """mongodb-nats-connector's configuration file. A file that is named here has to exist. Default: connector.yaml in
    the working directory, where there is one."""

    api_token: checks.ApiToken = Field(default=None, examples=["the output of: openssl rand -hex 32"])
    """Bearer token that calls need to change anything; the log calls it `api`. Default: none; without any token,
    changes are allowed only on a loopback address."""

    api_tokens: checks.ApiTokens = Field(default=None, examples=["grafana:read:(token),deploy:write:(token)"])
    """More tokens, each as `name:role:token`, separated by commas or line breaks; a line that begins with # is a
    comment. The role `write` may do everything, `read` changes nothing. The log shows the name in place of the token. A
    token has at least 16 characters. Default: none."""

    reads_need_token: bool = Field(default=False, examples=["true"])
    """Whether reading needs a token too, of any role: watchers, positions, dead letters, `/lag` and `/metrics`. The
    probes `/healthz`, `/livez` and `/readyz` stay open, as do the page and the documentation, which are the
    same in every installation. Default: false; only changes need one."""

    allow_anonymous: bool = Field(default=False, examples=["true"])
    """Whether anyone may change watchers while there is no token, whatever address is served. Meant for networks that
    keep others out. Default: false."""

    allowed_hosts: checks.Hosts = Field(default=None, examples=["changewire.example.com,*.corp.example.com"])
    """The host names under which the service may be asked without a token, besides those that no other site can have:
    each with or without a port, `*.` before a domain for all names below it, `*` for any name. On a loopback address
    they allow reads only; changes need a token there, since a proxy on the same machine may let others in. Default:
    none."""

    namespaces: checks.WatchedNamespaces = Field(default=None, examples=["shop.*,crm.contacts"])
    """The collections that may be watched, as `database.collection`, separated by commas; `*` stands for any
    characters, so that `shop.*` is every collection of a database. Watchers of other collections are refused, also
    those in connector.yaml and those stored already, and watchers of a whole database whose `include` goes beyond. The
    `checkpoint` that a watcher names has to be in one of these collections too, or in the database `resume-tokens`.
    Default: none; every collection that the MongoDB account may read."""

    allow_server_side_javascript: bool = Field(default=False, examples=["true"])
    """Whether pipelines may run JavaScript in the MongoDB server (`$function`, `$accumulator`, `$where`). With it,
    anyone who may change watchers can keep a processor of the server busy. Without it, watchers that use JavaScript
    are refused, also those stored already. Default: false."""

    state_db: checks.StateDatabase = Field(default="changewire", examples=["changewire"])
    """The MongoDB database that holds the registry of watchers. Instances with the same one share their watchers.
    Default: changewire."""

    instance: checks.Instance = Field(default=None, examples=["changewire-0"])
    """The name of this instance among those with the same state database; no two that live may have the same. At most
    128 letters, digits, dots, hyphens and underscores. Default: the host's name and a random suffix."""

    weight: float = Field(default=1, gt=0, le=1000, allow_inf_nan=False, examples=["2"])
    """How much work this instance takes beside the others: one with 2 gets twice as much as one with 1. Default: 1."""

    batch_size: int = Field(default=500, ge=1, le=1000, examples=["500"])
    """The most events that are read, encoded and sent together, 1 to 1000 (JetStream's limit for an atomic batch; a
    fast-ingest batch goes on over many of them). Default: 500; with more, memory and the work repeated after an error
    grow, and throughput hardly does."""

    shared_streams: bool = Field(default=True, examples=["false"])
    """Whether watchers of one database share its change stream (`reads` in their status says which do). Without it,
    each has a change stream of its own, and MongoDB reads its oplog once for each. Default: true."""

    snapshots_at_once: int = Field(default=4, ge=1, le=1000, examples=["4"])
    """How many snapshots this instance takes at the same time; the others wait. Each reads documents as fast as they
    can be published. Default: 4."""

    snapshot_max_lag_seconds: float = Field(default=10, ge=0, le=86_400, allow_inf_nan=False, examples=["10"])
    """A snapshot waits while its watcher's changes are further behind than this many seconds, and goes on once they
    have caught up. Default: 10."""

    drain_seconds: float = Field(default=10, ge=0, le=3600, allow_inf_nan=False, examples=["10"])
    """How many seconds a stop may take to finish the batches in flight. Default: 10, less than the 30 after which
    Kubernetes kills."""

    log_format: checks.LogFormat = Field(default=None, examples=["json", "console"])
    """json: one object per line; console: for people. Default: console on a terminal, json otherwise."""

    codec: checks.Codec = Field(default="auto", examples=["auto", "python"])
    """What encodes events: native, the transcoder in Rust; python, the reference encoder, several times slower; auto,
    the native one where it was built. The messages are the same. Default: auto; the log says at the start which one is
    used."""

    connector_streams: checks.ConnectorStreams = Field(default="connector", examples=["connector", "changewire"])
    """Which settings the streams of connector.yaml's watchers have. connector: they are created as
    mongodb-nats-connector creates them and never changed, so that it can start again. changewire: fast ingest, atomic
    batches and direct reads are switched on, as far as the server has them, which is faster; mongodb-nats-connector
    refuses such a stream until `changewire streams switch` has switched it back. Default: connector."""

    nats_creds: checks.CredentialsFile = Field(default=None, examples=["/run/secrets/nats.creds"])
    """A NATS credentials file (JWT and seed). Use at most one way to sign in: this, user and password, token, or NKey.
    Default: none."""

    nats_user: str | None = Field(default=None, examples=["changewire"])
    """The NATS user; needs a password. Default: none."""

    nats_password: SecretStr | None = Field(default=None, examples=["(the user's password)"])
    """The NATS user's password. Default: none."""

    nats_token: SecretStr | None = Field(default=None, examples=["(the server's token)"])
    """The NATS server's token. Default: none."""

    nats_nkey_seed_file: checks.NKeyFile = Field(default=None, examples=["/run/secrets/user.nk"])
    """A file that holds the seed of a NATS NKey. Default: none."""

    nats_tls_ca: checks.CertificatesFile = Field(default=None, examples=["/etc/nats/ca.pem"])
    """PEM file of the authority that signed the NATS server's certificate. Default: the system's authorities."""

    nats_tls_cert: checks.CertificatesFile = Field(default=None, examples=["/etc/nats/client.pem"])
    """PEM file of the certificate shown to the NATS server; needs its key. Default: none."""

    nats_tls_key: checks.PrivateKeyFile = Field(default=None, examples=["/etc/nats/client-key.pem"])
    """PEM file of that certificate's key, without a password. Default: none."""

    nats_tls_handshake_first: bool = Field(default=False, examples=["true"])
    """Whether TLS begins before the NATS server introduces itself: for servers with `handshake_first` in their `tls`
    section. Default: false."""

    nats_inbox_prefix: checks.InboxPrefix = Field(default="_INBOX", examples=["_INBOX_changewire"])
    """How the subjects begin on which the NATS server's answers arrive. The account has to be able to subscribe there
    (`_INBOX.>`); with a prefix of its own it needs no right to hear the answers of others. Default: _INBOX."""

    nats_prefix: checks.SubjectPrefix = Field(default="changewire", examples=["changewire"])
    """How the subjects begin by which instances ask each other, the same for all of one state database. The NATS
    account has to be able to publish and to subscribe there (`changewire.>`), and no stream may take these subjects.
    Default: changewire."""

    tls_cert: checks.CertificatesFile = Field(default=None, examples=["/etc/changewire/server.pem"])
    """PEM file of the HTTP server's certificate; needs its key. Default: none, plain HTTP."""

    tls_key: checks.PrivateKeyFile = Field(default=None, examples=["/etc/changewire/server-key.pem"])
    """PEM file of that certificate's key, without a password. Default: none."""

    standby_silence_seconds: float = Field(default=10, ge=1, le=3600, allow_inf_nan=False, examples=["10"])
    """For how many seconds the other writer has to be silent, with events waiting, before a standby takes over.
    Default: 10, longer than an election in a NATS cluster."""

    standby_losses: int = Field(default=3, ge=1, le=1000, examples=["3"])
    """After how many lost races in a row a writer stands by. Default: 3; a single one may come from a time-out."""

    reconcile_seconds: float = Field(default=5, ge=0.1, le=3600, allow_inf_nan=False, examples=["5"])
    """How often, in seconds, an instance reads what others changed in the registry. Default: 5."""

    min_headroom_seconds: float = Field(default=3600, ge=0, le=31_536_000, allow_inf_nan=False, examples=["3600"])
    """With fewer seconds of oplog left before a watcher's position, `/healthz` warns that history is about to be lost;
    only where the oplog is full, since a young one always has a short history. Default: 3600, an hour to act in;
    0 never warns."""

    _connector: "ConnectorFile | None" = PrivateAttr(default=None)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _files: Mapping[str, Path] = PrivateAttr(default_factory=dict)

    @property
    def connector(self) -> "ConnectorFile | None":
        """mongodb-nats-connector's file with its watchers; None where there is no file."""
        return self._connector

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks like a mistake in the settings and does not keep the service from starting."""
        return self._warnings

    def secret_file(self, name: str) -> Path | None:
        """Return the file that holds a setting's secret; None where it is in no file. It may be replaced."""
        return self._files.get(name)

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
        others = map(_revealed, (self.nats_password, self.nats_token))
        return (*(token.secret for token in self.tokens), *(one for one in others if one))

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Every token that is known, `api_token` first."""
        return all_tokens(_revealed(self.api_token), _revealed(self.api_tokens))

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
        """Only what `load` collected: `Settings(…)` itself reads no environment."""
        del settings_cls
        return (init_settings,)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problem = checks.contradiction(dict(self), self.tokens)
        if problem is not None:
            raise ValueError(problem)
        return self


def load(
    config_file: Path | None = None, *, environ: Mapping[str, str] | None = None, dotenv: Path = Path(".env")
) -> Settings:
    """Read the settings: environment over `.env` over mongodb-nats-connector's file over the defaults.

    `config_file` is the command line's and wins over CONFIG_FILE; a file that is named in either way has to exist.
    Raises SettingsError.
    """
    given = given_variables(os.environ if environ is None else environ, dotenv, variables())
    values, wrong = _values(given)
    if config_file is not None:
        values["config_file"] = str(config_file)
    connector, more = _connector(values)
    wrong += more
    origins = _fill(values, connector)
    odd = _unknown_level(values, origins)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(*wrong, *_explain(error, values, origins)) from None
    if wrong:
        raise SettingsError(*wrong)
    settings._files = {
        name: Path(given[file_variable(name)])
        for name, field in Settings.model_fields.items()
        if _is_secret(field) and file_variable(name) in given
    }
    settings._connector = connector and connector.with_stream_settings(settings.connector_streams)
    settings._warnings = (
        *unknown_variables(given, tuple(variables())),
        *useless_tokens(
            settings.tokens,
            allow_anonymous=settings.allow_anonymous,
            named="api_tokens" if settings.api_token is None else "api_token",
        ),
        *odd,
        *(connector.warnings if connector else ()),
    )
    return settings


def variables() -> Iterator[str]:
    """Every environment variable that is read, with the `_FILE` variant of each secret."""
    for name, field in Settings.model_fields.items():
        yield variable(name)
        if _is_secret(field):
            yield file_variable(name)


def _values(given: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """What the variables say of each setting, and what is wrong with that."""
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, field in Settings.model_fields.items():
        try:
            value = value_of(name, given, secret=_is_secret(field))
        except SettingsError as error:
            wrong.extend(error.problems)
        else:
            if value is not None:
                values[name] = value
    return values, wrong


def _connector(values: Mapping[str, str]) -> "tuple[ConnectorFile | None, tuple[str, ...]]":
    """Read the file that the values name, or the one of the usual name where it exists; and what is wrong with it."""
    path = Path(values.get("config_file", Settings.model_fields["config_file"].default))
    if "config_file" not in values and not path.exists():
        return None, ()
    from app.config import connector_yaml  # a start without such a file does without a YAML parser

    try:
        return connector_yaml.read(path), ()
    except connector_yaml.ConnectorFileError as error:
        return None, error.problems


def _fill(values: dict[str, str], connector: "ConnectorFile | None") -> dict[str, str]:
    """Add the file's settings that no variable has set, and return where each of them stands."""
    if connector is None:
        return {}
    from app.config.connector_yaml import SETTINGS

    path = Path(values.get("config_file", Settings.model_fields["config_file"].default))
    added = {name: value for name, value in connector.settings.items() if name not in values}
    values.update(added)
    return {name: f"{path} ({SETTINGS[name]})" for name in added}


def _unknown_level(values: dict[str, str], origins: Mapping[str, str]) -> tuple[str, ...]:
    """Take a level that is not known out of the values, and say so."""
    level = values.get("log_level")
    if level is None or level.strip().lower() in checks.LEVELS:
        return ()
    del values["log_level"]
    where = origins.get("log_level") or variable("log_level")
    return (f"{where}={level} is not a level, and info is used; there are {', '.join(get_args(checks.Level))}",)


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


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
