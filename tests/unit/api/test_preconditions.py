"""`If-Match` reaches the registry as the revisions that RFC 9110 says it means."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.calls import ORDERS, application, client_of
from tests.unit.api.fake_registry import FakeRegistry


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None), ("*", "any"), ('"7"', {7}), ('"7", "8"', {7, 8}), ('W/"7"', set()), ('W/"7", "9"', {9}),
        ("7", set()), ('"x"', set()), ("", set()), ('"' + "9" * 30 + '"', set()),
    ],
)  # fmt: skip
async def test_if_match_is_read_as_rfc_9110_says(registry: FakeRegistry, header: str | None, expected: Any) -> None:
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
