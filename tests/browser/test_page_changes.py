"""What is changed through the page: adding and editing by the form, and every action behind its confirmation."""

import re

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Site, Tab
from tests.service import Service, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def confirm(page: Page, button: str, title: str, said: str) -> None:
    """Press a button, look what its dialog says will happen, and agree."""
    await page.get_by_role("button", name=f"{button}…", exact=True).click()
    dialog = page.get_by_role("dialog", name=title)
    await expect(dialog).to_contain_text(said)
    await dialog.get_by_role("button", name=button, exact=True).click()
    await expect(dialog).to_have_count(0)


async def test_a_watcher_is_added_by_the_form_and_the_apis_words_are_at_the_fields(site: Site, tab: Tab) -> None:
    page = await tab.open("#/add")
    await page.get_by_label("Name (required)").fill("or ders")
    await page.locator("[id='field-source.database']").fill("admin")
    await page.locator("[id='field-source.collection']").fill("orders")
    await page.get_by_text("More about the stream").click()
    replicas = page.locator("[id='field-sink.replicas']")
    await replicas.fill("9")
    await page.get_by_role("button", name="Add", exact=True).click()
    name = page.locator("[id='field-name']")
    for field in (name, page.locator("[id='field-source.database']"), replicas):  # all of them at once
        await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(name).to_have_attribute("aria-invalid", "true")
    await expect(name).to_be_focused()
    await expect(page.locator("[id='field-name-wrong']")).not_to_be_empty()
    await name.fill("orders")
    await page.get_by_role("button", name="Add", exact=True).click()
    database = page.locator("[id='field-source.database']")
    await expect(database).to_be_focused()
    await expect(page.locator("[id='field-source.database-wrong']")).to_contain_text("system database")
    await site.shoot(page, "form")
    await database.fill(site.stage.database)
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.locator("[id='field-sink.replicas-wrong']")).to_contain_text("less than or equal to 5")
    await replicas.fill("1")
    await page.get_by_role("button", name="Check only").click()
    await expect(page.get_by_text("this would work")).to_be_visible()
    assert (await site.service.call("GET", "/watchers/orders")).status_code == 404
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("orders RUNNING")
    stored = (await site.service.call("GET", "/watchers/orders", status=200)).json()
    assert (stored["source"]["collection"], stored["sink"]["stream"]) == ("orders", "ORDERS")
    assert tab.faults == []


async def test_a_number_that_is_being_typed_is_not_set_back_by_what_is_drawn_meanwhile(tab: Tab) -> None:
    page = await tab.open("#/add")
    await page.get_by_text("More about the stream").click()
    replicas = page.locator("[id='field-sink.replicas']")
    await replicas.fill("3")
    drawn = "each => { each.value = 'orders'; each.dispatchEvent(new Event('input', { bubbles: true })); }"
    await page.locator("[id='field-name']").evaluate(drawn)
    await expect(page.locator("[id='field-name']")).to_have_value("orders")
    await expect(replicas).to_have_value("3")


async def offered(page: Page, field: str) -> list[str]:
    """What the form suggests for a field, as the browser shows it below."""
    options = page.locator(f"[id='field-{field}-known'] option")
    found: list[str] = await options.evaluate_all("all => all.map((each) => each.value)")
    return found


@pytest.mark.long
async def test_the_form_offers_databases_collections_and_streams_that_exist(site: Site, tab: Tab) -> None:
    await site.insert("orders", {"_id": 1})
    await site.insert("items", {"_id": 1})
    await (await site.stage.nats()).jetstream().add_stream(name="ARCHIVE", subjects=["archive.>"])
    page = await tab.open("#/add")

    async def offers(field: str, *names: str) -> None:
        await until(lambda: _has(page, field, names), f"{field} offers {names}")

    database = page.locator("[id='field-source.database']")
    await offers("source.database", site.stage.database)
    await offers("sink.stream", "ARCHIVE")
    assert "admin" not in await offered(page, "source.database")
    assert await offered(page, "source.collection") == []
    await database.press_sequentially(site.stage.database)
    await offers("source.collection", "items", "orders")
    await expect(page.locator("[id='field-source.collection']")).to_have_attribute(
        "list", "field-source.collection-known"
    )
    await database.fill("another")
    await until(lambda: _has(page, "source.collection", ()), "of another database nothing is offered")
    assert tab.faults == []


async def _has(page: Page, field: str, names: tuple[str, ...]) -> bool:
    found = await offered(page, field)
    return set(names) <= set(found) if names else found == []


@pytest.mark.long
async def test_the_form_works_and_asks_for_no_token_where_suggestions_need_one(guarded: Service, tab: Tab) -> None:
    page = tab.page
    await page.goto(f"http://127.0.0.1:{guarded.port}/#/add")
    async with page.expect_response(re.compile("/suggestions\\?database=shop")) as answered:
        await page.locator("[id='field-source.database']").fill("shop")
    assert (await answered.value).status == 401
    await page.locator("[id='field-source.collection']").fill("orders")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_role("button", name="Add", exact=True)).to_be_enabled()


@pytest.mark.long
async def test_a_refusal_of_what_is_there_already_is_at_its_fields(site: Site, tab: Tab) -> None:
    await site.add("orders")
    page = await tab.open("#/add")
    await page.get_by_label("Name (required)").fill("orders")
    await page.locator("[id='field-source.database']").fill(site.stage.database)
    await page.locator("[id='field-source.collection']").fill("orders")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.locator("[id='field-name-wrong']")).to_contain_text("there is a watcher orders already")
    await page.get_by_label("Name (required)").fill("again")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.locator("[id='field-sink.subject-wrong']")).to_contain_text("watcher orders uses")


@pytest.mark.long
async def test_a_watcher_is_changed_and_keeps_what_was_not_touched(site: Site, tab: Tab) -> None:
    pipeline = [{"$match": {"fullDocument.n": {"$ne": 9007199254740993}}}]
    source = {"database": site.stage.database, "collection": "orders", "pipeline": pipeline}
    name = await site.add("orders", source=source)
    page = await tab.open(f"#/watchers/{name}")
    await page.get_by_role("link", name="Settings").click()
    await expect(page.locator("[id='field-source.collection']")).to_have_value("orders")
    await site.shoot(page, "settings")
    await page.get_by_text("More about what is read").click()
    await page.get_by_text("More about the stream").click()
    await expect(page.get_by_label("Aggregation pipeline")).to_have_value(re.compile("9007199254740993"))
    await expect(page.get_by_label("Add it paused")).to_have_count(0)  # it exists: there are buttons for that
    await page.get_by_role("checkbox", name="delete", exact=True).uncheck()
    await page.get_by_label("Document of an update", exact=True).select_option("none")
    await page.get_by_label("From", exact=True).select_option("timestamp")
    await page.get_by_label("a moment (timestamp)").fill("yesterday")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("[id='field-start.at-wrong']")).to_contain_text("ISO 8601")
    await page.get_by_label("From", exact=True).select_option("earliest")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status").first).to_contain_text("orders was changed")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("orders RUNNING")
    stored = (await site.service.call("GET", f"/watchers/{name}", status=200)).json()
    assert stored["sink"]["operations"] == ["insert", "update", "replace"]
    assert (stored["source"]["pipeline"], stored["source"]["full_document"]) == (pipeline, None)
    assert stored["start"] == {"at": "earliest"}


@pytest.mark.long
async def test_the_position_has_a_place_of_its_own_where_the_box_is_ticked_and_none_otherwise(
    site: Site, tab: Tab
) -> None:
    page = await tab.open("#/add")
    await page.locator("[id='field-name']").fill("orders")
    await page.locator("[id='field-source.database']").fill(site.stage.database)
    await page.locator("[id='field-source.collection']").fill("orders")
    box = page.get_by_role("checkbox", name="A collection of its own for the watcher's position")
    database, collection = (page.locator(f"[id='field-checkpoint.{part}']") for part in ("database", "collection"))
    await expect(box).not_to_be_checked()
    await expect(collection).to_have_count(0)
    await box.check()
    await expect(database).to_have_value("resume-tokens")
    await collection.fill("a$b")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(collection).to_be_focused()
    await expect(page.locator("[id='field-checkpoint.collection-wrong']")).not_to_be_empty()
    await expect(page.locator("[id='field-checkpoint-wrong']")).to_have_count(0)
    await box.uncheck()
    await expect(collection).to_have_count(0)
    await page.get_by_role("button", name="Add", exact=True).click()
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_contain_text("orders RUNNING")
    assert (await site.service.call("GET", "/watchers/orders", status=200)).json()["checkpoint"] is None

    for ticked in (True, False):
        await page.get_by_role("link", name="Settings").click()
        await (box.check() if ticked else box.uncheck())
        if ticked:
            await database.fill(f"tokens_{site.stage.database}")
            await collection.fill("elsewhere")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("navigation", name="orders").get_by_text("Overview")).to_have_attribute(
            "aria-current", "page"
        )
        await expect(heading).to_contain_text("orders RUNNING")
        stored = (await site.service.call("GET", "/watchers/orders", status=200)).json()["checkpoint"]
        assert (stored and stored["collection"]) == ("elsewhere" if ticked else None)
    assert tab.faults == []


@pytest.mark.long
async def test_a_whole_database_is_watched_by_patterns_with_one_on_each_line(site: Site, tab: Tab) -> None:
    page = await tab.open("#/add")
    await page.locator("[id='field-name']").fill("all")
    await page.locator("[id='field-source.database']").fill(site.stage.database)
    await page.get_by_text("More about what is read").click()
    include = page.get_by_label("Only collections that match")
    await include.fill("orders_*\nsystem.views")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(include).to_be_focused()
    await expect(page.locator("[id='field-source.include-wrong']")).to_contain_text("system.views")
    await include.fill("orders_*\nusers\n")
    await page.get_by_label("Not collections that match").fill("*_tmp")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("all RUNNING")
    stored = (await site.service.call("GET", "/watchers/all", status=200)).json()
    assert (stored["source"]["collection"], stored["source"]["include"]) == (None, ["orders_*", "users"])
    assert (stored["source"]["exclude"], stored["sink"]["subject"]) == (["*_tmp"], "{stream}.{collection}.{operation}")
    for name in ("orders_eu", "orders_tmp", "users"):
        await site.insert(name, {"_id": name})
    stream = stored["sink"]["stream"]
    await site.stage.until_length(2, stream=stream)
    await page.get_by_role("link", name="Messages").click()
    messages = page.get_by_role("list", name="Messages, newest first")
    await expect(messages).to_contain_text(f"{stream}.orders_eu.insert")
    await expect(messages).to_contain_text(f"{stream}.users.insert")
    await expect(messages).not_to_contain_text("orders_tmp")
    assert tab.faults == []


@pytest.mark.long
async def test_pause_resume_restart_rewind_and_remove_say_what_will_happen(site: Site, tab: Tab) -> None:
    name = await site.add("orders")
    await site.insert(name, {"_id": 1})
    await site.stage.until_length(1, stream="ORDERS")
    page = await tab.open(f"#/watchers/{name}")
    heading = page.get_by_role("heading", level=1)

    await page.get_by_role("button", name="Pause…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert await site.service.state(name) == "RUNNING"
    await confirm(page, "Pause", "Pause orders?", "is paused until you resume it")
    await expect(heading).to_contain_text("PAUSED")
    await expect(page.get_by_role("status")).to_contain_text("orders is paused")
    await confirm(page, "Resume", "Resume orders?", "continues from its position")
    await expect(heading).to_contain_text("RUNNING")
    await confirm(page, "Restart", "Restart orders?", "nothing is lost or published twice")
    await expect(heading).to_contain_text("RUNNING")

    await page.get_by_role("button", name="Rewind…", exact=True).click()
    dialog = page.get_by_role("dialog", name="Rewind orders?")
    await expect(dialog).to_contain_text("publishes the changes in between again")
    await dialog.get_by_label("a moment").check()
    await site.shoot(page, "rewind")
    await dialog.get_by_label("Moment", exact=True).fill("")
    await dialog.get_by_role("button", name="Rewind").click()
    await expect(dialog.locator("#move-time-wrong")).to_contain_text("ISO 8601")
    await dialog.get_by_label("after a change").check()
    await dialog.get_by_label("Resume token", exact=True).fill("82" + "F" * 20)
    await dialog.get_by_role("button", name="Rewind").click()
    await expect(dialog.locator("#move-token-wrong")).to_contain_text("is of another deployment")
    await expect(heading).to_contain_text("RUNNING")  # as it was
    await dialog.get_by_label("earliest").check()
    await dialog.get_by_role("button", name="Rewind").click()
    await expect(dialog).to_have_count(0)
    await site.stage.until_length(2, stream="ORDERS")  # published again, in the new epoch
    await expect(page.get_by_role("region", name="Position").locator("dl")).to_contain_text("Epoch1")

    await page.get_by_role("button", name="More for orders").click()
    await page.get_by_role("menuitem", name="Remove…").click()
    dialog = page.get_by_role("dialog", name="Remove orders?")
    await expect(dialog).to_contain_text("The stream ORDERS and its messages stay")
    await dialog.get_by_label("delete it").check()
    await site.shoot(page, "remove")
    await dialog.get_by_role("button", name="Remove").click()
    await expect(page.get_by_text("There are no watchers yet")).to_be_visible()
    await site.shoot(page, "empty", 260)
    places = site.stage.mongo[f"tokens_{site.stage.database}"]
    await until(lambda: _empty(places["orders"]), "the position is deleted")
    assert tab.faults == []


@pytest.mark.long
async def test_a_watcher_that_lost_its_position_is_told_where_to_continue(site: Site, tab: Tab) -> None:
    name = await site.add("orders")

    async def answer(route: Route) -> None:
        found = await (await route.fetch()).json()
        error = {"type": "HistoryLost", "message": "m", "time": "2026-01-01T00:00:00.000Z", "count": 1}
        failed = {"state": "FAILED", "reason": "its messages are gone; rewind the watcher", "last_error": error}
        told = [each | {"status": each["status"] | failed} for each in (found if isinstance(found, list) else [found])]
        await route.fulfill(json=told if isinstance(found, list) else told[0])

    async def lags(route: Route) -> None:
        found = await (await route.fetch()).json()
        await route.fulfill(json=found | {"seconds": 60.0, "oplog_headroom_seconds": 40.0})

    await tab.page.route(re.compile(r"/watchers(/orders)?$"), answer)
    await tab.page.route(re.compile(r"/watchers/orders/lag$"), lags)
    page = await tab.open(f"#/watchers/{name}")
    resume = page.get_by_role("button", name="Resume…")
    await expect(resume).to_have_class("secondary")
    await expect(page.get_by_role("button", name="Rewind…", exact=True)).not_to_have_class("secondary")
    await resume.click()
    await expect(page.get_by_role("dialog")).to_contain_text("If the reason is still there, it fails again")
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Rewind…", exact=True).click()
    await expect(page.get_by_role("dialog").get_by_label("earliest")).to_be_checked()  # no moment of a quarter ago
    await page.unroute_all(behavior="ignoreErrors")
    assert tab.faults == []


async def _empty(collection: object) -> bool:
    return await collection.find_one({}) is None  # type: ignore[attr-defined]
