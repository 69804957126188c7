"""The page at `/` in a real browser, on the real service: what it shows, and that it stays true."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Site, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_watchers_are_listed_and_follow_what_happens(site: Site, tab: Tab) -> None:
    await site.add("orders")
    page = await tab.open()
    row = page.get_by_role("row", name="orders")
    await expect(row.locator(".state")).to_have_text("RUNNING")
    await expect(row.locator(".published")).to_have_text("0")
    await site.insert("orders", {"_id": 1}, {"_id": 2})
    await expect(row.locator(".published")).to_have_text("2")
    await expect(row.locator(".rate")).not_to_have_text("0")
    await site.add("invoices")
    await expect(page.get_by_role("row", name="invoices").locator(".state")).to_have_text("RUNNING")
    assert tab.faults == []
