"""The JSON object of a request: the names it may hold, their values, and what is wrong with it in one sentence.

A raw frame is read as such an object, too, made of its camera's defaults and the message's user properties.

A hostile body is refused before it costs anything: it is walked for unknown names first, and that walk ends
early, because pydantic gathers an error for each of a million of them, in seconds. Where a body may hold a list,
pydantic stops at the first element that is wrong.
"""

import difflib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from agent.contract import pictures
from agent.contract.errors import Code, JobError
from agent.contract.jobs import (
    Detail,
    JsonSchema,
    Message,
    Part,
    PicturePart,
    Policy,
    Priority,
    ResponseFormat,
    Role,
    Sampling,
    Strict,
    Text,
    TextPart,
)

# A conversation longer than this is a mistake or an attack; every turn costs memory before the model sees it.
_MAX_MESSAGES = 1000
# Messages, parts and what is in them: room for 1,000 turns with a text and a picture each. 1 MiB could hold 38,000
# parts in legal messages, 0.1 s of the event loop here and several times that on a small board.
_MAX_OBJECTS = 4096
# Of a name that a client made up, what an error message repeats.
_SHOWN = 64
# In the place of a bad content, pydantic names the union's members that it tried: messages, 0, content,
# <str or list>, 0, <text or image_url>, … Here is where they stand.
_TAGS = (3, 5)

_Place: TypeAlias = tuple[str | int, ...]


class ImageUrl(Strict):
    """A picture by data URI; ``detail`` is OpenAI's."""

    url: Text
    detail: Detail | None = None


class ImagePart(Strict):
    """A picture among a turn's content."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Turn(Strict):
    """One turn of a conversation, as in OpenAI's chat completions."""

    role: Role
    content: (
        Text
        | Annotated[
            list[Annotated[TextPart | ImagePart, Field(discriminator="type")]],
            Field(fail_fast=True, min_length=1, max_length=256),
        ]
    )


class Bounds(NamedTuple):
    """How much of pictures one job may bring: how many, and of how many pixels each."""

    pictures: int
    pixels: int


class Body(Sampling):
    """The JSON object a client may send; its fields are those of the contract and no others."""

    id: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[Turn], Field(fail_fast=True, min_length=1, max_length=_MAX_MESSAGES)] | None = None
    image: Text | None = None
    images: Annotated[list[Text], Field(fail_fast=True, min_length=1)] | None = None
    detail: Detail = "auto"
    model: Text | None = None
    response_format: ResponseFormat | None = None
    stream: bool = True
    priority: Priority = "normal"
    deadline_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    placement: Policy | None = None
    private: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_stop_is_a_list_of_one(cls, data: dict[str, Any]) -> dict[str, Any]:
        stop = data.get("stop", ())
        if isinstance(stop, str):
            return {**data, "stop": (stop,)}
        if isinstance(stop, list):
            return {**data, "stop": tuple(stop)}
        return data

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if self.prompt is not None and self.messages is not None:
            raise PydanticCustomError("both", "give either `prompt` or `messages`, not both")
        if self.images is not None and self.image is not None:
            raise PydanticCustomError("both_images", "give either `image` or `images`, not both")
        if self.messages is not None and (self.image or self.images):
            raise PydanticCustomError("images", "with `messages`, put pictures into their content as image_url parts")
        if self.response_format and (self.response_format.type == "json_schema") != bool(
            self.response_format.json_schema
        ):
            raise PydanticCustomError(
                "schema", "`json_schema` goes with response_format type `json_schema`, and only there"
            )
        return self

    def conversation(self, bounds: Bounds, frame: bytes | None = None) -> tuple[tuple[Message, ...], tuple[bytes, ...]]:
        """Return the turns and their pictures, a bare prompt being one turn of the user, after its pictures.

        Args:
            bounds: what one job may bring.
            frame: a picture that came raw.

        Raises:
            JobError: a picture cannot be used.

        """
        album = _Album(bounds)
        if self.messages is not None:
            turns = tuple(self._message(turn, album) for turn in self.messages)
            return turns, tuple(album.files)
        texts = self.images or ([self.image] if self.image else [])
        album.expect(len(texts) + (frame is not None))
        parts: list[Part] = [album.add(*pictures.from_text(text), self.detail) for text in texts]
        if frame is not None:
            parts.append(album.add(frame, None, self.detail))
        if not parts:
            return (Message(role="user", content=self.prompt or ""),), ()
        if self.prompt is not None:
            parts.append(TextPart(type="text", text=self.prompt))
        return (Message(role="user", content=parts),), tuple(album.files)

    def _message(self, turn: Turn, album: "_Album") -> Message:
        if isinstance(turn.content, str):
            return Message(role=turn.role, content=turn.content)
        album.expect(sum(isinstance(part, ImagePart) for part in turn.content))
        parts: list[Part] = [
            part
            if isinstance(part, TextPart)
            else album.add(*pictures.from_text(part.image_url.url), part.image_url.detail or self.detail)
            for part in turn.content
        ]
        if any(isinstance(part, PicturePart) for part in parts):
            return Message(role=turn.role, content=parts)
        # A part costs memory, many times its text, for as long as it waits.
        return Message(role=turn.role, content="\n".join(part.text for part in parts if isinstance(part, TextPart)))


class _Album:
    """The pictures of one request, gathered in their order."""

    def __init__(self, bounds: Bounds) -> None:
        self.files: list[bytes] = []
        self._bounds = bounds

    def expect(self, count: int) -> None:
        """Refuse pictures that are too many before the first of them is decoded from base64."""
        count += len(self.files)
        if count > self._bounds.pictures:
            raise JobError(
                Code.TOO_LARGE, f"the request has {count} pictures or more, and may have {self._bounds.pictures}"
            )

    def add(self, data: bytes, said: str | None, detail: Detail) -> PicturePart:
        pictures.judge(data, self._bounds.pixels, said)
        self.files.append(data)
        return PicturePart(type="picture", index=len(self.files) - 1, detail=detail)


def read_body(fields: dict[str, Any], no_prompt: str = "give a `prompt` or `messages`") -> Body:
    """Validate a request's fields.

    Args:
        fields: the JSON object, parsed. A field that is null counts as left out.
        no_prompt: what to say to a request that asks nothing.

    Raises:
        ValueError: with a sentence that names the place, and the nearest known name of an unknown one.

    """
    _refuse_unknown(fields)
    try:
        body = Body.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None
    if body.prompt is None and body.messages is None:
        raise ValueError(no_prompt)
    return body


class _Shape(NamedTuple):
    """The names that an object may hold, and which of them lead to further objects, alone or in a list."""

    names: frozenset[str]
    inside: dict[str, "_Shape"]


def _shape(*models: type[BaseModel], **inside: _Shape) -> _Shape:
    fields = [item for model in models for item in model.model_fields.items()]
    return _Shape(frozenset(field.alias or name for name, field in fields), inside)


# What is inside a schema is its own.
_REQUEST = _shape(
    Body,
    messages=_shape(Turn, content=_shape(TextPart, ImagePart, image_url=_shape(ImageUrl))),
    response_format=_shape(ResponseFormat, json_schema=_shape(JsonSchema)),
)


def _refuse_unknown(fields: dict[str, Any]) -> None:
    for count, (place, found, shape) in enumerate(_objects(fields, _REQUEST, ())):
        if count == _MAX_OBJECTS:
            raise ValueError(f"the request has more than {_MAX_OBJECTS:,} messages, parts and other objects")
        name = next((name for name in found if name not in shape.names), None)
        if name is not None:
            near = difflib.get_close_matches(name[:_SHOWN], shape.names, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(sorted(shape.names))}"
            raise ValueError(f"unknown field `{_path((*place, name[:_SHOWN]))}`; {hint}")


def _objects(value: object, shape: _Shape, place: _Place) -> Iterator[tuple[_Place, dict[str, Any], _Shape]]:
    """Yield every object of a request with its place, outermost first."""
    if isinstance(value, dict):
        yield place, value, shape
        for name, inner in shape.inside.items():
            yield from _objects(value.get(name), inner, (*place, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            if isinstance(each, dict):
                yield from _objects(each, shape, (*place, index))


def _sentence(error: ValidationError) -> str:
    """Turn pydantic's findings into one sentence, about the most deeply placed one."""
    worst = max(error.errors(include_url=False, include_context=False, include_input=False), key=_rank)
    place = [step for at, step in enumerate(worst["loc"]) if worst["loc"][0] != "messages" or at not in _TAGS]
    if worst["type"].startswith("union_tag"):
        return f"`{_path(place)}`: a part needs the `type` text or image_url"
    message = worst["msg"][:1].lower() + worst["msg"][1:]
    return f"`{_path(place)}`: {message}" if place else message


def _rank(error: ErrorDetails) -> tuple[int, bool]:
    """Rank a finding by its depth; of two about one content, that it is no string, or no list, says the less."""
    return len(error["loc"]), error["type"] not in {"string_type", "list_type"}


def _path(steps: Iterable[str | int]) -> str:
    return ".".join(map(str, steps))
