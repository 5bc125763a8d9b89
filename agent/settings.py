"""What can be configured, with its defaults and its bounds. Reading the layers is `agent.layers`'s work."""

import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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

    text: str | None = Field(
        default="smollm2-135m",
        description="A catalogue name, or a folder with a genai_config.json; null lets the vision model do both.",
    )
    vision: str | None = Field(default=None, description="The same, for pictures; without one they are refused.")
    dir: Path | None = Field(default=None, description="Where pulled models are kept; by default state_dir/models.")
    catalogue_file: Path | None = Field(
        default=None, description="YAML with models of your own, over those that `edge-slm models list` shows."
    )

    @model_validator(mode="after")
    def _there_is_one(self) -> Self:
        if self.text is None and self.vision is None:
            raise ValueError("name a text model, a vision model, or both")
        return self


class Engine(_Section):
    """The local engine's share of the machine."""

    slots: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Jobs that the text model runs at the same time; each has a KV cache of its own."
    )
    # A picture at 16 crops takes 2,509 tokens, which are 1 GB of KV cache in Phi-3.5-vision on CPU.
    vision_slots: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Jobs that the vision model runs at the same time."
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Threads of one inference step; by default one for each real core of the fastest kind.",
    )
    provider: Literal["auto", "cpu", "cuda", "NvTensorRtRtx", "QNN", "VitisAI", "RyzenAI", "OpenVINO", "WebGPU"] = (
        Field(
            default="auto",
            description="The execution provider; auto takes the best that this box has: `edge-slm doctor` says which.",
        )
    )
    provider_options: dict[str, str] = Field(
        default_factory=dict, description="The provider's own options by their names; not with auto."
    )
    # The library's own arenas took 15 MB with the first pictures.
    leak_bytes: Annotated[int, Field(ge=32 << 20)] | None = Field(
        default=None,
        description="Bytes that an inference process may gain, beyond its KV caches, before it is replaced between "
        "jobs; by default a quarter of the box's memory, or of what its cgroup may have.",
    )


class Queue(_Section):
    """How much may wait."""

    max_jobs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=64, description="Jobs waiting to start, for each model; one more is refused with queue_full."
    )
    max_jobs_per_client: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Of these, the most that one client may have; by default three quarters of max_jobs."
    )


class Saturation(_Section):
    """From where on the box counts as saturated: what prefers it goes to the cloud, where there is one.

    Each is a high mark; the low one, below which it counts as recovered, is `agent.admission.saturation`'s.
    """

    wait_s: Seconds = Field(default=30, description="Predicted wait of a job that names no deadline, in seconds.")
    available_bytes: Annotated[int, Field(ge=0)] = Field(
        default=256 << 20, description="Memory that the kernel could still give away, in bytes; saturated below it."
    )
    memory_pressure: Annotated[float, Field(gt=0, le=100)] = Field(
        default=20, description="Share of the last 10 s in which something waited for memory, in percent."
    )
    temperature_c: Annotated[float, Field(gt=0, lt=125)] = Field(
        default=85, description="The hottest sensor's, in degrees Celsius."
    )


class Spending(_Section):
    """The most that may be spent in one period; null is no bound."""

    requests: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Requests sent, retries included.")
    tokens: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Tokens, of prompts and answers.")
    money: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Money, in the currency of price.")


class Allowance(_Section):
    """What one payer may spend; days and months are UTC's."""

    day: Spending = Field(default_factory=Spending)
    month: Spending = Field(default_factory=Spending)


class Budget(_Section):
    """What the cloud may cost. At zero it is not asked any more, until the period is over."""

    box: Allowance = Field(default_factory=Allowance)
    camera: Allowance = Field(default_factory=Allowance)


class Price(_Section):
    """What a million tokens cost, in whatever currency the budget is meant."""

    prompt: Annotated[float, Field(ge=0)] = Field(default=0, description="A million tokens of prompts.")
    completion: Annotated[float, Field(ge=0)] = Field(default=0, description="A million tokens of answers.")


class Cloud(_Section):
    """An endpoint with OpenAI's chat completions, for what this box cannot answer in time."""

    enabled: bool = Field(default=False, description="Whether anything may be sent there at all.")
    preset: Literal["nim", "github", "azure", "ollama", "llamacpp"] = Field(
        default="nim", description="Whose endpoint it is: what it is called, takes, and answers differently."
    )
    base_url: str | None = Field(
        default=None, description="Up to and without /chat/completions; by default the preset's own."
    )
    api_key: SecretStr | None = Field(default=None, description="From the environment only, never from YAML.")
    api_key_file: Path | None = Field(default=None, description="A file whose first line is the key.")
    text_model: str | None = Field(default=None, description="The endpoint's name for the model that answers text.")
    vision_model: str | None = Field(default=None, description="The same, for pictures; without one they stay here.")
    frames_to_cloud: Literal["never", "allowed"] = Field(
        default="never",
        description="Whether any picture may leave the box; its camera and its job may still forbid it.",
    )
    slots: Annotated[int, Field(ge=1, le=256)] = Field(default=8, description="Requests under way at the same time.")
    requests_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=40, description="The most that are sent in a minute; NVIDIA's free tier takes about 40."
    )
    budget: Budget = Field(default_factory=Budget)
    price: Price = Field(default_factory=Price)

    @model_validator(mode="after")
    def _money_has_a_price(self) -> Self:
        allowances = (self.budget.box, self.budget.camera)
        bounded = any(each.money is not None for payer in allowances for each in (payer.day, payer.month))
        if bounded and self.price == Price():
            raise ValueError("a budget of money needs a price: set price.prompt and price.completion")
        return self

    @model_validator(mode="after")
    def _something_is_there_to_be_asked(self) -> Self:
        if self.enabled and self.text_model is None and self.vision_model is None:
            raise ValueError("an enabled cloud needs text_model, vision_model, or both")
        return self

    @property
    def sees(self) -> bool:
        """Whether pictures may go there, and a model there reads them."""
        return self.vision_model is not None and self.frames_to_cloud == "allowed"


class Limits(_Section):
    """What a single request may ask for."""

    # Eight times the text that fills a window of 8,192 tokens. A request is read on the event loop: 1 MiB of nested
    # brackets took 80 ms there, and what waits is kept in memory.
    text_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=256 << 10, description="Largest request on the text topic."
    )
    # The queue holds 64 MiB of pictures; a larger request could never get in.
    image_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = Field(
        default=8 << 20, description="Largest request on an image topic, a frame or JSON with pictures in base64."
    )
    # 75 MB decoded. Cameras for a Raspberry Pi have 12 million.
    image_pixels: Annotated[int, Field(ge=256)] = Field(
        default=25_000_000, description="Largest picture, in pixels; a larger one is refused before it is decoded."
    )
    # At low detail, 12 fill a window of 4,096 tokens.
    images: Annotated[int, Field(ge=1, le=256)] = Field(default=10, description="Most pictures of one job.")
    max_tokens: Annotated[int, Field(ge=1)] = Field(
        default=512, description="Longest answer of a job that does not say, in tokens."
    )


class Camera(_Section):
    """What is asked about a camera's pictures where their request does not say, and which frames are looked at.

    A retained message on the camera's config topic has the same keys, and wins over these.
    """

    prompt: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The question about each raw frame."
    )
    detail: Literal["low", "auto", "high"] = Field(
        default="auto", description="How closely a picture is looked at: 1, 4 or 16 crops of 336 pixels at the most."
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Longest answer, in tokens."
    )
    priority: Literal["low", "normal", "high"] = Field(default="normal", description="Of the camera's jobs.")
    min_interval_s: Annotated[float, Field(ge=0)] = Field(
        default=0, description="Between the starts of two raw frames; the latest one waits for its time."
    )
    skip_similar: Annotated[int, Field(ge=0, le=32)] | None = Field(
        default=None,
        description="A raw frame is skipped if at most so many of 64 bits of its perceptual hash differ from the last "
        "frame's that was looked at; null looks at all.",
    )
    placement: Literal["prefer_local", "local_only", "prefer_cloud", "cloud_only"] | None = Field(
        default=None, description="Where its jobs may run; local_only cannot be loosened by a request."
    )
    private: bool = Field(default=False, description="Its pictures never leave the box, whatever a request says.")


class Source(_Section):
    """A topic of somebody else's on which frames arrive; the source's name is the {client} of their answers."""

    topic: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="A topic filter; one level may be {camera}, as in frigate/{camera}/+/snapshot."
    )
    camera: Identifier | None = Field(default=None, description="The camera, if no level of the topic names it.")
    prompt: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The question, for cameras that have no prompt of their own."
    )

    @model_validator(mode="after")
    def _names_a_camera_in_a_topic_filter(self) -> Self:
        levels = self.topic.split("/")
        if (levels.count("{camera}") == 1) == (self.camera is not None) or levels.count("{camera}") > 1:
            raise ValueError("the camera is one level of the topic, {camera}, or is given as camera")
        if levels[0] == "$share":
            raise ValueError("a shared subscription would give each box some of the frames; name the topic itself")
        if any(set(level) & set("+#\0") and level not in ("+", "#") for level in levels) or "#" in levels[:-1]:
            raise ValueError("the topic is no MQTT topic filter: + stands for a whole level, and # for the last ones")
        return self


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
    # What waits for the broker after hours without it; as answers of 2 KB they are 20 MB.
    max_jobs: Annotated[int, Field(ge=1)] = Field(
        default=10_000,
        description="Requests without an answer, and answers that the broker does not have; one more is refused with "
        "queue_full.",
    )
    # The pictures of a full queue, 64 MiB, and 100,000 answers of 2 KB, more than one a second for a day. Three damaged
    # files of this size and a new one are 1 GiB, beside 6 GB of models on a card of 16 GB.
    max_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        default=256 << 20,
        description="What the spool may hold, in bytes; sent answers are dropped early, then requests refused.",
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

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, env_prefix="EDGE_SLM__", env_nested_delimiter="__"
    )

    device: Device = Field(default_factory=Device)
    pool: Identifier | None = Field(
        default=None, description="A name under which several boxes share work; see docs/fleet.md for its limits."
    )
    remote_config: bool = Field(
        default=True, description="Whether what is published on this box's config/desired topic is obeyed."
    )
    mqtt: Mqtt = Field(default_factory=Mqtt)
    state_dir: Path = Field(default=Path("/var/lib/edge-slm"), description="The spool and the models live here.")
    models: Models = Field(default_factory=Models)
    engine: Engine = Field(default_factory=Engine)
    placement: Literal["prefer_local", "local_only", "prefer_cloud", "cloud_only"] = Field(
        default="prefer_local",
        description="Where jobs run that do not say; a camera's or a job's may only be stricter.",
    )
    saturation: Saturation = Field(default_factory=Saturation)
    cloud: Cloud = Field(default_factory=Cloud)
    queue: Queue = Field(default_factory=Queue)
    limits: Limits = Field(default_factory=Limits)
    cameras: dict[Identifier, Camera] = Field(default_factory=dict, description="Cameras by their names.")
    sources: dict[Identifier, Source] = Field(
        default_factory=dict, description="Topics of others on which frames arrive, by names of your choice."
    )
    streaming: Streaming = Field(default_factory=Streaming)
    spool: Spool = Field(default_factory=Spool)
    log: Log = Field(default_factory=Log)
    metrics_s: Annotated[float, Field(ge=0.1)] = Field(default=5, description="Seconds between two metrics messages.")
    drain_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=20, description="How long running jobs may take to finish at shutdown."
    )

    @field_validator("pool")
    @classmethod
    def _a_pool_is_no_box(cls, pool: str | None, info: ValidationInfo) -> str | None:
        device = info.data.get("device")
        if pool is not None and device is not None and pool == device.id:
            raise ValueError("this is the box's own name, and it would get each of the pool's jobs twice; name another")
        return pool

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
