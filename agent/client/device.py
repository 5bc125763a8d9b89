"""A device: whoever asks a box, and reads its words as they come."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from agent.client.link import ClientError, Link
from agent.contract.topics import Kind, Topics
from agent.settings import Mqtt


@dataclass(frozen=True, slots=True)
class Event:
    """What came back about a job: its kind, and the body as the contract describes it."""

    kind: Literal["state", "chunk", "final"]
    body: dict[str, Any]


_Events: TypeAlias = asyncio.Queue[Event | None]


class Client:
    """A device.

    Args:
        mqtt: the broker and the credentials.
        node: the box to ask.
        name: this device's ``{client}`` level; answers come to whoever asks under it.

    """

    def __init__(self, mqtt: Mqtt, node: str, name: str) -> None:
        self._topics = Topics(mqtt.root, node)
        self._name = name
        # What is told to the jobs that run; None: the connection is lost.
        self._jobs: dict[str, _Events] = {}
        # The same for frames whose jobs have no name yet, by their cameras.
        self._frames: dict[str, _Events] = {}
        self._status = ""
        self._online = asyncio.Event()
        filters = (f"{self._topics.results(name, '+')}/+", self._topics.status)
        self._link = Link(mqtt, name, filters, take=self._take, lost=self._lose)

    def __repr__(self) -> str:
        return f"<Client {self._link!r} jobs={len(self._jobs)}>"

    @property
    def version(self) -> str:
        """The MQTT version that it speaks with the broker."""
        return self._link.version

    async def __aenter__(self) -> Self:
        """Connect and subscribe; raises as the link does."""
        await self._link.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._link.__aexit__(kind, error, trace)

    def ask(self, request: Mapping[str, object], camera: str | None = None) -> AsyncIterator[Event]:
        """Publish a job and yield what comes back; the final is last.

        Args:
            request: the contract's fields; without an ``id`` it gets one.
            camera: whose image topic to ask on, where requests may have megabytes of pictures; None for the text topic.

        Raises:
            ClientError: the broker did not take it, or the connection was lost before its final.

        """
        body = {"id": secrets.token_hex(8), **request}
        payload = json.dumps(body, ensure_ascii=False).encode()
        kind = Kind.TEXT if camera is None else Kind.IMAGE
        return self._told(self._jobs, str(body["id"]), self._topics.request(self._name, kind, camera), payload)

    def show(self, camera: str, frame: bytes) -> AsyncIterator[Event]:
        """Publish a raw frame and yield what comes back, as `ask` does.

        It is the box that names the job, and until then nobody can tell two frames of one camera apart: show one at
        a time.
        """
        return self._told(self._frames, camera, self._topics.request(self._name, Kind.IMAGE, camera), frame)

    async def _told(self, table: dict[str, _Events], name: str, topic: str, payload: bytes) -> AsyncIterator[Event]:
        events = table[name] = asyncio.Queue()
        try:
            await self._link.publish(topic, payload)
            while True:
                event = await events.get()
                if event is None:
                    raise self._link.loss()
                yield event
                if event.kind == "final":
                    return
        finally:
            for each in (self._jobs, self._frames):
                for key in [key for key, queue in each.items() if queue is events]:
                    del each[key]

    async def online(self, seconds: float) -> None:
        """Wait for the box to say that it is online.

        Args:
            seconds: how long.

        Raises:
            ClientError: it did not.

        """
        try:
            async with asyncio.timeout(seconds):
                await self._online.wait()
        except TimeoutError:
            said = f"is {self._status}" if self._status else "has never been seen at this broker"
            raise ClientError(f"the box {self._topics.node} {said}: start it, or name another with --node") from None
        if self._link.lost:
            raise self._link.loss()

    async def cancel(self, job_id: str) -> None:
        """Ask that a job of this client's be ended.

        Raises:
            ClientError: the broker did not take it.

        """
        await self._link.publish(self._topics.request(self._name, Kind.CANCEL), job_id.encode())

    def _lose(self) -> None:
        """Wake everybody who waits for something to come over the connection."""
        for events in (*self._jobs.values(), *self._frames.values()):
            events.put_nowait(None)
        self._online.set()

    def _take(self, topic: str, payload: bytes) -> None:
        if topic == self._topics.status:
            self._status = payload.decode("ascii", "replace")
            if self._status == "online":
                self._online.set()
            return
        _, job_id, kind = topic.rsplit("/", 2)
        if kind not in ("state", "chunk", "final") or not (job_id in self._jobs or self._frames):
            return
        event = Event(kind, json.loads(payload))  # type: ignore[arg-type]
        # These two begin a job; what else comes of a camera is about frames of an earlier time.
        if job_id not in self._jobs and event.body.get("state") in ("accepted", "REJECTED"):
            camera = event.body.get("camera")
            if camera in self._frames:
                self._jobs[job_id] = self._frames.pop(camera)
        if job_id in self._jobs:
            self._jobs[job_id].put_nowait(event)
