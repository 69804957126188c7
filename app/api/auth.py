"""Who may do what: a bearer token with a role; without any token, only requests from the machine itself.

Changes need the role `write`. Reads and metrics are open, unless the settings close them; probes, the page and the
documentation are always open. Without a token a change is allowed if the server is bound to a loopback address and the
request was meant for it. Another site's page, shown by a browser on this machine, can reach the port too, but neither
its Host (DNS rebinding) nor its Origin is this server's. Reads without a token are checked in the same way, because an
answer may hold whole documents. All this is decided before the body is read.
"""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import hosts
from app.api.problems import Problem
from app.config import api_tokens
from app.config.api_tokens import Caller
from app.config.settings import Settings, is_loopback, variable

OPEN_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/", "/healthz", "/livez", "/readyz", "/docs", "/openapi.json"})
"""Paths that need no token even where reads do: probes, and what is the same in every installation."""
OPEN_FOLDER = "/assets/"
"""The folder of the page's files."""
AS_CHANGES = frozenset({"/suggestions"})
"""Reads that need what a change needs: they tell names beyond those of the watchers."""
FORWARDED = "changewire.forwarded"
"""In the scope of a request that another instance has allowed: the name of that instance. No client can set it."""
_CALLER = "changewire.caller"
_NOT_OWN = "the request's Host is not this server (localhost, 127.0.0.1 or [::1] with its port)"
_ALLOW_HOST = f"Send a token, use an address instead of the name, or add the name to {variable('allowed_hosts')}"


class Authority:
    """ASGI middleware that answers 401 or 403 instead of the application, and notes in the scope who asks."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._tokens = settings.tokens
        self._hosts = settings.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and FORWARDED not in scope:
            headers = Headers(scope=scope)
            scope[_CALLER] = self._caller(headers.getlist("authorization"))
            problem = self._refusal(scope, headers)
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _caller(self, authorization: list[str]) -> Caller:
        scheme, _, given = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            return Caller()
        token = api_tokens.find(self._tokens, given.strip().encode("latin-1", "replace"))
        return Caller() if token is None else Caller(token.name, token.role)

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        caller = caller_of(scope)
        if scope["method"] in OPEN_METHODS and scope["path"] not in AS_CHANGES:
            if caller.role is not None:
                return None
            if self._settings.reads_need_token and not is_open(scope["path"]):
                return _unknown("reads", headers)
            return self._read_refusal(scope, headers)
        if self._tokens:
            if caller.role is None:
                return _unknown("changes" if scope["method"] not in OPEN_METHODS else "suggestions", headers)
            if caller.role != "write":
                return _forbidden(f"the token {caller.name} has the role read; a change needs the role write")
            return None
        return self._anonymous_refusal(scope, headers)

    def _read_refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        """Refuse what another site's page may have asked for.

        Only this machine reaches a loopback address, under a few names. At other addresses the names are not known: a
        name that nobody else can register is enough, and probes and metrics need none."""
        given, scheme, allowed = headers.getlist("host"), scope.get("scheme", "http"), self._hosts
        if hosts.is_allowed_host(given, scheme, allowed):
            return None
        if self._on_loopback(scope) and not self._settings.allow_anonymous:
            port = scope["server"][1]
            if not hosts.is_own_host(given, port, scheme):
                return _forbidden(f"{_NOT_OWN}. {_ALLOW_HOST}")
            for origin in headers.getlist("origin"):
                if not hosts.is_own_origin(origin, port, scheme) and not hosts.is_allowed_origin(origin, allowed):
                    return _forbidden("the request comes from a page of another site (its Origin is not this server)")
            return None
        if is_open(scope["path"]) or scope["path"] == "/metrics" or hosts.is_no_strangers_host(given, scheme):
            return None
        return _forbidden(f"without a token, reads are refused under a name that another site may own. {_ALLOW_HOST}")

    def _on_loopback(self, scope: Scope) -> bool:
        # The socket counts too: a server started in another way may be bound to another address than the settings say.
        server = scope.get("server") or ("", None)
        return self._settings.loopback and is_loopback(server[0])

    def _anonymous_refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        given, scheme = headers.getlist("host"), scope.get("scheme", "http")
        if self._settings.allow_anonymous:
            if hosts.is_no_strangers_host(given, scheme) or hosts.is_allowed_host(given, scheme, self._hosts):
                return None
            return _forbidden(
                f"without a token, changes are refused under a name that another site may own. {_ALLOW_HOST}"
            )
        if not self._on_loopback(scope):
            return _forbidden(
                f"no {variable('api_token')} is set and the server is not bound to a loopback address only, so "
                f"changes are refused. Set {variable('api_token')} and send it as 'Authorization: Bearer …'"
            )
        port = scope["server"][1]
        if not hosts.is_own_host(given, port, scheme):
            return _forbidden(f"{_NOT_OWN}. To change watchers under another name, set {variable('api_token')}")
        if any(not hosts.is_own_origin(origin, port, scheme) for origin in headers.getlist("origin")):
            return _forbidden(
                "the request comes from a page of another site (its Origin is not this server). To allow that, set "
                f"{variable('api_token')} and send it"
            )
        return None


def is_open(path: str) -> bool:
    """Whether a path may be read without a token under all settings."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def allowed(caller: Caller, through: str) -> dict[str, Any]:
    """What the scope of a request holds that the instance `through` has allowed."""
    return {FORWARDED: through, _CALLER: caller}


def caller_of(scope: Scope) -> Caller:
    """Who asks; anonymous where `Authority` has not seen the request."""
    caller: Caller = scope.get(_CALLER) or Caller()
    return caller


def _unknown(what: str, headers: Headers) -> Problem:
    challenge, detail = 'Bearer realm="changewire"', f"{what} need the header 'Authorization: Bearer <token>'"
    if headers.getlist("authorization"):
        challenge += ', error="invalid_token"'
        detail = f"the token is not the one in {variable('api_token')}, nor one of {variable('api_tokens')}"
    return Problem(401, "Unauthorized", detail, kind="unauthorized", headers={"WWW-Authenticate": challenge})


def _forbidden(detail: str) -> Problem:
    return Problem(403, "Forbidden", detail, kind="forbidden")
