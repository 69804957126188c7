"""One browser and one service, with servers of their own, for all tests of the page.

The browser is the system's Chromium: none is downloaded. Where there is none the tests are skipped, and say so; `make
test` installs it where it may.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, FloatRect, Page, async_playwright, expect

from app.devservers.servers import MongoServer, NatsServer
from bench.open_pages import browser_program
from tests.service import Service, Stage, staged, until

CHROMIUM = browser_program()

PATIENCE = 30_000
"""Milliseconds that anything on the page may take to be so: for a busy machine, not a promise."""
expect.set_options(timeout=PATIENCE)

HASTE = """
const wait = setTimeout;
globalThis.setTimeout = (run, after, ...more) => wait(run, after >= 2000 && after <= 4000 ? 700 : after, ...more);
"""
"""The page looks again after two to four seconds, for which its tests would only wait: theirs looks sooner."""


@dataclass
class Site:
    """The service whose page is looked at. `nats` may be stopped, by a test that starts it again."""

    stage: Stage
    service: Service
    nats: NatsServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}/"

    def described(self, name: str, **more: Any) -> dict[str, Any]:
        """A watcher of the collection of its name, with a stream of its own."""
        return {
            "name": name,
            "source": {"database": self.stage.database, "collection": name},
            "sink": {"stream": name.upper()},
            "checkpoint": {"database": f"tokens_{self.stage.database}", "collection": name},
            **more,
        }

    async def add(self, name: str, **more: Any) -> str:
        """Add a watcher and wait until it runs."""
        await self.service.call("POST", "/watchers", self.described(name, **more), status=201)
        await self.service.until_state(name, "RUNNING")
        return name

    async def insert(self, name: str, *documents: dict[str, Any]) -> None:
        await self.stage.mongo[self.stage.database][name].insert_many(list(documents))

    @staticmethod
    async def shoot(page: Page, name: str, height: int | None = None) -> None:
        """Take the picture of this name for the docs, so many pixels of it, where the run was asked for pictures."""
        folder = os.environ.get("PAGE_SCREENSHOTS")
        if folder:
            size = page.viewport_size or {"width": 0, "height": 0}
            part: FloatRect = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]}
            await page.screenshot(path=Path(folder) / f"page-{name}.png", animations="disabled", clip=part)

    async def remove_all(self) -> None:
        """Remove all watchers and streams, so that the next test can have the same names."""
        jetstream = (await self.stage.nats()).jetstream()
        for watcher in (await self.service.call("GET", "/watchers", status=200)).json():
            await self.service.call("DELETE", f"/watchers/{watcher['name']}?checkpoint=delete", status=204)
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(stream.config.name or "")
        await self.stage.mongo.drop_database(self.stage.database)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_site(
    browser: Browser, mongo_server: MongoServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    workdir: Path = tmp_path_factory.mktemp("page")
    async with NatsServer() as nats, staged(mongo_server.uri, nats.url, workdir, uuid.uuid4().hex[:8]) as stage:
        service = await stage.service().start()
        await until(lambda: stage.takes(service), "the service is ready")
        yield Site(stage, service, nats)


TOKEN = "t0ken-of-the-page"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded(shared_site: Site) -> Service:
    """A second service, which needs `TOKEN` for changes and has watchers of its own."""
    stage = shared_site.stage
    service = await stage.service("guarded", api_token=TOKEN, state_db="guarded").start()
    await until(lambda: stage.takes(service), "the guarded service is ready")
    return service


@pytest_asyncio.fixture(loop_scope="session")
async def site(shared_site: Site) -> AsyncIterator[Site]:
    """The service, which this test finds without a watcher."""
    yield shared_site
    await shared_site.remove_all()


class Tab:
    """A tab of a browser of its own, and what went wrong in it."""

    page: Page

    def __init__(self, context: BrowserContext, url: str, script: str = "") -> None:
        self._context = context
        self.url = url
        self._script = script
        self.faults: list[str] = []
        """What the console calls an error, such as what the Content-Security-Policy has refused."""

    async def new(self) -> Tab:
        """Have a new page in place of what there is."""
        self.page = page = await self._context.new_page()
        if self._script:
            await page.add_init_script(self._script)
        page.on("pageerror", lambda error: self.faults.append(error.stack or str(error)))
        page.on("console", self._said)
        return self

    def _said(self, said: ConsoleMessage) -> None:
        # An answer of 422 or 503 is one too, to the console; to the page it is something to be shown.
        if said.type == "error" and "the server responded with a status" not in said.text:
            self.faults.append(said.text)

    async def open(self, where: str = "") -> Page:
        await self.page.goto(self.url + where)
        return self.page


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(locale="en-GB", timezone_id="UTC", viewport={"width": 1200, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tab(context: BrowserContext, site: Site) -> Tab:
    """A tab in which the page looks again soon."""
    return await Tab(context, site.url, HASTE).new()


@pytest_asyncio.fixture(loop_scope="session")
async def patient_tab(context: BrowserContext, site: Site) -> Tab:
    """A tab in which the page looks again when it does for everybody."""
    return await Tab(context, site.url).new()
