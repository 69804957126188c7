"""The shapes of the calls about a watcher's position: where it is to continue, and where it is."""

from pydantic import ConfigDict, model_validator

from app.api.schemas.base import TIMESTAMP_EXAMPLE, Answer, Shape, Time, Token, moment
from app.api.schemas.values import ResumeToken, StartAt, Timestamp
from app.domain.status import TokenView
from app.domain.watcher import Start, start_from_document


class Position(Shape):
    """Where a watcher continues: exactly one of the three fields."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"timestamp": TIMESTAMP_EXAMPLE},
            "oneOf": [
                {"required": [each], "properties": {each: {"not": {"type": "null"}}}}
                for each in ("token", "timestamp", "at")
            ],
        }
    )

    token: ResumeToken | None = None
    """After the event with this resume token (the `_data` string)."""
    timestamp: Timestamp | None = None
    """From this time, ISO 8601 with an offset."""
    at: StartAt | None = None
    """`latest` or `earliest`."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Position":
        if sum(value is not None for value in (self.token, self.timestamp, self.at)) != 1:
            raise ValueError("must have exactly one of token, timestamp and at")
        return self

    def to_start(self) -> Start:
        if self.token is not None:
            return start_from_document({"token": self.token})
        if self.timestamp is not None:
            return start_from_document({"timestamp": self.timestamp})
        return start_from_document({"at": self.at})


class TokenAnswer(Answer):
    """A watcher's stored position."""

    token: Token | None
    """The resume token's `_data`. Null before the first start."""
    cluster_time: Time | None
    stream_sequence: int | None
    epoch: int
    updated_at: Time | None

    @staticmethod
    def of(value: TokenView) -> "TokenAnswer":
        return TokenAnswer.model_construct(
            token=value.token,
            cluster_time=moment(value.cluster_time),
            stream_sequence=value.stream_sequence,
            epoch=value.epoch,
            updated_at=moment(value.updated_at),
        )
