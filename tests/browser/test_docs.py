"""The page at `/docs` in a real browser: it needs no network, and its policy refuses nothing that it does."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Site, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_calls_are_shown_and_tried_without_a_network(site: Site, tab: Tab) -> None:
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    page = await tab.open("docs")
    call = page.locator("#operations-probes-livez")
    await expect(page.get_by_role("heading", name="Changewire").first).to_be_visible()
    await call.get_by_role("button").first.click()
    await call.get_by_role("button", name="Try it out").click()
    await call.get_by_role("button", name="Execute").click()
    await expect(call.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert [each for each in asked if not each.startswith((site.url, "data:"))] == []
    assert tab.faults == []


@pytest.mark.long
async def test_colours_are_those_that_were_chosen_for_the_page(tab: Tab) -> None:
    page = await tab.open()
    await page.get_by_label("Colours").select_option("dark")
    await page.get_by_role("link", name="API").click()
    await expect(page.locator("html.dark-mode")).to_have_count(1)
