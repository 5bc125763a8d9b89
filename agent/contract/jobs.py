"""A job as the house carries it: validated, normalised, and able to go to disk and back."""

from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Priority: TypeAlias = Literal["low", "normal", "high"]
Policy: TypeAlias = Literal["prefer_local", "local_only", "prefer_cloud", "cloud_only"]
Role: TypeAlias = Literal["system", "user", "assistant"]

Text: TypeAlias = Annotated[str, Field(min_length=1)]


class Key(NamedTuple):
    """What makes a job unique on its node; a repeat of it is a duplicate."""

    client: str
    id: str


class _Strict(BaseModel):
    """No coercion, no unknown field, no NaN: what a client sent is what it meant. No error shows what was sent."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class ImageUrl(_Strict):
    """A picture by data URI; ``detail`` is OpenAI's."""

    url: Text
    detail: Literal["low", "auto", "high"] = "auto"


class TextPart(_Strict):
    """A text part of a message's content."""

    type: Literal["text"]
    text: Text


class ImagePart(_Strict):
    """A picture among a message's content."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Strict):
    """One turn of a conversation, as in OpenAI's chat completions."""

    role: Role
    content: Text | Annotated[list[Part], Field(fail_fast=True, min_length=1, max_length=256)]

    @property
    def text(self) -> str:
        """The turn's text parts, one after another."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> list[ImageUrl]:
        """The turn's pictures, in order."""
        if isinstance(self.content, str):
            return []
        return [part.image_url for part in self.content if isinstance(part, ImagePart)]


class JsonSchema(_Strict):
    """OpenAI's wrapper around a JSON schema."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(_Strict):
    """What shape the answer must have; ``json_schema`` needs its schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Sampling(_Strict):
    """How the next token is chosen. Unset means the model's own default (greedy, if it has none)."""

    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(fail_fast=True, max_length=8)
    ] = ()


class Reply(_Strict):
    """Where a job's answers go, and what must be echoed with them.

    Attributes:
        topic: an MQTT 5 response topic that passed the guard, or None for the default topics.
        correlation: MQTT 5 correlation data as it came, in hexadecimal.
        notice: what of it was asked for and is not done, such as a response topic that is not used.

    """

    topic: str | None = None
    correlation: str | None = None
    notice: str | None = None


class Job(_Strict):
    """One accepted request. It is what the spool stores and every later room reads."""

    client: str
    id: str
    messages: tuple[Message, ...]
    model: str | None = None
    sampling: Sampling = Sampling()
    response_format: ResponseFormat | None = None
    stream: bool = True
    priority: Priority = "normal"
    deadline_s: float | None = None
    placement: Policy | None = None
    private: bool = False
    reply: Reply = Reply()

    @property
    def key(self) -> Key:
        """The job's identity on this node."""
        return Key(self.client, self.id)

    @property
    def images(self) -> int:
        """How many pictures the job carries."""
        return sum(len(message.images) for message in self.messages)

    def dump(self) -> bytes:
        """Serialise for the spool."""
        return self.model_dump_json(exclude_defaults=True, by_alias=True).encode()

    @classmethod
    def load(cls, data: bytes) -> "Job":
        """Read back what `dump` wrote."""
        return cls.model_validate_json(data)
