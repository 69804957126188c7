"""Every instance answers for every watcher: a call that needs the one that runs it is sent there.

A request passes `Forwarding` when it is allowed and its body is read. Where another instance owns the watcher, that one
is asked over NATS (`ports/peers.py`), runs the request through its own application, and its answer is sent as it is.
Ownership may move meanwhile: an instance that does not own the watcher says so, and it is looked again.

What needs no owner is answered here: a stored position, a stream, its messages, the list of dead letters.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth import FORWARDED, OPEN_METHODS, allowed
from app.api.others import READ_SECONDS, Others
from app.api.parameters import SILENCE, Silence
from app.api.problems import MOVED, RETRY_AFTER, Problem, kind_of
from app.config.api_tokens import Caller
from app.control import audit
from app.domain.errors import InstanceSilent, Unavailable
from app.domain.peer_messages import Answer, Ask
from app.ports.peers import Owners

AT_THE_OWNER: Final = frozenset(
    {
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("PUT", "pause"),
        ("PUT", "resume"),
        ("POST", "restart"),
        ("GET", "status"),
        ("GET", "health"),
        ("GET", "lag"),
        ("GET", "history"),
        ("PUT", "token"),
        ("DELETE", "token"),
        ("POST", "snapshot"),
        ("DELETE", "snapshot"),
        ("POST", "dead-letters/{sequence}/replay"),
        ("DELETE", "dead-letters/{sequence}"),
    }
)
"""The calls below `/watchers/{name}` that need the instance that runs the watcher: method and the rest of the path."""
LISTS: Final = frozenset({"/watchers", "/lag"})
"""What is read of each instance, to be put together."""
ANYWHERE: Final = frozenset(
    {
        ("GET", "token"),
        ("GET", "stream"),
        ("GET", "messages"),
        ("GET", "dead-letters"),
        ("GET", "dead-letters/{sequence}"),
    }
)
"""The others: they are read from MongoDB or JetStream."""

CHANGE_SECONDS = 40.0
"""How long a change may take on another instance: it may have to wait until all have followed the one before."""
LOOK_SECONDS = 0.4
"""Between two looks at who owns a watcher that moves. Instances look more often."""
LOOKS = 5
TAKEN_OVER_SECONDS = 6
"""Within so many seconds another instance takes over the watchers of one that is gone."""
_PREFIX = "/watchers/"
_LETTERS = "dead-letters/"
_KEPT_OUT = frozenset({"content-length", "connection", "transfer-encoding"})


class Forwarding:
    """ASGI middleware that has a request answered by the instance that owns the watcher."""

    def __init__(self, app: ASGIApp, owners: Owners, others: Others) -> None:
        self.app = app
        self._owners = owners
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = watcher_of(scope) if scope["type"] == "http" else None
        owner = None if name is None else self._owners.owner(name)
        if FORWARDED in scope and scope["method"] not in OPEN_METHODS:
            audit.note(through=scope[FORWARDED])
        if name is None or (owner is None and (FORWARDED in scope or scope["method"] in OPEN_METHODS)):
            await self.app(scope, receive, send)
        elif FORWARDED in scope:
            await _send(Answer(421, ((MOVED, "1"),)), send)
        elif scope["method"] in OPEN_METHODS:
            await self._read(name, owner, scope, receive, send)
        elif owner is None and not self._owners.others():
            await self.app(scope, receive, send)
        else:
            await self._change(name, scope, receive, send)

    async def _read(self, name: str, owner: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a read from the owner, or from what is known here where it does not answer."""
        ask, looks, silence = self._others.ask_of(scope), 0, None
        while owner is not None and silence is None:
            looks += 1
            try:
                answer = await self._others.ask(owner, ask, seconds=READ_SECONDS)
            except InstanceSilent as error:
                silence = Silence(owner, str(error))
            else:
                if answer.header(MOVED) is None:
                    self._remember(name, scope["path"], answer)
                    await _send(answer, send)
                    return
                if looks == LOOKS:
                    silence = Silence(owner, f"{name} is moving between instances")
                else:
                    await asyncio.sleep(LOOK_SECONDS)
                    owner = self._owners.owner(name)
        await self.app(scope if silence is None else {**scope, SILENCE: silence}, receive, send)

    async def _change(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a change made where the watcher is owned; 503 where that does not answer."""
        message = await receive()
        ask = self._others.ask_of(scope, message.get("body", b""))
        problem, silent = f"{name} is moving between instances; nothing was changed, try again", None
        for look in range(LOOKS):
            if look > 0:
                await asyncio.sleep(LOOK_SECONDS)
            owner = self._owners.owner(name)
            if owner is None:
                if await self._change_here(scope, _again(message, receive), send):
                    return
                continue
            try:
                answer = await self._ask(owner, ask)
            except InstanceSilent as error:
                problem, silent = _unchanged(name, owner, error), owner
                if error.begun:
                    break
            else:
                if answer.header(MOVED) is None:
                    audit.elsewhere()
                    await _send(answer, send)
                    return
        if silent is not None:
            audit.note(instance=silent)
        kind = kind_of(Unavailable)
        refused = Problem(kind.status, kind.title, problem, kind=kind.type, headers=RETRY_AFTER)
        await refused.response()(scope, receive, send)

    async def _change_here(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Make a change in this process; False, with nothing sent, where the watcher turns out not to be owned here."""
        attempt, held = dict(scope), _UnlessMoved(send)
        await self.app(attempt, receive, held)
        if held.moved:
            return False
        scope.update(attempt)  # the route, for the audit log
        return True

    async def _ask(self, owner: str, ask: Ask) -> Answer:
        """Ask for a change, for as long as the owner lives. Raises InstanceSilent."""
        asking = asyncio.create_task(self._others.ask(owner, ask, seconds=CHANGE_SECONDS), name=f"ask:{owner}")
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=LOOK_SECONDS)
                if not asking.done() and owner not in self._owners.others():
                    raise InstanceSilent(f"the instance {owner} is gone", begun=True)
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])

    def _remember(self, name: str, path: str, answer: Answer) -> None:
        """Keep the status in an answer."""
        if answer.status == 200 and path in (f"{_PREFIX}{name}", f"{_PREFIX}{name}/status"):
            found = orjson.loads(answer.body)
            self._others.remember(name, found.get("status", found))


def watcher_of(scope: Scope) -> str | None:
    """Return the watcher that a call is about, where its owner has to answer; else None."""
    path: str = scope["path"]
    if not path.startswith(_PREFIX):
        return None
    name, _, rest = path[len(_PREFIX) :].partition("/")
    if rest.startswith(_LETTERS):
        rest = _LETTERS + "/".join(["{sequence}", *rest[len(_LETTERS) :].split("/")[1:]])
    return name if (scope["method"], rest) in AT_THE_OWNER else None


def answerer(app: ASGIApp) -> Callable[[Ask], Awaitable[Answer]]:
    """Return what answers other instances' requests: the application itself, all of it."""

    async def answer(ask: Ask) -> Answer:
        caller = Caller(ask.caller, ask.role if ask.role in ("read", "write") else None)  # type: ignore[arg-type]
        body: Message = {"type": "http.request", "body": ask.body, "more_body": False}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": ask.method,
            "scheme": "http",
            "path": ask.path,
            "raw_path": quote(ask.path, errors="replace").encode(),
            "query_string": ask.query.encode("latin-1"),
            "root_path": "",
            "headers": [
                *((name.encode("latin-1"), value.encode("latin-1")) for name, value in ask.headers),
                (b"content-length", str(len(ask.body)).encode()),
            ],
            "client": None if ask.remote is None else (ask.remote, 0),
            "server": None,
            **allowed(caller, ask.through),
        }
        if watcher_of(scope) is None and (ask.method, ask.path in LISTS) != ("GET", True):
            return Answer(404)  # only an instance of another version asks that
        sent = _Sent()
        await app(scope, _again(body, _gone), sent)
        return Answer(sent.status, tuple(sent.headers), bytes(sent.body))

    return answer


class _Sent:
    """What an application sends, kept."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            self.headers = [(name, value) for name, value in pairs if name not in _KEPT_OUT]
        else:
            self.body += message.get("body", b"")


class _UnlessMoved:
    """Sends an answer, unless it says that the watcher is not owned here."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.moved = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.moved = any(name == MOVED.encode() for name, _ in message.get("headers", ()))
        if not self.moved:
            await self._send(message)


async def _send(answer: Answer, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    if answer.status == 204:
        headers.pop()
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _again(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives this message first."""
    given = [message]

    async def again() -> Message:
        return given.pop() if given else await receive()

    return again


async def _gone() -> Message:
    return {"type": "http.disconnect"}


def _unchanged(name: str, owner: str, error: InstanceSilent) -> str:
    changed = (
        "it is not known whether the change was made: look at the watcher, then try again"
        if error.begun
        else "nothing was changed, try again"
    )
    return (
        f"{name} runs on the instance {owner}, and {error}; {changed}. If {owner} is gone, another instance takes the "
        f"watcher over within {TAKEN_OVER_SECONDS} seconds"
    )
