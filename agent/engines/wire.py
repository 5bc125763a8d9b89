"""What the parent and its worker say to each other, and how it looks on the pipe.

A frame is one line of JSON, then as many bytes as its ``length`` says (the shape of rhasspy/wyoming). The line
has the message's small fields; the payload is what may be large, so that a conversation of a megabyte is never
escaped into JSON twice. Neither pydantic nor anything heavy is imported: the worker starts with this module.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

# Ours are under 1 KB, but for a schema (which `MAX_SCHEMA` bounds). A longer line is not a frame.
MAX_HEADER = 256 << 10
# JSON schema of a job, in bytes as JSON. Compiling one blocks the worker; real ones have a few KB.
MAX_SCHEMA = 64 << 10
# Far over the largest conversation a broker lets through; a length beyond it is a broken pipe, not a message.
MAX_PAYLOAD = 64 << 20


class WireError(Exception):
    """The bytes are no frame. The pipe cannot be trusted any more: end the process at its other end."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Run a job.

    Attributes:
        job: the parent's number for it; never used twice in a worker's life.
        schema: a JSON schema, as JSON, that the answer must match.
        pictures: of each, in the order in which they stand in the conversation, how many bytes its file has, and how
            many crops it is cut into at the most.
        camera: whose frame this is, if it is only to be looked at when it shows something new.
        similar_bits: how much of its perceptual hash may differ for a frame to show nothing new.
        payload: the conversation as UTF-8 JSON, ``[{"role": …, "content": …}, …]``, then the pictures' files, one after
            another. A content is a string, or a list of strings with a null where a picture stands.

    """

    job: int
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None
    pictures: tuple[tuple[int, int], ...] = ()
    camera: str | None = None
    similar_bits: int = 0
    payload: bytes = b""

    @property
    def conversation(self) -> bytes:
        """The payload's first part."""
        return self.payload[: len(self.payload) - sum(length for length, _ in self.pictures)]

    @property
    def files(self) -> Iterator[tuple[bytes, int]]:
        """The pictures' files, and how many crops each is cut into at the most."""
        end = len(self.conversation)
        for length, most in self.pictures:
            yield self.payload[end : end + length], most
            end += length


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget a job. `Canceled` is the last that is said about it, whether it was known or not."""

    job: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded: its window in tokens, its execution provider, and how long that took.

    ``narrowed`` if the window ends where the model's first rotary factors do, since nobody could choose the others.
    """

    context: int
    provider: str
    load_s: float
    narrowed: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be loaded; the worker ends. ``message`` is a sentence that says what to do.

    ``lasting`` if the provider is one that no waiting will bring.
    """

    message: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """The job passed its checks and has a slot.

    Of its ``prompt`` tokens, ``image`` are its pictures', and ``cached`` need no computing. ``one_call`` if the others
    are computed in one, as pictures are, though there are none.
    """

    job: int
    prompt: int
    cached: int
    image: int = 0
    one_call: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """A slice of the job's prompt was computed, or tokens that have no text to show yet: the worker is not hung.

    ``anew`` before the job is moved to another cache: to fill that takes as long as before a job starts.
    """

    job: int
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """The next words of a job, UTF-8, whole characters; ``completion`` counts its tokens so far."""

    job: int
    completion: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The job ended by itself; tokens as the model counts them, the end token included.

    The worker spent ``prefill_s`` seconds on its prompt and ``decode_s`` on its answer, whatever ran beside it.
    The worker's KV caches, of all its slots, are ``held`` bytes now, in this message and in every other last one on a
    job: memory that is in use and not lost.
    """

    job: int
    finish_reason: Literal["stop", "length"]
    prompt: int
    completion: int
    cached: int
    image: int = 0
    held: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Similar:
    """The job's frame shows nothing new, and is not looked at."""

    job: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """The job cannot be run, or not be ended; ``code`` is one of the contract's."""

    job: int
    code: str
    message: str
    held: int = 0


@dataclass(frozen=True, slots=True)
class Canceled:
    """The job is forgotten, and its slot is free."""

    job: int
    held: int = 0


Ended: TypeAlias = Done | Similar | Refused | Canceled
Message: TypeAlias = Submit | Cancel | Ready | Failed | Started | Progress | Text | Ended

_TYPES: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}
_HEADERS = {kind: tuple(field.name for field in fields(kind) if field.name != "payload") for kind in _TYPES.values()}


def encode(message: Message) -> bytes:
    """Return the message's frame.

    Raises:
        WireError: it is larger than the other side would take.

    """
    kind = type(message)
    header: dict[str, Any] = {"type": kind.__name__}
    for name in _HEADERS[kind]:
        header[name] = getattr(message, name)
    payload: bytes = getattr(message, "payload", b"")
    if payload:
        header["length"] = len(payload)
    line = json.dumps(header, separators=(",", ":")).encode()
    if len(line) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
        raise WireError(f"a {kind.__name__} of {len(line)} + {len(payload)} bytes is too large for a frame")
    return line + b"\n" + payload


class Decoder:
    """Turns a stream of bytes, however it is cut, back into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: dict[str, Any] | None = None
        self._length = 0

    def __repr__(self) -> str:
        return f"<Decoder {len(self._buffer)} bytes held, header {self._header and self._header['type']}>"

    @property
    def partial(self) -> bool:
        """Whether a frame has begun whose end has not come."""
        return self._header is not None or bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take in bytes; yield every message that is complete.

        Raises:
            WireError: the bytes are no frame.

        """
        self._buffer += data
        while self._read_header() and len(self._buffer) >= self._length:
            payload = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            header, self._header = self._header, None
            yield _message(header or {}, payload)

    def _read_header(self) -> bool:
        """Return whether the header of the frame in progress is known."""
        if self._header is not None:
            return True
        end = self._buffer.find(b"\n")
        if max(end, len(self._buffer) if end < 0 else 0) > MAX_HEADER:
            raise WireError("no frame begins here: its first line does not end")
        if end < 0:
            return False
        try:
            header = json.loads(self._buffer[:end])
        except (ValueError, RecursionError) as error:
            raise WireError(f"no frame begins here: {bytes(self._buffer[: min(end, 80)])!r}") from error
        del self._buffer[: end + 1]
        length = header.pop("length", 0) if isinstance(header, dict) else None
        if not isinstance(length, int) or not 0 <= length <= MAX_PAYLOAD:
            raise WireError("no frame begins here: its length makes no sense")
        self._header, self._length = header, length
        return True


def _message(header: dict[str, Any], payload: bytes) -> Message:
    kind = _TYPES.get(str(header.pop("type", None)))
    if kind is None:
        raise WireError("a frame of an unknown type")
    if "payload" in header:
        raise WireError(f"a {kind.__name__} with its payload in its header")
    if payload:
        header["payload"] = payload
    try:
        if kind is Submit:
            header["stop"] = tuple(header["stop"])
            header["pictures"] = tuple(map(tuple, header["pictures"]))
        return kind(**header)
    except (KeyError, TypeError) as error:
        raise WireError(f"a {kind.__name__} with the wrong fields: {error}") from error
