"""The page with many watchers: what one that is open costs the service, and whether its list scrolls without a stutter.

The watchers share a change stream, and a few of them are written to all the time. Tabs of a real browser show the list:
none, one, then several, by turns. Only the service's own processor time counts, so a busy browser does not matter.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from bench import workload
from bench.contenders import Changewire
from bench.fleet import SETTLE_SECONDS, Fleet, made
from bench.report import Result, Target, median_of, percentile, spread
from bench.stage import Incomplete, Stage
from bench.workload import HEADLINE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGES = (0, 1, 4)
RATE = 5
"""Changes a second, one after another over the watchers."""
PAGE_CPU, FRAME_MS, LONG_MS = 0.02, 34.0, 50
"""A page costs at most so much of a core; of a hundred frames 99 come within two of a screen's; from LONG_MS on a task
makes the browser wait, as browsers themselves have it."""
PATIENCE_MS = 60_000
TRIES = 3
STEPS = 240
"""Frames of a scroll, each so many pixels further: a quick hand on the wheel."""
PIXELS = 160

_DRAWS = """new Promise(done => {
  requestAnimationFrame(() => done(true));
  setTimeout(done, 10_000, false);
})"""

# Scrolls down and up again, a step with each frame. Answers the milliseconds between frames, and those of long tasks.
_SCROLL = """([steps, pixels]) => new Promise(done => {
  const frames = [], tasks = [];
  const observer = new PerformanceObserver(list => tasks.push(...list.getEntries().map(each => each.duration)));
  observer.observe({ type: "longtask" });
  let before = performance.now(), step = 0;
  const frame = () => {
    const now = performance.now();
    frames.push(now - before);
    before = now;
    if (step++ < steps) {
      scrollBy(0, step <= steps / 2 ? pixels : -pixels);
      requestAnimationFrame(frame);
    } else setTimeout(() => { observer.disconnect(); done({ frames: frames.slice(1), tasks }); }, 100);
  };
  requestAnimationFrame(frame);
})"""

# Types a word letter by letter and takes it away again: the milliseconds from each key to the second frame after it.
_FILTER = """(word) => new Promise(async done => {
  const field = document.querySelector("input[type=search]"), waits = [];
  const frame = () => new Promise(requestAnimationFrame);
  const texts = [...word].map((_, at) => word.slice(0, at + 1));
  for (const text of [...texts, ...texts.toReversed().slice(1), ""]) {
    const began = performance.now();
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    await frame();
    await frame();
    waits.push(performance.now() - began);
  }
  done(waits);
})"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many watchers there are, and how often and how long each number of pages is open."""

    watchers: int
    rounds: int
    seconds: float
    patience: float


def browser_program() -> str | None:
    """The program of a browser that is installed here."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


async def measure(stage: Stage, sizes: Sizes) -> Result:
    """Measure with each number of pages in each round, then scroll and filter. Raises Incomplete."""
    path = browser_program()
    async with made(stage, Changewire(), sizes.watchers, patience=sizes.patience) as fleet:
        if await fleet.add(as_list=True) is None:
            raise Incomplete(f"{sizes.watchers} watchers do not run after {sizes.patience:g} s")
        async with fleet.running() as running, async_playwright() as playwright:
            if running is None:
                raise Incomplete(f"{sizes.watchers} watchers do not run after {sizes.patience:g} s")
            assert isinstance(running.contender, Changewire)
            chromium = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            url = f"http://127.0.0.1:{running.contender.port}/"
            async with _written(stage, fleet):
                await asyncio.sleep(min(SETTLE_SECONDS, sizes.seconds))
                used: dict[int, list[float]] = {each: [] for each in PAGES}
                for number in range(sizes.rounds):
                    for count in PAGES if number % 2 == 0 else PAGES[::-1]:
                        async with _open(chromium, url, count):
                            before = stage.moment(running.program.pid)
                            await asyncio.sleep(sizes.seconds)
                            span = stage.moment(running.program.pid).since(before)
                        used[count].append(span.used["service"] / span.seconds)
                        print(f"  {count} pages: the service uses {used[count][-1]:.1%} of a core", flush=True)
                async with _open(chromium, url, 1) as (page,):
                    tabs = page.context
                    scrolls = [await _drawn(tabs, _SCROLL, [STEPS, PIXELS]) for _ in range(sizes.rounds)]
                    waits = [wait for _ in range(sizes.rounds) for wait in await _drawn(tabs, _FILTER, "fleet_17")]
            await chromium.close()
    return _result(sizes, used, scrolls, waits)


@asynccontextmanager
async def _open(chromium: Browser, url: str, count: int) -> AsyncIterator[list[Page]]:
    """So many tabs that show the list of all watchers, each of a window of its own, so that all are visible."""
    contexts = [await chromium.new_context(viewport={"width": 1280, "height": 900}) for _ in range(count)]
    pages = [await _shown(context, url) for context in contexts]
    try:
        yield pages
    finally:
        for context in contexts:
            await context.close()


async def _shown(context: BrowserContext, url: str) -> Page:
    """A new tab that shows the list."""
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    await page.goto(url)
    await page.wait_for_selector("[role=row].row")
    return page


async def draws(page: Page) -> bool:
    """Whether the browser draws this page at all.

    Chromium 156 without a screen stops for good in one of some hundred long scrolls: timers run on, but no frame comes
    and a screenshot hangs. Nothing revives the tab; another one is drawn.
    """
    return bool(await page.evaluate(_DRAWS))


async def _drawn(tabs: BrowserContext, script: str, argument: Any) -> Any:
    """Run a script that waits for frames, in the newest tab; a new one follows where the browser has stopped drawing
    it. Raises Incomplete."""
    for _ in range(TRIES):
        page = tabs.pages[-1]
        try:
            async with asyncio.timeout(PATIENCE_MS / 1000):
                return await page.evaluate(script, argument)
        except TimeoutError as error:
            if await draws(page):
                raise Incomplete(f"the page is not done with a scroll or a word after {PATIENCE_MS} ms") from error
        await _shown(tabs, page.url)
    raise Incomplete(f"the browser has stopped drawing {TRIES} times")


@asynccontextmanager
async def _written(stage: Stage, fleet: Fleet) -> AsyncIterator[None]:
    """Changes at `RATE` while the block runs, to one collection after another."""

    async def write() -> None:
        count = 0
        while True:
            place = fleet.sources[count * 7 % len(fleet.sources)]
            await asyncio.to_thread(workload.write, HEADLINE, [stage.collection(place)], range(count, count + 1))
            count += 1
            await asyncio.sleep(1 / RATE)

    task = asyncio.create_task(write(), name="write")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        await task  # raises what has ended it


def _result(
    sizes: Sizes, used: dict[int, list[float]], scrolls: Sequence[dict[str, Any]], waits: Sequence[float]
) -> Result:
    result = Result(
        "page",
        f"The page with {sizes.watchers:,} watchers; median (range) of {sizes.rounds}",
        [["pages open", "service, of a core", "each page, of a core"]],
    )
    for count in PAGES:
        each = [(now - none) / count for now, none in zip(used[count], used[0], strict=True)] if count else []
        result.table.append([str(count), spread(used[count], ".1%"), spread(each, ".2%") if each else ""])
        if count == max(PAGES):  # several at once stand out of what the watchers themselves use, which varies
            cost = median_of(each)
            figure, target = f"{cost:.1%} of a core", f"≤ {PAGE_CPU:.0%}"
            result.targets.append(
                Target(f"each of {count} open pages, CPU of the service", figure, target, cost <= PAGE_CPU)
            )
    frames = [frame for scroll in scrolls for frame in scroll["frames"]]
    tasks = [task for scroll in scrolls for task in scroll["tasks"]]
    slow, wait = percentile(frames, 99), percentile(waits, 99)
    figure, target = f"{slow:.0f} ms", f"≤ {FRAME_MS:.0f} ms"
    result.targets.append(Target("scrolling, p99 of a frame", figure, target, slow <= FRAME_MS))
    scrolled = f"{median_of(frames):.0f} ms between two frames, p99 {slow:.0f} ms, most {max(frames):.0f} ms"
    long = f"{len(tasks)} tasks longer than {LONG_MS} ms in {len(frames):,} frames"
    result.remarks = [
        f"{RATE} changes/s over all watchers; each page shows the list, and asks for it again as pages do.",
        f"Scrolling {PIXELS} pixels a frame: {scrolled}; {long}.",
        f"Typing into the search: the list follows after {median_of(waits):.0f} ms, p99 {wait:.0f} ms.",
    ]
    result.data = asdict(sizes) | {"used": used, "frames": frames, "long_tasks": tasks, "filter": list(waits)}
    return result
