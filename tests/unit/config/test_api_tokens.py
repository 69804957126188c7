"""Named tokens and their roles: how they are written, who may do what with them, and what the log keeps of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.api.middleware.audit_log import REFUSALS
from app.config.api_tokens import Token, clash, find, parse
from app.config.settings import SettingsError, load
from app.domain.namespaces import Namespaces
from tests.unit.api.test_api import JSON, ORDERS, SECRET, StandIn, application, client_of, problem

READ, WRITE = "r" * 20, "w" * 20
TOKENS = {"api_tokens": SecretStr(f"viewer:read:{READ},deploy:write:{WRITE}")}
CLOSED = TOKENS | {"reads_need_token": True}
READS = [
    "/watchers", "/watchers/orders", "/watchers/orders/status", "/watchers/orders/health", "/watchers/orders/lag",
    "/watchers/orders/token", "/lag", "/metrics", "/nowhere",
]  # fmt: skip
OPEN = ["/healthz", "/livez", "/readyz", "/docs", "/openapi.json", "/"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def audits(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["event"] == "audit"]


def test_tokens_are_read_from_commas_and_lines() -> None:
    text = f"# for the dashboards\nviewer:read:{READ}\n\n deploy:write:{WRITE}, third:read:a:b:{READ}\n"
    assert parse(text) == (
        Token("viewer", "read", READ), Token("deploy", "write", WRITE), Token("third", "read", f"a:b:{READ}"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SECRET, "entry 1 is not name:role:token"),
        (f"a:read:{READ},{SECRET}", "entry 2 is not name:role:token"),
        (f"a:{SECRET}", "entry 1 is not name:role:token"),
        (f"a:{SECRET}:read", "neither read nor write"),
        (f"{SECRET}+/=:read:{READ}", "has a name that is not"),
        (f"anonymous:read:{READ}", "named anonymous"),
        ("a:read:short", "less than 16 characters"),
        (f"a:read:{SECRET} {SECRET}", "without spaces"),
        (f"a:read:{SECRET}é{SECRET}", "printable ASCII"),
        ("# nothing", "holds no name:role:token"),
        (f"a:read:{READ},a:write:{WRITE}", "two tokens are named a"),
        (f"a:read:{READ},b:write:{READ}", "a and b have the same token"),
        (f"api:read:{READ}", "two tokens are named api"),
    ],
)
def test_tokens_that_cannot_be_used_are_told_by_their_place_and_never_shown(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(environ={"CHANGEWIRE_API_TOKENS": text, "CHANGEWIRE_API_TOKEN": f"{SECRET}{SECRET}"})
    assert said in str(error.value)
    assert "CHANGEWIRE_API_TOKENS" in str(error.value)
    assert SECRET not in str(error.value)
    assert READ not in str(error.value)


def test_every_token_is_a_secret_of_the_log() -> None:
    settings = load(environ={"CHANGEWIRE_API_TOKENS": f"a:read:{READ},b:write:{WRITE}", "CHANGEWIRE_API_TOKEN": SECRET})
    assert settings.secrets == (SECRET, READ, WRITE)
    assert not {SECRET, READ, WRITE} & set(repr(settings).replace("'", " ").split())
    assert READ not in repr(settings.tokens)


def test_a_name_is_said_though_it_is_the_same_for_all() -> None:
    assert clash([Token("a", "read", READ), Token("b", "read", WRITE)]) is None


def test_the_last_and_the_first_token_are_found_and_half_of_one_is_not() -> None:
    tokens = parse(f"a:read:{READ},b:write:{WRITE}")
    assert [find(tokens, each.secret.encode()) for each in tokens] == list(tokens)
    assert find(tokens, WRITE[:-1].encode()) is None
    assert find(tokens, b"") is None
    assert find((), b"") is None


def test_reads_cannot_be_closed_without_a_key() -> None:
    with pytest.raises(SettingsError, match="CHANGEWIRE_READS_NEED_TOKEN is true and there is no token"):
        load(environ={"CHANGEWIRE_READS_NEED_TOKEN": "true"})


def test_tokens_that_only_read_are_warned_about() -> None:
    warnings = load(environ={"CHANGEWIRE_API_TOKENS": f"a:read:{READ}", "CHANGEWIRE_ALLOW_ANONYMOUS": "1"}).warnings
    assert "CHANGEWIRE_ALLOW_ANONYMOUS has no effect where CHANGEWIRE_API_TOKENS is set" in warnings
    assert any("nothing can be changed over HTTP" in each for each in warnings)


async def test_roles(registry: StandIn) -> None:
    async with client_of(application(registry, **TOKENS)) as client:
        refused = problem(await client.post("/watchers", json=ORDERS, headers=bearer(READ)), 403)
        assert "viewer has the role read" in refused["detail"]
        assert "www-authenticate" in (await client.post("/watchers", json=ORDERS)).headers
        problem(await client.post("/watchers", json=ORDERS, headers=bearer(WRITE[:-1])), 401)
        assert registry.views == {}
        assert (await client.post("/watchers", json=ORDERS, headers=bearer(WRITE))).status_code == 201
        for headers in ({}, bearer(READ), bearer(WRITE), bearer("nobody's")):  # reads are open
            assert (await client.get("/watchers/orders", headers=headers)).status_code == 200


async def test_the_one_token_goes_on_to_work_beside_the_named_ones(registry: StandIn) -> None:
    async with client_of(application(registry, **TOKENS, api_token=SecretStr(SECRET))) as client:
        for token in (SECRET, WRITE):
            assert (await client.put("/watchers/orders", json=ORDERS, headers=bearer(token))).is_success


@pytest.mark.parametrize("path", READS)
async def test_closed_reads_need_a_token_of_any_role(registry: StandIn, path: str) -> None:
    async with client_of(application(registry, **CLOSED)) as client:
        for method in ("GET", "HEAD"):
            for headers in ({}, bearer("nobody's"), {"Authorization": f"Basic {READ}"}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for token in (READ, WRITE):
            assert (await client.get(path, headers=bearer(token))).status_code in (200, 404)


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_what_is_the_same_everywhere_stay_open(registry: StandIn, path: str) -> None:
    async with client_of(application(registry, **CLOSED)) as client:
        assert (await client.get(path)).status_code in (200, 307)


@pytest.mark.parametrize("path", ["//healthz", "/healthz/", "/healthz/../watchers", "/docs/../watchers", "/LIVEZ"])
async def test_closed_reads_have_no_way_round(registry: StandIn, path: str) -> None:
    async with client_of(application(registry, **CLOSED)) as client:
        request = client.build_request("GET", "/")
        request.url = httpx.URL("http://127.0.0.1:8080").copy_with(raw_path=path.encode())
        assert (await client.send(request)).status_code == 401


async def test_each_change_leaves_one_line_that_names_who_and_what(registry: StandIn) -> None:
    async with client_of(application(registry, **TOKENS)) as client:
        with capture_logs() as logs:
            await client.post("/watchers", json=ORDERS, headers=bearer(WRITE))
            await client.put("/watchers/orders/pause", headers=bearer(WRITE))
            await client.delete("/watchers/absent", headers=bearer(WRITE))
            await client.post("/watchers", content=b"{", headers=bearer(WRITE) | JSON)
            await client.put("/watchers/orders/pause", headers=bearer(READ))
            await client.put("/watchers/orders/pause", headers=bearer("nobody's"))
            await client.get("/watchers/orders", headers=bearer(READ))
    lines = [(one["who"], one["role"], one["action"], one["status"], one["outcome"]) for one in audits(logs)]
    assert lines == [
        ("deploy", "write", "add_watcher", 201, "done"),
        ("deploy", "write", "pause_watcher", 202, "done"),
        ("deploy", "write", "remove_watcher", 404, "failed"),
        ("deploy", "write", "add_watcher", 400, "failed"),
        ("viewer", "read", None, 403, "refused"),
        ("anonymous", None, None, 401, "refused"),
    ]
    assert [one["watcher"] for one in audits(logs)] == [None, "orders", "absent", None, None, None]
    assert all(one["remote"] == "127.0.0.1" for one in audits(logs))
    assert audits(logs)[4]["path"] == "/watchers/orders/pause"
    assert not any(token in str(logs) for token in (READ, WRITE))


async def test_what_is_asked_for_cannot_pretend_to_be_another_line(registry: StandIn) -> None:
    async with client_of(application(registry)) as client:
        with capture_logs() as logs:
            await client.put("/watchers/a%0Afake/pause")
            await client.put("/fake%0D%0A")
    assert [one["path"] for one in audits(logs)] == [r"/watchers/a\u000afake/pause", r"/fake\u000d\u000a"]
    assert audits(logs)[0]["watcher"] == r"a\u000afake"


async def test_a_change_that_ends_in_an_error_of_ours_leaves_a_line_too(registry: StandIn) -> None:
    registry.failure = RuntimeError("broken")
    async with client_of(application(registry, **TOKENS)) as client:
        with capture_logs() as logs:
            await client.put("/watchers/orders/pause", headers=bearer(WRITE))
    assert [(one["status"], one["outcome"]) for one in audits(logs)] == [(500, "failed")]


async def test_who_guesses_tokens_does_not_fill_the_log(registry: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("app.api.middleware.audit_log.time.monotonic", lambda: now[0])
    async with client_of(application(registry, **CLOSED)) as client:
        with capture_logs() as logs:
            for _ in range(REFUSALS + 7):
                await client.get("/watchers", headers=bearer("guess"))
            await client.post("/watchers", json=ORDERS, headers=bearer(WRITE))
            now[0] = 60.0
            await client.post("/watchers", headers=bearer("guess"))
    refused = [one for one in audits(logs) if one["outcome"] == "refused"]
    assert len(refused) == REFUSALS + 1
    assert refused[-1]["unsaid"] == 7
    assert len(audits(logs)) == REFUSALS + 2, "what is allowed is always said"


async def test_answers_carry_what_keeps_a_browser_out(registry: StandIn) -> None:
    registry.failure = RuntimeError("broken")
    async with client_of(application(registry, **TOKENS)) as client:
        for answer in (
            await client.get("/watchers"), await client.get("/metrics"), await client.get("/nowhere"),
            await client.post("/watchers"), await client.get("/watchers/orders"), await client.get("/openapi.json"),
        ):  # fmt: skip
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        page = await client.get("/docs")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "content-security-policy" not in page.headers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None), ("*", "any"), ('"7"', {7}), ('"7", "8"', {7, 8}), ('W/"7"', set()), ('W/"7", "9"', {9}),
        ("7", set()), ('"x"', set()), ("", set()), ('"' + "9" * 30 + '"', set()),
    ],
)  # fmt: skip
async def test_if_match_is_read_as_rfc_9110_says(registry: StandIn, header: str | None, expected: Any) -> None:
    async with client_of(application(registry)) as client:
        await client.post("/watchers", json=ORDERS)
        headers = {} if header is None else {"If-Match": header}
        for method, path in (
            ("PUT", "/watchers/orders/pause"), ("PUT", "/watchers/orders/resume"), ("POST", "/watchers/orders/restart"),
            ("PUT", "/watchers/orders"), ("DELETE", "/watchers/orders"),
        ):  # fmt: skip
            body: dict[str, Any] = {"json": ORDERS} if path.endswith("/orders") and method == "PUT" else {}
            assert (await client.request(method, path, headers=headers, **body)).is_success
    assert registry.expected == [expected] * 5


@pytest.mark.parametrize(
    ("patterns", "database", "collection", "field"),
    [
        ("shop.*", "shop", "orders", None),
        ("shop.*", "shop", "a.b", None),
        ("shop.*", "shopping", "orders", "source.database"),
        ("shop.*", "Shop", "orders", "source.database"),
        ("shop.*,crm.contacts", "crm", "contacts", None),
        ("shop.*,crm.contacts", "crm", "contacts2", "source.collection"),
        ("shop.*,crm.contacts", "crm", "", "source.collection"),
        ("sh?p.a+", "shop", "aa", "source.database"),
        ("tenant-*.orders", "tenant-7", "orders", None),
        ("tenant-*.orders", "tenant-7", "orders\nx", "source.collection"),
        ("*.*", "any", "thing", None),
    ],
)
def test_namespaces(patterns: str, database: str, collection: str, field: str | None) -> None:
    found = Namespaces.parse(patterns).problems(database, collection, "source")
    assert [each.field for each in found] == ([] if field is None else [field])


@pytest.mark.parametrize("text", ["shop", ".orders", "shop.", "shop.*,crm", ","])
def test_namespaces_that_cannot_be_are_told(text: str) -> None:
    with pytest.raises(SettingsError, match="CHANGEWIRE_NAMESPACES="):
        load(environ={"CHANGEWIRE_NAMESPACES": text})


@pytest.fixture
def registry() -> StandIn:
    return StandIn()
