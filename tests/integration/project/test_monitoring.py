"""What alerts and dashboards ask for is what a running service tells."""

from collections import defaultdict
from collections.abc import AsyncIterator

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.live import Live, until
from tests.promql import of_dashboards, of_rules
from tests.unit.metrics.test_observer import CONTRACT

PROMETHEUS = {"job", "instance"}
"""The labels that it adds by itself."""
UP = {"up": PROMETHEUS}
"""The metric that it makes by itself."""


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


async def told(live: Live) -> dict[str, set[str]]:
    """The names of the samples that a scrape holds, each with its labels."""
    found: dict[str, set[str]] = defaultdict(set)
    text = (await live.call("GET", "/metrics", 200)).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
        if not family.samples:  # nothing of the kind has happened yet: the name is there, the labels are the contract's
            name = family.name if family.type != "counter" else f"{family.name}_total"
            found[name] |= CONTRACT[name]
    return found


async def test_every_expression_names_metrics_and_labels_that_a_service_has(live: Live) -> None:
    await live.add()
    live.insert(1, 2, 3)
    await live.seen("1", "2", "3")
    await until(lambda: live.checkpoint())

    async def all_known() -> bool:
        return {"changewire_watcher_dead_letters", "changewire_watcher_checkpoint_age_seconds"} <= set(await told(live))

    await until(all_known)
    names = UP | {name: labels | PROMETHEUS for name, labels in (await told(live)).items()}
    expressions = [*of_rules(), *of_dashboards()]
    assert len(expressions) > 50
    for each in expressions:
        asked = each.metrics()
        assert asked, each
        assert set(asked) <= set(names), f"{each.place}: no metric {set(asked) - set(names)}"
        for name, labels in asked.items():
            assert labels <= names[name], f"{each.place}: {name} has no label {labels - names[name]}"
        known = set().union(*(names[name] for name in asked))
        assert each.grouped() <= known, f"{each.place}: no label {each.grouped() - known}"
