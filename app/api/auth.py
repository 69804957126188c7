"""Who may change something: a bearer token, or, where there is none, only who sits at the machine itself.

Reads, probes and metrics are open. Without a token a change is allowed where the server is bound to a loopback address
and the request was meant for it: a page of some other site that a browser on this machine shows can reach the port too,
but neither its Host (DNS rebinding) nor its Origin is ours. Runs before the body is read. Not its business: TLS.
"""

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import Problem
from app.settings import Settings, is_loopback, split_address, variable

OPEN_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority:
    """ASGI middleware that answers 401 or 403 in place of the application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        token = settings.api_token
        self._token = None if token is None else token.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in OPEN_METHODS:
            problem = self._refusal(scope)
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if self._token is not None:
            return self._refuse_token(headers.getlist("authorization"), self._token)
        if self._settings.allow_anonymous:
            return None
        server = scope.get("server") or ("", None)
        # What the socket says counts too: a server started in another way may be bound elsewhere than the settings say.
        if not (self._settings.loopback and (is_loopback(server[0]) or server[0] in OWN_NAMES)):
            return _forbidden(
                f"no {variable('api_token')} is set and the server is not bound to a loopback address alone, so "
                f"nothing may be changed. Set {variable('api_token')} and send it as 'Authorization: Bearer …'"
            )
        scheme = scope.get("scheme", "http")
        if not _own_host(headers.getlist("host"), server[1], scheme):
            return _forbidden(
                "the request's Host is not this server's (localhost, 127.0.0.1 or [::1] with its port). To change "
                f"watchers under another name, set {variable('api_token')}"
            )
        if any(not _own_origin(origin, server[1], scheme) for origin in headers.getlist("origin")):
            return _forbidden(
                "the request comes from a page of another site (its Origin is not this server). To allow that, set "
                f"{variable('api_token')} and send it"
            )
        return None

    def _refuse_token(self, authorization: list[str], token: bytes) -> Problem | None:
        scheme, _, given = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1", "replace"), token):
            return None
        challenge, detail = 'Bearer realm="changewire"', "changes need the header 'Authorization: Bearer <token>'"
        if authorization:
            challenge += ', error="invalid_token"'
            detail = f"the token is not the one in {variable('api_token')}"
        return Problem(401, "Unauthorized", detail, kind="unauthorized", headers={"WWW-Authenticate": challenge})


def _forbidden(detail: str) -> Problem:
    return Problem(403, "Forbidden", detail, kind="forbidden")


def _own_host(hosts: list[str], port: int | None, scheme: str) -> bool:
    if len(hosts) != 1:
        return False
    host = hosts[0]
    try:
        name, given = split_address(host if host.rpartition("]")[2].count(":") else f"{host}:{_DEFAULT_PORTS[scheme]}")
    except (ValueError, KeyError):
        return False
    return name.lower() in OWN_NAMES and given == port


def _own_origin(origin: str, port: int | None, scheme: str) -> bool:
    try:
        url = urlsplit(origin)
        given = url.port or _DEFAULT_PORTS.get(url.scheme)
    except ValueError:
        return False
    return url.scheme == scheme and (url.hostname or "") in OWN_NAMES and given == port
