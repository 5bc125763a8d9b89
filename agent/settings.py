"""What can be configured, with its defaults and its bounds. Reading the layers is `agent.layers`'s work."""

import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _hostname() -> str:
    """Return this machine's name, made an identifier."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64] or "box"


class Device(_Section):
    """Which box this is."""

    id: Identifier = Field(
        default_factory=_hostname, description="The {node} level of every topic; by default this machine's name."
    )
    groups: tuple[Identifier, ...] = Field(default=(), description="Fleet groups whose files apply to this box.")


class Tls(_Section):
    """TLS towards the broker; present means on. Without ``ca_file`` the system's authorities are trusted."""

    ca_file: Path | None = Field(default=None, description="PEM file of the authority that signed the broker.")
    cert_file: Path | None = Field(default=None, description="PEM client certificate, for mutual TLS.")
    key_file: Path | None = Field(default=None, description="PEM key of the client certificate.")

    @model_validator(mode="after")
    def _certificate_and_key_go_together(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class Mqtt(_Section):
    """The broker and how to speak with it."""

    host: str = Field(default="127.0.0.1", description="The broker's name or address.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=1883, description="The broker's port; 8883 is usual with TLS."
    )
    root: Annotated[str, Field(pattern=r"^[^+#/\x00]+(/[^+#/\x00]+)*$", max_length=128)] = Field(
        default="slm", description="First level or levels of every topic."
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="auto tries MQTT 5 and falls back to 3.1.1."
    )
    username: str | None = Field(default=None, description="The login; without one, none is offered.")
    password: SecretStr | None = Field(default=None, description="From the environment only, never from YAML.")
    password_file: Path | None = Field(default=None, description="A file whose first line is the password.")
    tls: Tls | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = Field(
        default=30, description="A dead link is noticed after at most one and a half of these."
    )


class Models(_Section):
    """Which model serves what, and where models are kept."""

    text: str = Field(default="smollm2-135m", description="A catalogue name, or a folder with a genai_config.json.")
    dir: Path | None = Field(default=None, description="Where pulled models are kept; by default state_dir/models.")


class Engine(_Section):
    """The local engine's share of the machine."""

    slots: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Jobs that run at the same time; each has a KV cache of its own."
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Threads of one inference step; by default one a physical core."
    )


class Queue(_Section):
    """How much may wait."""

    max_jobs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=64, description="Jobs waiting to start; one more is refused with queue_full."
    )


class Limits(_Section):
    """What a single request may ask for."""

    # Eight times the text that fills a window of 8,192 tokens. A request is read on the event loop: 1 MiB of nested
    # brackets took 80 ms there, and what waits is kept in memory.
    text_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=256 << 10, description="Largest request that is text or JSON."
    )
    image_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=8 << 20, description="Largest raw frame, a JPEG or a PNG."
    )
    max_tokens: Annotated[int, Field(ge=1)] = Field(
        default=512, description="Longest answer of a job that does not say, in tokens."
    )


class Streaming(_Section):
    """How the words go out."""

    flush_ms: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=50, description="After the first, chunks are gathered this long before they are published."
    )


class Spool(_Section):
    """What is kept on disk."""

    retention_s: Seconds = Field(
        default=86_400, description="How long a final is kept, to answer a repeat of its request."
    )


class Log(_Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is less than this is not logged."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto is readable on a terminal and JSON elsewhere."
    )


class Settings(BaseSettings):
    """One box's whole configuration, which is what it is given: `agent.layers` reads the environment.

    pydantic-settings would pass over variables that it does not know.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix="EDGE_SLM__", env_nested_delimiter="__")

    device: Device = Field(default_factory=Device)
    mqtt: Mqtt = Field(default_factory=Mqtt)
    state_dir: Path = Field(default=Path("/var/lib/edge-slm"), description="The spool and the models live here.")
    models: Models = Field(default_factory=Models)
    engine: Engine = Field(default_factory=Engine)
    queue: Queue = Field(default_factory=Queue)
    limits: Limits = Field(default_factory=Limits)
    streaming: Streaming = Field(default_factory=Streaming)
    spool: Spool = Field(default_factory=Spool)
    log: Log = Field(default_factory=Log)
    metrics_s: Seconds = Field(default=5, description="Seconds between two metrics messages.")
    drain_s: Seconds = Field(default=20, description="How long running jobs may take to finish at shutdown.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave one source, the values that were passed."""
        return (init_settings,)

    @property
    def spool_file(self) -> Path:
        """Where requests and answers are kept while they are under way."""
        return self.state_dir / "spool.sqlite3"

    @property
    def models_dir(self) -> Path:
        """Where pulled models are kept."""
        return self.models.dir or self.state_dir / "models"
