"""The shapes of the call that suggests what a watcher may be made of."""

from typing import Annotated

from pydantic import Field

from app.api.schemas.base import MAX_TEXT, Answer, Query, shown
from app.domain.suggestions import Suggested, Suggestions


class Wanted(Query):
    """The query of `GET /suggestions`."""

    database: Annotated[str, Field(max_length=MAX_TEXT)] | None = Field(
        default=None, description="The database whose collections are suggested; none without it."
    )


class SuggestedAnswer(Answer):
    """Names of one kind."""

    names: list[str]
    """In order, at most 500."""
    more: bool
    """Whether there are others beside these."""
    why: str | None
    """Why there are none: the server does not answer, the account may not list them, no database is named."""

    @staticmethod
    def of(found: Suggested) -> "SuggestedAnswer":
        return SuggestedAnswer.model_construct(names=list(found.names), more=found.more, why=shown(found.why))


class SuggestionsAnswer(Answer):
    """What exists already, as far as the accounts of the service may see it and a watcher may use it."""

    databases: SuggestedAnswer
    """Without system databases, the state database, and those beyond `CHANGEWIRE_NAMESPACES`."""
    collections: SuggestedAnswer
    """Of the database that was asked for; without views and time series, which have no change streams."""
    streams: SuggestedAnswer
    """Without those behind buckets, and of dead letters."""

    @staticmethod
    def of(found: Suggestions) -> "SuggestionsAnswer":
        return SuggestionsAnswer.model_construct(
            databases=SuggestedAnswer.of(found.databases),
            collections=SuggestedAnswer.of(found.collections),
            streams=SuggestedAnswer.of(found.streams),
        )
