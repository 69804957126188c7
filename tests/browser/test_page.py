"""The page at `/` in a real browser, on the real service: what it shows, and that it stays true."""

import asyncio
import os

import pytest
from bson import Int64
from nats.js.api import AckPolicy, ConsumerConfig
from playwright.async_api import expect

from tests.browser.conftest import Site, Tab
from tests.browser.test_page_for_all import complaints

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_watchers_are_listed_and_follow_what_happens(site: Site, patient_tab: Tab) -> None:
    await site.add("orders")
    page = await patient_tab.open()
    row = page.get_by_role("row", name="orders")
    await expect(row.locator(".state")).to_have_text("RUNNING")
    await expect(row.locator(".published")).to_have_text("0")
    await site.insert("orders", {"_id": 1}, {"_id": 2})
    await expect(row.locator(".published")).to_have_text("2")
    await expect(row.locator(".rate")).not_to_have_text("0")
    await site.add("invoices")
    await expect(page.get_by_role("row", name="invoices").locator(".state")).to_have_text("RUNNING")
    assert patient_tab.faults == []


async def test_a_watcher_shows_messages_as_they_arrive_pretty_printed_and_escaped(site: Site, tab: Tab) -> None:
    name = await site.add("orders")
    await site.insert(name, {"_id": 1, "note": "<img src=x onerror=alert(1)>", "huge": Int64(2**53 + 1)})
    page = await tab.open(f"#/watchers/{name}/messages")
    messages = page.get_by_role("list", name="Messages, newest first").get_by_role("listitem")
    await expect(messages).to_have_count(1)
    await site.insert(name, {"_id": "two"})
    await expect(messages).to_have_count(2)
    await expect(messages.first).to_contain_text("two")
    await messages.nth(1).locator("summary").click()
    body = messages.nth(1).locator("pre.body")
    await expect(body).to_contain_text('"note": "<img src=x onerror=alert(1)>"')
    await expect(body).to_contain_text('"huge": 9007199254740993')
    assert await page.locator("main img").count() == 0
    await expect(messages.nth(1).locator("pre.headers")).to_contain_text("Nats-Msg-Id: 82")
    await page.get_by_role("button", name="Hold").click()
    await site.insert(name, {"_id": "three"})
    await site.stage.until_length(3, stream="ORDERS")
    await expect(messages).to_have_count(2)
    await page.get_by_role("button", name="Continue").click()
    await expect(messages).to_have_count(3)
    assert tab.faults == []


@pytest.mark.long
async def test_a_watcher_shows_position_history_stream_and_consumers(site: Site, tab: Tab) -> None:
    name = await site.add("orders")
    await site.insert(name, {"_id": 1})
    jetstream = (await site.stage.nats()).jetstream()
    await site.stage.until_length(1, stream="ORDERS")
    await jetstream.add_consumer("ORDERS", ConsumerConfig(durable_name="mails", ack_policy=AckPolicy.EXPLICIT))
    page = await tab.open(f"#/watchers/{name}")
    tabs = page.get_by_role("navigation", name="orders")
    await expect(tabs.get_by_role("link", name="Overview")).to_have_attribute("aria-current", "page")
    await expect(page.locator("dd", has_text="fast ingest: one batch stays open")).to_be_visible()
    await expect(page.get_by_role("region", name="Position")).to_contain_text("Resume token82")
    flow = page.get_by_role("region", name="From and to")
    await expect(flow).to_contain_text("ORDERS.insert")
    await expect(flow).not_to_contain_text("{")  # subjects, not their templates
    await tabs.get_by_role("link", name="Consumers").click()
    await expect(page.get_by_role("region", name="Stream")).to_contain_text("ORDERS.*")
    await expect(page.get_by_role("region", name="Consumers").get_by_role("row", name="mails")).to_contain_text("1")
    await site.shoot(page, "consumers", 480)
    await tabs.get_by_role("link", name="History").click()
    history = page.get_by_role("region", name="History").get_by_role("row")
    await expect(history.nth(1)).to_contain_text("RUNNING")
    await expect(history.nth(2)).to_contain_text("STARTING")
    await site.shoot(page, "history", 350)
    await tabs.get_by_role("link", name="Dead letters").click()
    await expect(page.get_by_role("region", name="Dead letters")).to_contain_text("None")
    await tabs.get_by_role("link", name="Settings").click()
    await expect(page.get_by_role("region", name="Configuration")).to_contain_text('"collection": "orders"')
    assert tab.faults == []


@pytest.mark.long
async def test_dead_letters_are_shown_and_deleted_once_it_is_confirmed(site: Site, tab: Tab) -> None:
    sink = {"stream": "ORDERS", "oversize": "dead_letter"}
    name = await site.add("orders", sink=sink)
    await site.insert(name, {"_id": 1, "text": "x" * 1_100_000})
    page = await tab.open(f"#/watchers/{name}")
    await page.get_by_role("link", name="Dead letters 1").click()
    letters = page.get_by_role("region", name="Dead letters")
    await expect(letters.get_by_role("listitem")).to_have_count(1)
    await letters.locator("summary").click()
    await expect(letters.locator("pre")).to_be_visible()
    await site.shoot(page, "dead-letters", 420)
    await letters.get_by_role("button", name="Delete…").click()
    dialog = page.get_by_role("dialog", name="Delete dead letter")
    await expect(dialog).to_contain_text("will never be on the stream")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(letters).to_contain_text("None")
    await expect(page.get_by_role("status")).to_contain_text("was deleted")
    assert tab.faults == []


@pytest.mark.long
async def test_instances_are_listed_and_one_is_drained_once_it_is_confirmed(site: Site, tab: Tab) -> None:
    await site.add("orders")
    page = await tab.open()
    await expect(page.get_by_role("row", name="orders")).to_contain_text("RUNNING")
    shown = page.get_by_role("link", name="Instances")
    await expect(shown).to_have_count(0)  # there is only one
    other = await site.stage.service("other", instance="other").start()
    await shown.click()
    instances = page.get_by_role("region", name="Instances")
    row = instances.get_by_role("row", name="other")
    await expect(row.locator(".state")).to_have_text("active")
    await expect(instances.get_by_role("row")).to_have_count(3)
    await expect(instances).to_contain_text("(this one)")
    await site.shoot(page, "instances", 290)
    assert await complaints(page) == []
    await row.get_by_role("button", name="Drain…").click()
    dialog = page.get_by_role("dialog", name="Drain other?")
    await expect(dialog).to_contain_text("hands its")
    await dialog.get_by_role("button", name="Drain", exact=True).click()
    await expect(row.locator(".state")).to_have_text("draining")
    await expect(row.locator(".figure").first).to_have_text("0")
    await row.get_by_role("button", name="Stop draining…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Stop draining", exact=True).click()
    await expect(row.locator(".state")).to_have_text("active")
    assert await other.terminate() == 0
    await expect(shown).to_have_count(0)
    assert tab.faults == []


@pytest.mark.skipif("PAGE_SCREENSHOTS" not in os.environ, reason="only `make screenshots` wants pictures")
async def test_pictures_for_the_docs(site: Site, tab: Tab) -> None:
    for name in ("contracts", "customers", "invoices", "orders", "payments", "products", "shipments"):
        sink = {"stream": name.upper(), "oversize": "fail"}
        await site.add(name, source={"database": "shop", "collection": name}, sink=sink)
    await site.service.call("PUT", "/watchers/customers/pause", status=202)
    shop = site.stage.mongo["shop"]
    await shop["contracts"].insert_one({"text": "x" * 1_100_000})
    page = await tab.open()
    await expect(page.get_by_role("row", name="customers")).to_contain_text("PAUSED")
    for second in range(40):
        for number in range(10 + 6 * (second % 7)):
            await shop["orders"].insert_one({"customer": f"c-{number}", "total": 10 * number, "paid": number % 2 == 0})
        await shop["payments"].insert_many([{"order": second, "paid": True} for _ in range(second % 5 + 1)])
        if second % 3 == 0:
            await shop["invoices"].insert_many([{"order": second, "net": 100 + second} for _ in range(second % 8 + 1)])
        await asyncio.sleep(0.7)
    await page.set_viewport_size({"width": 1200, "height": 560})
    await site.shoot(page, "list")
    await page.get_by_role("link", name="orders", exact=True).click()
    await expect(page.get_by_role("region", name="Position")).to_contain_text("82")
    await page.set_viewport_size({"width": 1200, "height": 900})
    await site.shoot(page, "watcher")
    await page.get_by_role("link", name="Messages").click()
    await page.get_by_role("list", name="Messages, newest first").locator("summary").first.click()
    await site.shoot(page, "messages")
    await page.get_by_label("Colours").select_option("dark")
    await page.set_viewport_size({"width": 1200, "height": 560})
    await page.get_by_role("navigation", name="Page").get_by_role("link", name="Watchers").click()
    await expect(page.get_by_role("row", name="orders")).to_contain_text("RUNNING")
    await site.shoot(page, "list-dark")
    await page.get_by_label("Colours").select_option("light")
    await page.set_viewport_size({"width": 390, "height": 844})
    await site.shoot(page, "narrow")
    await shop.client.drop_database("shop")
