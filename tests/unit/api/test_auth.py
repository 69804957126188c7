"""Who may change something: the matrix of token, address, Host and Origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.api.auth import Authority
from app.config.settings import Settings
from tests.unit.api.calls import BASE, ORDERS, SECRET, application, client_of, problem
from tests.unit.api.fake_registry import FakeRegistry

LOOPBACK = {"server_addr": "127.0.0.1:8080"}
EVERYWHERE = {"server_addr": ":8080"}
TOKEN = {"api_token": SecretStr(SECRET)}
READS = ["/watchers", "/lag", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/",
         "/assets/app.js"]  # fmt: skip


async def add(settings: dict[str, Any], headers: dict[str, str] | None = None, base: str = BASE) -> httpx.Response:
    async with client_of(application(FakeRegistry(), **settings), base) as client:
        return await client.post("/watchers", json=ORDERS, headers=headers or {})


async def read(
    settings: dict[str, Any], headers: dict[str, str] | None = None, base: str = BASE, paths: Sequence[str] = READS
) -> dict[str, httpx.Response]:
    async with client_of(application(FakeRegistry(), **settings), base) as client:
        return {path: await client.get(path, headers=headers or {}) for path in paths}


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
    async with client_of(application(FakeRegistry(), **TOKEN)) as client:
        problem(await client.post("/watchers", headers=[(b"Authorization", "Bearer ä€".encode())]), 401)


async def test_two_authorizations_are_none() -> None:
    async with client_of(application(FakeRegistry(), **TOKEN)) as client:
        two = [("Authorization", f"Bearer {SECRET}"), ("Authorization", "Bearer x")]
        problem(await client.post("/watchers", json=ORDERS, headers=two), 401)


@pytest.mark.parametrize(
    "base",
    ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", "http://LOCALHOST:8080",
     "http://127.0.0.2:8080"],
)  # fmt: skip
async def test_without_token_own_names_may(base: str) -> None:
    assert (await add(LOOPBACK, base=base)).status_code == 201
    assert {answer.status_code for answer in (await read(LOOPBACK, base=base)).values()} == {200}


@pytest.mark.parametrize(
    "host",
    ["evil.example:8080", "evil.example", "127.0.0.1", "127.0.0.1:8081", "localhost.evil.example:8080", "",
    "127.0.0.1:",
     "localhost:8080:8080", "user@localhost:8080", "[::1]", "[::1]:1", "2130706433:8080"],
)  # fmt: skip
async def test_without_token_a_foreign_host_may_neither_change_nor_read(host: str) -> None:
    assert "Host" in problem(await add(LOOPBACK, {"Host": host}), 403)["detail"]
    for settings in (LOOPBACK, LOOPBACK | TOKEN):
        for answer in (await read(settings, {"Host": host})).values():
            assert "Host" in problem(answer, 403)["detail"]


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"])
async def test_without_token_the_own_page_may(origin: str) -> None:
    assert (await add(LOOPBACK, {"Origin": origin})).status_code == 201


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://localhost:3000", "https://localhost:8080", "null", "", "http://localhost",
    "file://",
     "http://localhost:8080.evil.example", "http://localhost:port", "http://[::1", "chrome-extension://abc"],
)  # fmt: skip
async def test_without_token_a_foreign_page_may_neither_change_nor_read(origin: str) -> None:
    assert "Origin" in problem(await add(LOOPBACK, {"Origin": origin}), 403)["detail"]
    for answer in (await read(LOOPBACK, {"Origin": origin})).values():
        assert "Origin" in problem(answer, 403)["detail"]


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
    refused = await add(settings, {"Host": "any.example:8080"}, "http://10.0.0.1:8080")
    assert "CHANGEWIRE_ALLOWED_HOSTS" in problem(refused, 403)["detail"]
    settings |= {"allowed_hosts": "any.example"}
    assert (await add(settings, {"Host": "any.example:8080"}, "http://10.0.0.1:8080")).status_code == 201


CHANGES = [
    ("POST", "/watchers"), ("PUT", "/watchers/w"), ("DELETE", "/watchers/w"), ("PUT", "/watchers/w/pause"),
    ("PUT", "/watchers/w/resume"), ("POST", "/watchers/w/restart"), ("PUT", "/watchers/w/token"),
    ("DELETE", "/watchers/w/token"), ("POST", "/watchers?dry_run=true"), ("PATCH", "/watchers/w"), ("POST", "/nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_every_changing_call_is_guarded_before_its_body_is_read(method: str, path: str) -> None:
    async with client_of(application(FakeRegistry(), **TOKEN)) as client:
        problem(await client.request(method, path, content=b"{" * 5_000_000), 401)
    async with client_of(application(FakeRegistry(), **EVERYWHERE)) as client:
        problem(await client.request(method, path, content=b"{"), 403)


@pytest.mark.parametrize(
    "host", ["10.0.0.1:8080", "[fd00::1]:80", "changewire:8080", "changewire.shop.svc:8080", "pod.local", "10.0.0.1",
    "changewire.shop.svc.cluster.local", "LOCALHOST:9000", "127.0.0.1:9000"],
)  # fmt: skip
@pytest.mark.parametrize("token", [{}, TOKEN])
async def test_reads_are_open_under_names_that_no_other_site_has(host: str, token: dict[str, Any]) -> None:
    answers = await read(EVERYWHERE | token, {"Host": host}, "http://10.0.0.1:8080")
    assert {answer.status_code for answer in answers.values()} == {200}


@pytest.mark.parametrize("settings", [EVERYWHERE, EVERYWHERE | TOKEN, LOOPBACK | {"allow_anonymous": True}])
@pytest.mark.parametrize("host", ["any.example", "any.example:8080", "10.0.0.1.any.example", "a.svc.any.example", "@"])
async def test_under_a_name_that_another_site_may_have_only_what_probes_and_prometheus_ask_is_open(
    settings: dict[str, Any], host: str
) -> None:
    for path, answer in (await read(settings, {"Host": host}, "http://10.0.0.1:8080")).items():
        if path in ("/watchers", "/lag"):
            assert "CHANGEWIRE_ALLOWED_HOSTS" in problem(answer, 403)["detail"]
        else:
            assert answer.status_code == 200
    if "api_token" in settings:
        with_token = {"Host": host, "Authorization": f"Bearer {SECRET}"}
        answers = await read(settings, with_token, "http://10.0.0.1:8080")
        assert {answer.status_code for answer in answers.values()} == {200}


@pytest.mark.parametrize(
    ("allowed", "host", "may"),
    [
        ("cw.example.com", "cw.example.com", True), ("cw.example.com", "CW.example.com:8443", True),
        ("cw.example.com:8443", "cw.example.com:8443", True), ("cw.example.com:8443", "cw.example.com", False),
        ("a.example, *.example.com", "x.y.example.com:80", True), ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False), ("*", "any.example", True), ("cw.example.com", "x.example", False),
        ("localhost:9999", "localhost:9999", True), ("[::1]:9999", "[::1]:9999", True), ("*", "", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("address", [LOOPBACK, EVERYWHERE])
async def test_allowed_hosts_may_read_and_on_a_loopback_address_not_change(
    address: dict[str, Any], allowed: str, host: str, may: bool
) -> None:
    settings = address | {"allowed_hosts": allowed}
    headers = {"Host": host, "Origin": f"https://{host}"} if may else {"Host": host}
    (answer,) = (await read(settings, headers, paths=["/watchers"])).values()
    assert answer.status_code == (200 if may else 403)
    problem(await add(settings, {"Host": host}), 403)


async def test_two_hosts_are_none() -> None:
    async with client_of(application(FakeRegistry(), **EVERYWHERE)) as client:
        two = [("Host", "localhost:8080"), ("Host", "localhost:8080")]
        problem(await client.get("/watchers", headers=two), 403)


@pytest.mark.parametrize("text", ["a b", "http://x", "*example.com", "x:port", "a,,b/c", "*.*.x"])
def test_an_allowed_host_that_is_none_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="not a host such as"):
        Settings(allowed_hosts=text)


def application_settings() -> Settings:
    return Settings(server_addr=LOOPBACK["server_addr"])


async def _unreachable(*_: Any) -> Any:
    raise AssertionError("must not be called")
