"""Who can read what the service answers, as its settings say: told at the start and by `changewire doctor`."""

from app.config.settings import Settings
from app.config.variables import variable


def open_reads(settings: Settings) -> tuple[str, str] | None:
    """Say that other machines may read without a token, and what to do; None where they may not."""
    if settings.loopback or settings.reads_need_token:
        return None
    found = (
        f"{variable('server_addr')} is reachable from other machines, and reads need no token: anyone there can read "
        "watchers, messages and dead letters, which hold documents"
    )
    token = "" if settings.tokens else f" and {variable('api_token')} or {variable('api_tokens')}"
    return found, f"set {variable('reads_need_token')}=true{token}, or let only those you trust reach the address"
