"""The settings of traces: one of ours, and three of OpenTelemetry's own, under its names.

Its other variables are read by its SDK, from the environment alone. What is wrong with its variables matters only where
tracing is on: they may be there for other programs.
"""

from importlib.util import find_spec
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings

from app.config.variables import variable


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class TracingSettings(BaseSettings):
    """The part of the settings that is about traces."""

    tracing: Annotated[Literal["off", "spans", "messages"], BeforeValidator(_lower)] = Field(
        default="off", examples=["spans"]
    )
    """What is traced, with OpenTelemetry ([tracing](tracing.md)): off; spans, one for each opening, batch read, batch
    published and position stored; messages, the spans, and each message names its batch's in a header `traceparent`.
    Needs the extra `otel`. Default: off."""

    otel_exporter_otlp_endpoint: str | None = Field(default=None, examples=["http://127.0.0.1:4318"])
    """Where spans go: the address of a collector that takes OTLP over HTTP, without `/v1/traces`. Default: none; the
    collector of this machine, `http://localhost:4318`."""

    otel_service_name: str | None = Field(default=None, examples=["changewire"])
    """The name of the service on its spans. Default: changewire, unless `OTEL_RESOURCE_ATTRIBUTES` has one."""

    otel_sdk_disabled: str = Field(default="false", examples=["true"])
    """true switches traces off, whatever CHANGEWIRE_TRACING says. Default: false."""

    @property
    def traces(self) -> bool:
        """Whether anything is traced."""
        return self.tracing != "off" and self.otel_sdk_disabled.strip().lower() != "true"

    @model_validator(mode="after")
    def _check_tracing(self) -> Self:
        problem = tracing_problem(self.otel_exporter_otlp_endpoint) if self.traces else None
        if problem is not None:
            raise ValueError(problem)
        return self


def tracing_problem(endpoint: str | None) -> str | None:
    """Say in a sentence why nothing can be traced; None where it can be."""
    if not _is_installed():
        return (
            f"{variable('tracing')} is set, and OpenTelemetry is not installed: run pip install 'changewire[otel]', or "
            "set it to off"
        )
    try:
        parts = urlsplit(endpoint or "http://localhost:4318")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        return (
            f"{variable('otel_exporter_otlp_endpoint')} is not the address of a collector that takes OTLP over HTTP. "
            "Example: http://127.0.0.1:4318"
        )
    return None


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.sdk.trace") is not None and (
            find_spec("opentelemetry.exporter.otlp.proto.http") is not None
        )
    except ModuleNotFoundError:
        return False
