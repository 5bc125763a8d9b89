"""A job as the house carries it: validated, normalised, and able to go to disk and back."""

import struct
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Priority: TypeAlias = Literal["low", "normal", "high"]
Policy: TypeAlias = Literal["prefer_local", "local_only", "prefer_cloud", "cloud_only"]
Role: TypeAlias = Literal["system", "user", "assistant"]
Detail: TypeAlias = Literal["low", "auto", "high"]

Text: TypeAlias = Annotated[str, Field(min_length=1)]


class Key(NamedTuple):
    """What makes a job unique on its node; a repeat of it is a duplicate."""

    client: str
    id: str


class Strict(BaseModel):
    """No coercion, no unknown field, no NaN: what was sent is what was meant. No error shows what was sent."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class TextPart(Strict):
    """A text part of a message's content."""

    type: Literal["text"]
    text: Text


class PicturePart(Strict):
    """Where a picture stands among a message's content.

    Attributes:
        index: which of the job's pictures.
        detail: how closely the model looks: at 1, 4 or 16 crops of it at the most.

    """

    type: Literal["picture"]
    index: int
    detail: Detail = "auto"


Part: TypeAlias = Annotated[TextPart | PicturePart, Field(discriminator="type")]


class Message(Strict):
    """One turn of a conversation."""

    role: Role
    content: Text | list[Part]

    @property
    def text(self) -> str:
        """The turn's text parts, one after another."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class JsonSchema(Strict):
    """OpenAI's wrapper around a JSON schema."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Strict):
    """What shape the answer must have; ``json_schema`` needs its schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Sampling(Strict):
    """How the next token is chosen. Unset means the model's own default (greedy, if it has none)."""

    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(fail_fast=True, max_length=8)
    ] = ()


class Reply(Strict):
    """Where a job's answers go, and what must be echoed with them.

    Attributes:
        topic: an MQTT 5 response topic that passed the guard, or None for the default topics.
        pool: the name that was asked, where it is a pool's: the default topics are then under it.
        correlation: MQTT 5 correlation data as it came, in hexadecimal.
        notice: what of it was asked for and is not done, such as a response topic that is not used.

    """

    topic: str | None = None
    pool: str | None = None
    correlation: str | None = None
    notice: str | None = None


class Frame(Strict):
    """What a camera's policy asks of one of its frames; only a raw frame is one, a JSON job stands for itself.

    Attributes:
        min_interval_s: how long after the last frame of this camera was taken up this one may be, in seconds.
        similar_bits: how many of the 64 bits of a perceptual hash may differ from the last frame's that was looked
            at for this one to be skipped; None to look at all.

    """

    min_interval_s: float = 0.0
    similar_bits: int | None = None


class Job(Strict):
    """One accepted request. It is what the spool stores and every later room reads.

    Attributes:
        pictures: JPEG, PNG or GIF files as they came, their headers judged; the messages say where they stand.
        camera: the topic's camera, for everything that came on an image topic.
        named: whether its client chose the id, and so can repeat the request.
        frame: set for a raw frame: a newer one of the same client and camera takes its place while it waits.

    """

    client: str
    id: str
    messages: tuple[Message, ...]
    pictures: Annotated[tuple[bytes, ...], Field(exclude=True, repr=False)] = ()
    camera: str | None = None
    frame: Frame | None = None
    named: bool = True
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

    # A queue's forecasts ask for these two again and again, and a request of 243 KB can have 9,000 parts.
    @cached_property
    def text_size(self) -> tuple[int, int]:
        """How many turns it has, and how many bytes all their texts have in UTF-8."""
        return len(self.messages), sum(len(message.text.encode("utf-8", "replace")) for message in self.messages)

    @cached_property
    def details(self) -> tuple[Detail, ...]:
        """How closely the model looks, for each picture part."""
        contents = [message.content for message in self.messages if not isinstance(message.content, str)]
        return tuple(part.detail for parts in contents for part in parts if isinstance(part, PicturePart))

    def dump(self) -> bytes:
        """Serialise for the spool: a line of JSON, the pictures' lengths, the pictures.

        Pictures are not escaped into the JSON: a frame of 8 MiB would hold the event loop for 30 ms.
        """
        line = self.model_dump_json(exclude_defaults=True, by_alias=True).encode()
        if not self.pictures:
            return line
        lengths = struct.pack(f"<{len(self.pictures)}I", *map(len, self.pictures))
        return b"".join((line, b"\n", struct.pack("<I", len(self.pictures)), lengths, *self.pictures))

    @classmethod
    def load(cls, data: bytes) -> "Job":
        """Read back what `dump` wrote.

        Raises:
            ValueError: this version cannot read it.

        """
        line, has_pictures, rest = data.partition(b"\n")
        job = cls.model_validate_json(line)
        if not has_pictures:
            return job
        try:
            (count,) = struct.unpack_from("<I", rest)
            lengths = struct.unpack_from(f"<{count}I", rest, 4)
        except struct.error as error:
            raise ValueError("the pictures' lengths are cut off") from error
        ends = list(accumulate(lengths, initial=4 + 4 * count))
        if ends[-1] != len(rest):
            raise ValueError("the pictures are cut off")
        return job.model_copy(update={"pictures": tuple(rest[begin:end] for begin, end in pairwise(ends))})
