"""How the settings say that NATS is reached."""

from app.config.settings import Settings
from app.jetstream.client import NatsOptions


def nats_options(settings: Settings) -> NatsOptions:
    """How the settings say that NATS is reached."""

    def path(value: object) -> str | None:
        return None if value is None else str(value)

    password, token = settings.nats_password, settings.nats_token
    return NatsOptions(
        urls=tuple(settings.nats_servers),
        user=settings.nats_user,
        password=None if password is None else password.get_secret_value(),
        token=None if token is None else token.get_secret_value(),
        password_file=path(settings.secret_file("nats_password")),
        token_file=path(settings.secret_file("nats_token")),
        creds_file=path(settings.nats_creds),
        nkey_seed_file=path(settings.nats_nkey_seed_file),
        tls_ca=path(settings.nats_tls_ca),
        tls_cert=path(settings.nats_tls_cert),
        tls_key=path(settings.nats_tls_key),
        tls_handshake_first=settings.nats_tls_handshake_first,
        inbox_prefix=settings.nats_inbox_prefix,
    )
