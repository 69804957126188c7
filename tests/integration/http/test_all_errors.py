"""Everything that is wrong with a request is said at once: by the rules, beside other watchers, and by both servers."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio

from tests.live import Live


@pytest_asyncio.fixture
async def service(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


def said(answer: httpx.Response) -> dict[str, str]:
    return {each["field"]: each["detail"] for each in answer.json()["errors"]}


NONSENSE: dict[str, Any] = {"pipeline": [{"$nonsense": 1}]}


async def test_what_rules_mongodb_and_nats_refuse_is_said_together(service: Live) -> None:
    before = await service.facts()
    wrong = service.definition("a b", source=NONSENSE, sink={"replicas": 3})
    for method, path in (("POST", "/watchers"), ("POST", "/watchers?dry_run=true")):
        found = said(await service.call(method, path, 422, json=wrong))
        assert set(found) == {"name", "source.pipeline", "sink.replicas"}
        assert "$nonsense" in found["source.pipeline"]
        assert "replicas" in found["sink.replicas"]
    assert await service.facts() == before


async def test_a_start_that_mongodb_refuses_is_said_with_what_nats_refuses(service: Live) -> None:
    future = {"at": {"token": "82FFFFFFFF000000012B022C0100296E5A1004"}}
    wrong = service.definition(sink={"replicas": 3}, start=future, snapshot="initial", source={"collection": "x"})
    found = said(await service.call("POST", "/watchers", 422, json=wrong))
    assert set(found) == {"start.at", "sink.replicas"}
    assert "future" in found["start.at"]


async def test_a_name_that_is_taken_subjects_that_overlap_and_a_bad_pipeline_are_said_together(service: Live) -> None:
    await service.add("first")
    await service.add("second", sink={"stream": f"{service.stream}_2"})
    wrong = service.definition("second", source=NONSENSE)
    found = said(await service.call("POST", "/watchers", 422, json=wrong))
    assert set(found) == {"name", "sink.subject", "source.pipeline"}
    assert "PUT /watchers/second" in found["name"]
    assert "watcher first" in found["sink.subject"]


async def test_a_conflict_names_the_fields_with_which_it_can_be_resolved(service: Live) -> None:
    await service.add("first", checkpoint={"collection": f"place_{service.unique}"})
    second = service.definition("second", checkpoint={"collection": f"place_{service.unique}"})
    answer = await service.call("POST", "/watchers", 409, json=second)
    assert set(said(answer)) == {"sink.subject", "checkpoint.collection"}
    await service.streams.create(f"{service.stream}_3", subjects=[f"other_{service.unique}.>"])
    third = service.definition("third", sink={"stream": f"{service.stream}_3"})
    assert set(said(await service.call("POST", "/watchers", 409, json=third))) == {"sink.stream"}


async def test_a_put_is_told_everything_too(service: Live) -> None:
    await service.add()
    wrong = service.definition(sink={"replicas": 3, "stream": f"{service.stream}_2"}, source=NONSENSE)
    found = said(await service.call("PUT", "/watchers/orders", 422, json=wrong))
    assert set(found) == {"sink.replicas", "source.pipeline"}
    moved = service.definition(source={"collection": "other"}, sink={"replicas": 3, "stream": f"{service.stream}_2"})
    found = said(await service.call("PUT", "/watchers/orders", 422, json=moved))
    assert set(found) == {"sink.replicas", "source"}
    service.insert(1)
    await service.seen("1")


async def test_a_list_is_told_everything_with_the_names_of_its_watchers(service: Live) -> None:
    await service.add("there", paused=True)  # one that runs would store its position meanwhile
    before = await service.facts()
    many = [
        service.definition("there", source={"collection": "a"}),
        service.definition("fine", source={"collection": "b"}),
        service.definition("pipeline", source={"collection": "c", **NONSENSE}),
        service.definition("rules", source={"collection": "d$"}, sink={"stream": "a.b"}),
        service.definition("twin", source={"collection": "b"}),
        service.definition("fine", source={"collection": "e"}, sink={"replicas": 3}),
    ]
    errors = (await service.call("POST", "/watchers", 422, json=many)).json()["errors"]
    assert sorted((each["field"], each["watcher"]) for each in errors) == [
        ("[0].name", "there"),
        ("[2].source.pipeline", "pipeline"),
        ("[3].sink.stream", "rules"),
        ("[3].source.collection", "rules"),
        ("[4].sink.subject", "twin"),
        ("[5].name", "fine"),
        ("[5].sink.replicas", "fine"),
    ]
    assert await service.facts() == before


async def test_a_list_with_conflicts_alone_is_409_with_the_names_of_its_watchers(service: Live) -> None:
    await service.add("there")
    many = [
        service.definition("new", source={"collection": "a"}),
        service.definition("there", source={"collection": "b"}),
    ]
    answer = await service.call("POST", "/watchers", 409, json=many)
    assert [(each["field"], each["watcher"]) for each in answer.json()["errors"]] == [("[1].name", "there")]
    assert answer.json()["detail"].startswith("[1] there is a watcher there already")
    assert [each["name"] for each in await service.get("/watchers")] == ["there"]
