"""Suggestions are never an error: a list that cannot be had says why."""

from app.control.admission import Rules
from app.control.server_probe import ServerProbe
from app.control.suggestions import SuggestionService
from app.domain.errors import NotAuthorised
from app.domain.suggestions import Suggested, Suggestions
from tests.unit.deployment import Fakes


async def service(fakes: Fakes) -> SuggestionService:
    dependencies = fakes.dependencies()
    probe = ServerProbe(dependencies.mongo, dependencies.nats)
    await probe.look()
    return SuggestionService(dependencies, Rules("changewire"), probe)


def existing() -> Fakes:
    fakes = Fakes()
    fakes.mongo.existing = {"shop": ["orders", "items"], "changewire": ["watchers"]}
    fakes.stream("ORDERS")
    return fakes


async def test_what_exists_is_suggested() -> None:
    found = await (await service(existing())).of("shop")
    assert found == Suggestions(Suggested(("shop",)), Suggested(("items", "orders")), Suggested(("ORDERS",)))


async def test_collections_are_those_of_a_database_that_may_be_watched() -> None:
    suggestions = await service(existing())
    for database, why in (
        (None, "no database is named"),
        ("a b", "holds a character"),
        ("changewire", "not be watched"),
    ):
        found = (await suggestions.of(database)).collections
        assert found.names == ()
        assert why in str(found.why)


async def test_a_server_that_is_down_is_not_asked_and_the_other_one_is() -> None:
    fakes = existing()
    fakes.nats.up = False
    suggestions = await service(fakes)

    async def asked() -> tuple[list[str], bool]:
        raise AssertionError("NATS was asked")

    fakes.nats.stream_names = asked  # type: ignore[method-assign]  # the fake has no script for this
    found = await suggestions.of("shop")
    assert (found.streams.names, found.streams.why) == ((), "connection refused")
    assert found.databases.names == ("shop",)


async def test_what_the_account_may_not_ask_is_said() -> None:
    fakes = existing()
    suggestions = await service(fakes)

    async def refused() -> tuple[list[str], bool]:
        raise NotAuthorised("the NATS account may not publish to $JS.API.STREAM.NAMES")

    fakes.nats.stream_names = refused  # type: ignore[method-assign]  # the fake has no script for this
    assert "STREAM.NAMES" in str((await suggestions.of(None)).streams.why)
