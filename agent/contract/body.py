"""The JSON object of a request: the names it may hold, their values, and what is wrong with it in one sentence.

A hostile body is refused before it costs anything: it is walked for unknown names first, and that walk ends
early, because pydantic gathers an error for each of a million of them, in seconds. Where a body may hold a list,
pydantic stops at the first element that is wrong.
"""

import difflib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from agent.contract.jobs import (
    ImagePart,
    ImageUrl,
    JsonSchema,
    Message,
    Policy,
    Priority,
    ResponseFormat,
    Sampling,
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


class Body(Sampling):
    """The JSON object a client may send; its fields are those of the contract and no others."""

    id: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=_MAX_MESSAGES)] | None = None
    image: Text | None = None
    images: Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=100)] | None = None
    model: Text | None = None
    response_format: ResponseFormat | None = None
    stream: bool = True
    priority: Priority = "normal"
    deadline_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    placement: Policy | None = None
    private: bool = False

    @property
    def pictures(self) -> list[str]:
        """The pictures beside the prompt, in base64 or as data URIs."""
        return self.images or ([self.image] if self.image else [])

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
        if self.messages is not None and self.pictures:
            raise PydanticCustomError("images", "with `messages`, put pictures into their content as image_url parts")
        if self.response_format and (self.response_format.type == "json_schema") != bool(
            self.response_format.json_schema
        ):
            raise PydanticCustomError(
                "schema", "`json_schema` goes with response_format type `json_schema`, and only there"
            )
        return self

    def conversation(self) -> tuple[Message, ...]:
        """Return the turns, a bare prompt being one turn of the user."""
        if self.messages is not None:
            return tuple(_compact(message) for message in self.messages)
        if not self.pictures:
            return (Message(role="user", content=self.prompt or ""),)
        urls = [each if each.startswith("data:") else f"data:;base64,{each}" for each in self.pictures]
        parts: list[TextPart | ImagePart] = [ImagePart(type="image_url", image_url=ImageUrl(url=url)) for url in urls]
        if self.prompt is not None:
            parts.append(TextPart(type="text", text=self.prompt))
        return (Message(role="user", content=parts),)


def read_body(fields: dict[str, Any], *, pictures_suffice: bool) -> Body:
    """Validate a request's fields.

    Args:
        fields: the JSON object, parsed. A field that is null counts as left out.
        pictures_suffice: whether a prompt may be missing where there are pictures.

    Raises:
        ValueError: with a sentence that names the place, and the nearest known name of an unknown one.

    """
    _refuse_unknown(fields)
    try:
        body = Body.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None
    if body.prompt is None and body.messages is None and not (pictures_suffice and body.pictures):
        raise ValueError("give a `prompt` or `messages`")
    return body


def _compact(message: Message) -> Message:
    """Join a turn's texts if it has nothing else: a part costs memory, many times its text, for as long as it waits."""
    if isinstance(message.content, str) or message.images:
        return message
    return Message(role=message.role, content=message.text)


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
    messages=_shape(Message, content=_shape(TextPart, ImagePart, image_url=_shape(ImageUrl))),
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
