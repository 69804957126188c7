"""The list of watchers: trouble first, searched, filtered and sorted, a thousand of them too, and actions in place."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect
from playwright.async_api import TimeoutError as PatienceError

from bench.open_pages import draws
from tests.browser.conftest import Site, Tab
from tests.browser.test_page_for_all import complaints

pytestmark = pytest.mark.asyncio(loop_scope="session")


FILLED = """where => {
  scrollTo(0, where);
  const table = document.querySelector("[role=rowgroup].body").getBoundingClientRect();
  const rows = [...document.querySelectorAll("[role=row].row")];
  const [first, last] = [rows.at(0), rows.at(-1)].map(each => each.getBoundingClientRect());
  if (first.top > Math.max(table.top, 0) + 1 || last.bottom < Math.min(table.bottom, innerHeight) - 1) return null;
  return [rows.map(each => each.querySelector(".name").textContent), scrollY < where];
}"""
"""Scrolls to this place. Once rows fill what is to be seen of the table: the names of those that are drawn, and whether
the page ends before it."""


async def drawn_in(page: Page, where: int) -> tuple[list[str], bool] | None:
    """The same; None where the browser has stopped drawing, which is nothing of the page's own."""
    try:
        found = await page.wait_for_function(FILLED, arg=where, polling=20)
    except PatienceError:
        if await draws(page):
            raise
        return None
    drawn, over = await found.json_value()
    return drawn, over


async def names(page: Page) -> list[str]:
    return await page.locator("[role=rowheader] .name").all_inner_texts()


async def with_many(site: Site, tab: Tab, many: int) -> None:
    """Have the page see this many watchers: one that runs, told again under other names. `w0042` is FAILED, `w0043` is
    PAUSED, and `w0007` publishes most."""
    await site.add("w0000")
    lags: dict[str, Any] = {}

    def told(model: dict[str, Any], number: int) -> dict[str, Any]:
        state = {42: "FAILED", 43: "PAUSED"}.get(number, "RUNNING")
        rate = 5000.0 if number == 7 else float(number % 3)
        more = {
            "state": state,
            "reason": "the oplog is gone" if number == 42 else None,
            "rates": {"last_10s": rate, "last_60s": rate},
        }
        return model | {"name": f"w{number:04d}", "status": model["status"] | more}

    async def answer(route: Route) -> None:
        found = await (await route.fetch()).json()
        if isinstance(found, list):
            await route.fulfill(json=[told(found[0], number) for number in range(many)])
        else:
            await route.fulfill(
                json={f"w{number:04d}": found["w0000"] for number in range(many)} if "w0000" in found else lags
            )

    await tab.page.context.route(re.compile(r"/(watchers|lag)$"), answer)


@pytest.mark.long
async def test_what_is_in_trouble_is_first_and_the_rest_is_found_by_search_filter_and_sorting(
    site: Site, tab: Tab
) -> None:
    await with_many(site, tab, 60)
    page = await tab.open()
    rows = page.locator("[role=row].row")
    await expect(rows).to_have_count(60)
    assert (await names(page))[:3] == ["w0042", "w0043", "w0000"]
    await expect(rows.first).to_contain_text("the oplog is gone")
    states = page.get_by_role("toolbar", name="State")
    await expect(states).to_contain_text("All 60 In trouble 1Failed 1Paused 1Running 58")

    await states.get_by_role("button", name="In trouble").click()
    await expect(rows).to_have_count(1)
    await expect(rows.first).to_contain_text("w0042")
    await states.get_by_role("button", name="All").click()
    await page.get_by_role("columnheader", name="Events/s").get_by_role("button").click()
    await expect(page.get_by_role("columnheader", name="Events/s")).to_have_attribute("aria-sort", "descending")
    assert (await names(page))[0] == "w0007"
    await page.get_by_role("searchbox").fill("w004 running")
    await expect(rows).to_have_count(8)

    address = page.url
    await page.reload()  # what was asked for is in the address
    await expect(rows).to_have_count(8)
    assert page.url == address
    await page.get_by_role("searchbox").fill("nothing like it")
    await page.get_by_role("button", name="Show all").click()
    await expect(rows).to_have_count(60)
    await page.context.unroute_all(behavior="ignoreErrors")
    assert tab.faults == []


async def listed(tab: Tab, width: int) -> Page:
    """The list of a thousand, by name, from its beginning."""
    await tab.page.set_viewport_size({"width": width, "height": 900})
    page = await tab.open("#/?sort=name")
    await expect(page.get_by_role("table", name="Watchers")).to_have_attribute("aria-rowcount", "1001")
    await expect(page.locator("[role=row].row").first).to_contain_text("w0000")
    return page


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280])
async def test_of_a_thousand_watchers_those_in_sight_are_drawn_and_all_can_be_reached(
    site: Site, tab: Tab, width: int
) -> None:
    await with_many(site, tab, 1000)
    seen: set[str] = set()
    where, over, page = 0, False, await listed(tab, width)
    while not over:
        found = await drawn_in(page, where)
        if found is None:
            page = await listed(await tab.new(), width)
            continue
        drawn, over = found
        assert len(drawn) < 100
        seen.update(drawn)
        where += 700
    assert sorted(seen) == [f"w{number:04d}" for number in range(1000)]
    last = page.get_by_role("row", name="w0999")
    await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    await expect(last).to_be_in_viewport()
    await expect(last).to_have_attribute("aria-rowindex", "1001")
    assert await complaints(page) == []
    await page.context.unroute_all(behavior="ignoreErrors")
    assert tab.faults == []


async def test_a_watcher_is_paused_resumed_and_removed_in_its_row(site: Site, tab: Tab) -> None:
    for name in ("orders", "invoices"):
        await site.add(name)
    page = await tab.open()
    row = page.get_by_role("row", name="orders")
    await row.get_by_role("button", name="Pause orders…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    await expect(row.locator(".state")).to_have_text("PAUSED")
    await row.get_by_role("button", name="Resume orders…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(row.locator(".state")).to_have_text("RUNNING")
    more = row.get_by_role("button", name="More for orders")
    await more.click()
    await expect(page.get_by_role("menu", name="More for orders").get_by_role("menuitem")).to_have_count(6)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("menu")).to_have_count(0)
    await more.click()
    await page.get_by_role("menuitem", name="Remove…").click()
    dialog = page.get_by_role("dialog", name="Remove orders?")
    await dialog.get_by_label("delete it").check()  # a position that is kept would outlive the stream
    await dialog.get_by_role("button", name="Remove").click()
    await expect(row).to_have_count(0)
    await expect(page.get_by_role("row", name="invoices")).to_be_visible()
    assert tab.faults == []
