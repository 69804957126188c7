"""Who may change something: the matrix of token, address, Host and Origin."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.api.auth import Authority
from app.settings import Settings
from tests.unit.test_api import BASE, ORDERS, SECRET, StandIn, application, client_of, problem

LOOPBACK = {"server_addr": "127.0.0.1:8080"}
EVERYWHERE = {"server_addr": ":8080"}
TOKEN = {"api_token": SecretStr(SECRET)}


async def add(settings: dict[str, Any], headers: dict[str, str] | None = None, base: str = BASE) -> httpx.Response:
    async with client_of(application(StandIn(), **settings), base) as client:
        return await client.post("/watchers", json=ORDERS, headers=headers or {})


@pytest.mark.parametrize("address", [LOOPBACK, EVERYWHERE])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_right_token_may(address: dict[str, Any], scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {SECRET}", "Host": "any.example", "Origin": "https://any.example"}
    assert (await add(address | TOKEN, headers)).status_code == 201


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {SECRET}",
        SECRET,
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[:-1]}",
    ],
)
async def test_no_or_wrong_token_may_not_wherever_it_comes_from(authorization: str | None, anonymous: bool) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await add(LOOPBACK | TOKEN | {"allow_anonymous": anonymous}, headers)
    problem(answer, 401)
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="changewire"')
    assert ("invalid_token" in challenge) == (authorization is not None)


async def test_non_ascii_token_is_just_wrong() -> None:
    async with client_of(application(StandIn(), **TOKEN)) as client:
        problem(await client.post("/watchers", headers=[(b"Authorization", "Bearer ä€".encode())]), 401)


async def test_two_authorizations_are_none() -> None:
    async with client_of(application(StandIn(), **TOKEN)) as client:
        two = [("Authorization", f"Bearer {SECRET}"), ("Authorization", "Bearer x")]
        problem(await client.post("/watchers", json=ORDERS, headers=two), 401)


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", "http://LOCALHOST:8080"]
)
async def test_without_token_own_names_may(base: str) -> None:
    assert (await add(LOOPBACK, base=base)).status_code == 201


@pytest.mark.parametrize(
    "host",
    ["evil.example:8080", "evil.example", "127.0.0.1", "127.0.0.1:8081", "localhost.evil.example:8080", "",
    "127.0.0.1:",
     "localhost:8080:8080", "user@localhost:8080", "[::1]", "[::1]:1", "2130706433:8080"],
)  # fmt: skip
async def test_without_token_a_foreign_host_may_not(host: str) -> None:
    assert "Host" in problem(await add(LOOPBACK, {"Host": host}), 403)["detail"]


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"])
async def test_without_token_the_own_page_may(origin: str) -> None:
    assert (await add(LOOPBACK, {"Origin": origin})).status_code == 201


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://localhost:3000", "https://localhost:8080", "null", "", "http://localhost",
    "file://",
     "http://localhost:8080.evil.example", "http://localhost:port", "http://[::1", "chrome-extension://abc"],
)  # fmt: skip
async def test_without_token_a_foreign_page_may_not(origin: str) -> None:
    assert "Origin" in problem(await add(LOOPBACK, {"Origin": origin}), 403)["detail"]


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
async def test_default_port_may_be_left_out(scheme: str, port: int) -> None:
    reached: list[Any] = []

    async def reach(scope: Any, *_: Any) -> None:
        reached.append(scope)

    headers = [(b"host", b"localhost"), (b"origin", f"{scheme}://localhost".encode())]
    scope = {"type": "http", "method": "POST", "headers": headers, "server": ("127.0.0.1", port), "scheme": scheme}
    await Authority(reach, application_settings())(scope, _unreachable, _unreachable)
    assert reached == [scope]


@pytest.mark.parametrize("settings", [EVERYWHERE, {"server_addr": "0.0.0.0:8080"}, {"server_addr": "10.0.0.1:8080"}])
async def test_without_token_nobody_may_where_others_reach_the_server(settings: dict[str, Any]) -> None:
    assert "CHANGEWIRE_API_TOKEN" in problem(await add(settings), 403)["detail"]


async def test_what_the_socket_says_counts_too() -> None:
    problem(await add(LOOPBACK, {"Host": "127.0.0.1:8080"}, "http://10.0.0.1:8080"), 403)


async def test_socket_without_an_address_is_no_loopback() -> None:
    authority = Authority(_unreachable, application_settings())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    for server in (None, ("/run/changewire.sock", None)):
        await authority({"type": "http", "method": "POST", "headers": [], "server": server}, _unreachable, send)
    assert [each["status"] for each in sent if "status" in each] == [403, 403]


async def test_anonymous_may_where_it_is_allowed() -> None:
    settings = EVERYWHERE | {"allow_anonymous": True}
    assert (await add(settings, {"Host": "x", "Origin": "http://y"}, "http://10.0.0.1:8080")).status_code == 201


CHANGES = [
    ("POST", "/watchers"), ("PUT", "/watchers/w"), ("DELETE", "/watchers/w"), ("PUT", "/watchers/w/pause"),
    ("PUT", "/watchers/w/resume"), ("POST", "/watchers/w/restart"), ("PUT", "/watchers/w/token"),
    ("DELETE", "/watchers/w/token"), ("POST", "/watchers?dry_run=true"), ("PATCH", "/watchers/w"), ("POST", "/nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_every_changing_call_is_guarded_before_its_body_is_read(method: str, path: str) -> None:
    async with client_of(application(StandIn(), **TOKEN)) as client:
        problem(await client.request(method, path, content=b"{" * 5_000_000), 401)
    async with client_of(application(StandIn(), **EVERYWHERE)) as client:
        problem(await client.request(method, path, content=b"{"), 403)


@pytest.mark.parametrize(
    "path", ["/watchers", "/lag", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"]
)
async def test_reads_and_probes_are_open(path: str) -> None:
    async with client_of(application(StandIn(), **EVERYWHERE, **TOKEN), "http://10.0.0.1:8080") as client:
        assert (await client.get(path, headers={"Host": "any.example"})).status_code == 200


def application_settings() -> Settings:
    return Settings(server_addr=LOOPBACK["server_addr"])


async def _unreachable(*_: Any) -> Any:
    raise AssertionError("must not be called")
