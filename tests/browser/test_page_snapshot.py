"""A watcher's snapshot on the page: begun, followed, cancelled, and refused with the words at the field."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import Site, Tab
from tests.browser.test_page_for_all import complaints

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]


def at(seconds: float) -> str:
    """So many seconds from now, as the service writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def with_snapshot(found: Any, snapshot: dict[str, Any] | None) -> Any:
    """A watcher, or a list of them, as the service answers it, with this snapshot in its status."""
    if isinstance(found, list):
        return [with_snapshot(each, snapshot) for each in found]
    return found | {"status": found["status"] | {"snapshot": snapshot}}


async def test_a_snapshot_is_begun_and_its_end_is_seen(site: Site, tab: Tab) -> None:
    await site.insert("orders", *({"_id": each, "open": each % 2 == 0} for each in range(100)))
    name = await site.add("orders")
    page = await tab.open(f"#/watchers/{name}")
    panel = page.get_by_role("region", name="Snapshot")
    await expect(panel).to_contain_text("None was taken")
    await panel.get_by_role("button", name="Take a snapshot…").click()
    dialog = page.get_by_role("dialog", name="Take a snapshot of orders?")
    await expect(dialog).to_contain_text("is published once")
    await expect(dialog.get_by_label("Collections")).to_have_count(0)  # it reads one alone
    await dialog.get_by_label("Filter, as JSON").fill('{"open": true}')
    await dialog.get_by_role("button", name="Begin").click()
    await expect(dialog).to_have_count(0)
    await expect(panel.locator(".state")).to_have_text("done")
    await expect(panel.locator(".documents")).to_have_text("50")
    await expect(panel).to_contain_text('{"open":true}')
    await site.stage.until_length(51, stream="ORDERS")  # and the message that says so
    assert tab.faults == []


async def test_what_is_wrong_with_a_snapshot_is_said_at_the_field_and_nothing_is_begun(site: Site, tab: Tab) -> None:
    await site.insert("orders", {"_id": 1})
    await site.add("all", source={"database": site.stage.database})
    page = await tab.open("#/watchers/all")
    await page.get_by_role("button", name="Take a snapshot…").click()
    dialog = page.get_by_role("dialog", name="Take a snapshot of all?")
    entry, collections = dialog.get_by_label("Filter, as JSON"), dialog.get_by_label("Collections")
    for text, said in (('{"open": ', "is not JSON"), ('{"$no": 1}', "$no"), ('{"$where": "1"}', "JavaScript")):
        await entry.fill(text)
        await dialog.get_by_role("button", name="Begin").click()
        await expect(dialog.locator("#snapshot-filter-wrong")).to_contain_text(said)
        await expect(entry).to_be_focused()
        await expect(dialog.get_by_role("alert")).to_have_count(0)
    await entry.fill("")
    await collections.fill("elsewhere.orders")
    await dialog.get_by_role("button", name="Begin").click()
    await expect(dialog.locator("#snapshot-collections-wrong")).not_to_be_empty()
    assert await complaints(page) == []
    assert (await site.service.call("GET", "/watchers/all", status=200)).json()["status"]["snapshot"] is None
    await collections.fill(f"{site.stage.database}.orders\n")
    await dialog.get_by_role("button", name="Begin").click()
    await expect(page.get_by_role("region", name="Snapshot").locator(".state")).to_have_text("done")
    assert tab.faults == []


async def test_a_snapshot_waits_while_the_watcher_is_paused_and_is_cancelled_once_that_is_confirmed(
    site: Site, tab: Tab
) -> None:
    name = await site.add("orders")
    await site.service.call("PUT", f"/watchers/{name}/pause", status=202)
    page = await tab.open(f"#/watchers/{name}")
    panel = page.get_by_role("region", name="Snapshot")
    await panel.get_by_role("button", name="Take a snapshot…").click()
    await expect(page.get_by_role("dialog")).to_contain_text("begins when you resume it")
    await page.get_by_role("dialog").get_by_role("button", name="Begin").click()
    await expect(panel.locator(".state")).to_have_text("running")
    await expect(panel).to_contain_text("It waits: ")
    await panel.get_by_role("button", name="Cancel the snapshot…").click()
    dialog = page.get_by_role("dialog", name="Cancel the snapshot of orders?")
    await expect(dialog).to_contain_text("stay on the stream")
    await dialog.get_by_role("button", name="Let it go on").click()
    await expect(panel.locator(".state")).to_have_text("running")
    await panel.get_by_role("button", name="Cancel the snapshot…").click()
    await dialog.get_by_role("button", name="Cancel the snapshot").click()
    await expect(panel.locator(".state")).to_have_text("cancelled")
    await expect(panel).to_contain_text("somebody has cancelled it")
    await expect(page.get_by_role("status")).to_contain_text("the snapshot of orders is cancelled")
    assert tab.faults == []


async def test_a_watcher_is_added_with_a_snapshot_of_what_exists(site: Site, tab: Tab) -> None:
    await site.insert("orders", *({"_id": each} for each in range(20)))
    page = await tab.open("#/add")
    await page.get_by_label("Name (required)").fill("orders")
    await page.locator("[id='field-source.database']").fill(site.stage.database)
    await page.locator("[id='field-source.collection']").fill("orders")
    await page.get_by_label("Snapshot of what exists").select_option("initial")
    await page.get_by_role("button", name="Add", exact=True).click()
    panel = page.get_by_role("region", name="Snapshot")
    await expect(panel.locator(".state")).to_have_text("done")
    await expect(panel.locator(".documents")).to_have_text("20")
    await expect(panel).to_contain_text("with the watcher")
    await site.stage.until_length(21, stream="ORDERS")
    assert tab.faults == []


async def test_how_far_a_snapshot_is_can_be_seen_in_the_list_and_in_the_watchers_view(site: Site, tab: Tab) -> None:
    await site.add("orders")
    snapshot: dict[str, Any] = {
        "state": "running", "run": "0192f3b4c5d6", "kind": "initial", "reason": None, "documents": 412_000,
        "estimated_total": 1_250_000, "requested_at": at(-97), "started_at": at(-96),
        "finished_at": None, "collections": ["shop.orders", "shop.users"], "collection": "shop.users", "filter": None,
        "waits": None, "rows_per_second": 4290.0,
    }  # fmt: skip
    steady = True

    async def answer(route: Route) -> None:
        snapshot["documents"] += 200
        if steady:
            snapshot["estimated_end"] = at(195)
        await route.fulfill(json=with_snapshot(await (await route.fetch()).json(), snapshot))

    await tab.page.route(re.compile(r"/watchers(/orders)?$"), answer)
    page = await tab.open()
    row = page.get_by_role("row", name="orders")
    await expect(row.get_by_role("progressbar", name="Snapshot of orders")).to_be_visible()
    await expect(row.locator(".snapshot")).to_contain_text("33 %")
    assert await complaints(page) == []
    await row.get_by_role("link", name="orders").click()
    panel = page.get_by_role("region", name="Snapshot")
    await expect(panel.locator(".snapshot")).to_contain_text("of about 1,250,000 documents (")
    await expect(panel.locator(".snapshot")).to_contain_text("3 min left")
    await site.shoot(page, "snapshot")
    steady = False
    snapshot["estimated_end"] = "2099-01-01T00:00:00Z"  # progress that is slow for a moment is no estimate
    await expect(panel.locator(".snapshot")).not_to_contain_text("left")
    await expect(panel.locator("div", has_text="Reading").last).to_contain_text("shop.users")
    snapshot |= {"state": "failed", "reason": "the collection shop.users is a view"}
    await expect(panel.locator(".outage")).to_contain_text("is a view")
    await page.get_by_role("navigation", name="Page").get_by_role("link", name="Watchers").click()
    await expect(row).to_contain_text("snapshot failed: the collection shop.users is a view")
    snapshot |= {"state": "running", "reason": None, "estimated_total": None}
    await expect(row.locator(".snapshot")).to_contain_text("documents")
    await page.unroute_all(behavior="ignoreErrors")
    assert tab.faults == []
