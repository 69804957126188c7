"""The page in bad times and for everybody: outages, the token, keyboard, narrow screens, screen readers, colours."""

from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import TOKEN, Site, Tab
from tests.service import Service, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]
TABS = ("messages", "consumers", "dead-letters", "history", "settings")


async def complaints(page: Page) -> list[str]:
    """What axe calls serious or critical."""
    options = {"resultTypes": ["violations"]}
    known = await page.evaluate("typeof axe !== 'undefined'")  # half a megabyte, which need not be read for each view
    found: dict[str, Any] = (await Axe("" if known else AXE_SCRIPT).run(page, options=options)).response
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


async def told_once(page: Page, text: str) -> bool:
    return (await page.locator("main").inner_text()).count(text) == 1


async def test_outage_of_nats_is_in_plain_sight_and_goes_when_it_is_mended(site: Site, tab: Tab) -> None:
    name = await site.add("orders")
    page = await tab.open(f"#/watchers/{name}")
    nats = page.get_by_role("list", name="Health").get_by_role("listitem").filter(has_text="nats")
    await expect(nats).to_contain_text("UP")
    await site.nats.stop()
    try:
        await site.insert(name, {"_id": "meanwhile"})
        outage = page.locator(".outage").filter(has_text="NATS is down.")
        await expect(outage).to_contain_text("NATS")
        await expect(outage).to_contain_text("connection refused")
        await expect(nats).to_contain_text("DOWN")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("RETRYING")
        await page.get_by_role("link", name="Consumers").click()
        await expect(page.get_by_role("region", name="Consumers")).to_contain_text("Not available until")
        await page.get_by_role("link", name="Messages").click()
        await expect(page.get_by_role("region", name="Messages")).to_contain_text("Not available until")
        await until(lambda: told_once(page, "connection refused"), "it is told once")
        await page.get_by_role("navigation", name="Page").get_by_role("link", name="Watchers").click()
        await expect(page.get_by_role("row", name="orders")).to_contain_text("RETRYING")
        await until(lambda: told_once(page, "connection refused"), "it is told once")
        await site.shoot(page, "outage")
        await page.get_by_role("link", name="orders", exact=True).click()
        await page.get_by_role("link", name="Messages").click()
    finally:
        await site.nats.start()
    await expect(nats).to_contain_text("UP")
    await expect(page.locator(".outage")).to_have_count(0)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("RUNNING")
    await site.insert(name, {"_id": "after"})
    await expect(page.get_by_role("list", name="Messages, newest first")).to_contain_text("after")
    assert tab.faults == []


async def test_service_that_does_not_answer_is_said_and_what_was_known_stays(site: Site, tab: Tab) -> None:
    await site.add("orders")
    page = await tab.open()
    await expect(page.get_by_role("row", name="orders")).to_contain_text("RUNNING")
    await page.route("**/*", lambda route: route.abort())
    await expect(page.get_by_role("status")).to_contain_text("Changewire does not answer")
    await expect(page.get_by_role("row", name="orders")).to_contain_text("RUNNING")
    await page.unroute("**/*")
    await expect(page.get_by_role("status")).not_to_contain_text("Changewire does not answer")


async def test_outage_is_said_though_other_answers_hang(site: Site, tab: Tab) -> None:
    quoted = {"status": "UP", "warnings": ["others take the watchers: no <b>primary</b>", "the oplog is short"]}
    mongo = {"status": "DOWN", "reason": "no <b>primary</b>"}
    down = {"status": "DOWN", "components": {"mongo": mongo, "watchers": quoted}}
    await tab.page.route("**/lag", lambda _: None)
    await tab.page.route("**/watchers", lambda _: None)
    await tab.page.route("**/healthz", lambda route: route.fulfill(status=503, json=down))
    page = await tab.open()
    said = page.get_by_role("status")
    await expect(said).to_contain_text("MongoDB is down. no <b>primary</b>")
    await expect(said).to_contain_text("the oplog is short")
    assert (await said.inner_text()).count("primary") == 1


async def test_token_is_asked_for_kept_for_the_tab_alone_and_asked_again_when_wrong(
    site: Site, guarded: Service, context: BrowserContext
) -> None:
    url = f"http://127.0.0.1:{guarded.port}/"
    page = await context.new_page()
    await page.goto(url + "#/add")
    source = {"source.database": site.stage.database, "source.collection": "orders"}
    for field, text in {"name": "orders", **source}.items():
        await page.locator(f"[id='field-{field}']").fill(text)
    await page.get_by_role("button", name="Add", exact=True).click()
    dialog = page.get_by_role("dialog", name="API token")
    await expect(dialog).to_contain_text("Authorization: Bearer")
    await dialog.get_by_label("Token").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(dialog).to_contain_text("is not the one")
    await site.shoot(page, "token", 640)
    await dialog.get_by_label("Token").fill(TOKEN)
    await dialog.get_by_role("button", name="Use it").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("orders")
    await page.reload()
    await page.get_by_role("button", name="More for orders").click()
    await page.get_by_role("menuitem", name="Remove…").click()
    await page.get_by_label("delete it").check()  # a position that is kept would outlive the stream
    await page.get_by_role("dialog").get_by_role("button", name="Remove", exact=True).click()
    await expect(page.get_by_text("There are no watchers yet")).to_be_visible()
    assert TOKEN not in await page.content()
    assert await page.evaluate("JSON.stringify([localStorage, document.cookie])") == '[{},""]'

    other = await context.new_page()
    await other.goto(url)
    assert await other.evaluate("sessionStorage.length") == 0
    await page.get_by_role("button", name="Forget the token").click()
    assert await page.evaluate("sessionStorage.length") == 0


async def tabbed_to(page: Page, wanted: Locator) -> None:
    """Press Tab until it has the focus."""
    for _ in range(30):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("each => each === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


async def test_all_of_it_can_be_done_by_keyboard(site: Site, tab: Tab) -> None:
    await site.add("orders")
    page = await tab.open()
    row = page.get_by_role("row", name="orders")
    await expect(row).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("/")
    search = page.get_by_role("searchbox", name="Search the watchers")
    await expect(search).to_be_focused()
    await page.keyboard.type("ord")
    await tabbed_to(page, row.get_by_role("link"))
    await page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Pause…")
    await expect(button).to_be_visible()
    await tabbed_to(page, button)
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Pause orders?")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(button).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(dialog.get_by_role("button", name="Pause")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("PAUSED")
    more = page.get_by_role("button", name="More for orders")
    await tabbed_to(page, more)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("menuitem").first).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(page.get_by_role("menuitem", name="Remove…")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("menu")).to_have_count(0)
    await expect(more).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("menuitem").first).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("menuitem", name="Edit")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("From MongoDB")).to_be_visible()
    assert tab.faults == []


async def test_nothing_is_cut_off_on_a_narrow_screen(site: Site, tab: Tab) -> None:
    name = await site.add("a-watcher-with-quite-a-long-name-of-the-kind-that-real-ones-have")
    await tab.page.set_viewport_size({"width": 320, "height": 640})
    tabs = [f"#/watchers/{name}{tab}" for tab in ("", *(f"/{each}" for each in TABS))]
    for where in ("", "#/add", "#/instances", *tabs):
        page = await tab.open(where)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await expect(page.get_by_role("list", name="Health")).to_contain_text("nats")
        wide = await page.evaluate(
            "[...document.body.querySelectorAll('*')].filter(each => each.getBoundingClientRect().right > 320)"
            ".map(each => `${each.tagName}.${each.className} ${each.textContent.slice(0, 40)}`)"
        )
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320, (where, wide)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious_in_any_view(site: Site, tab: Tab, theme: str) -> None:
    for name in ("orders", "invoices"):
        await site.add(name)
        await site.insert(name, *({"_id": f"{name}-{number}", "total": number} for number in range(5)))
    await site.service.call("PUT", "/watchers/invoices/pause", status=202)
    page = await tab.open()
    await page.get_by_label("Colours").select_option(theme)
    assert await page.evaluate("document.documentElement.dataset.theme") == theme
    await expect(page.get_by_role("row", name="invoices")).to_contain_text("PAUSED")
    found = await complaints(page)

    await page.get_by_role("link", name="orders", exact=True).click()
    await expect(page.get_by_role("region", name="Position")).to_contain_text("82")
    found += await complaints(page)
    for button in ("Rewind…", "Take a snapshot…", "More for orders"):
        await page.get_by_role("button", name=button, exact=True).click()
        found += await complaints(page)
        await page.keyboard.press("Escape")
    await page.get_by_role("button", name="More for orders").click()
    await page.get_by_role("menuitem", name="Remove…").click()
    found += await complaints(page)
    await page.keyboard.press("Escape")
    for name in ("Messages", "Consumers", "Dead letters", "History", "Settings"):
        await page.get_by_role("navigation", name="orders").get_by_role("link", name=name).click()
        await expect(page.get_by_role("region", name=name if name != "Settings" else "Configuration")).to_be_visible()
        if name == "Messages":
            messages = page.get_by_role("list", name="Messages, newest first").get_by_role("listitem")
            await expect(messages).to_have_count(5)
            await messages.first.locator("summary").click()
        found += await complaints(page)

    await page.get_by_role("link", name="Add watcher", exact=True).click()
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.locator("[aria-invalid=true]").first).to_be_visible()
    for part in await page.locator("form details > summary").all():
        await part.click()
    found += await complaints(page)
    assert found == []


async def test_colours_follow_the_system_unless_chosen(tab: Tab) -> None:
    page = await tab.open()
    background = "getComputedStyle(document.documentElement).backgroundColor"
    await page.emulate_media(color_scheme="light")
    light = await page.evaluate(background)
    await page.emulate_media(color_scheme="dark")
    dark = await page.evaluate(background)
    assert light != dark
    await page.get_by_label("Colours").select_option("light")
    assert await page.evaluate(background) == light
    await page.reload()
    await expect(page.get_by_label("Colours")).to_have_value("light")
    assert await page.evaluate(background) == light
