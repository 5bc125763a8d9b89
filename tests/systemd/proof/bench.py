"""What the steps share: a device that asks, and jobs under way meanwhile."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from tests.systemd.proof.asking import Device
from tests.systemd.proof.machine import check

LONG = "Write a very long story about a lighthouse and its keeper."


@dataclass
class Load:
    """Jobs that were under way, and how many of them were told to try again."""

    jobs: list[str] = field(default_factory=list)
    refused: int = 0

    def __str__(self) -> str:
        told = f", {self.refused} of them that they try again" if self.refused else ""
        return f"{len(self.jobs)} jobs, all answered{told}"


class Bench:
    """What asks the box, from one step to the next."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(3)  # the box remembers what an earlier run has asked
        self._asked = 0

    @cached_property
    def device(self) -> Device:
        """A client, as soon as the broker has a login for it."""
        return Device("box1")

    def ask(self, prompt: str = "What is the capital of France?", max_tokens: int = 60) -> str:
        """Send a job; returns its id."""
        return self.device.ask(self._new_id(), prompt, max_tokens=max_tokens)

    def long_job(self, max_tokens: int = 200) -> str:
        """Send a job of some seconds, and wait for its first word; returns its id."""
        job = self.ask(LONG, max_tokens)
        self.device.began(job)
        return job

    def answers(self) -> None:
        """Have the box answer."""
        final = self.device.final(self.ask())
        check("Paris" in final["text"], f"it answers {final['text']!r}")

    def sees(self) -> str:
        """Have the box say what is in a picture of a red square."""
        text: str = self.device.final(self.device.show(self._new_id()))["text"]
        return text

    @contextmanager
    def under_load(self) -> Iterator[Load]:
        """Have eight jobs under way or waiting all the time; at the end, each that there was has its one answer."""
        load = Load()
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                load.jobs.append(self.ask(LONG))
                self.device.at_most(8, load.jobs, done)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            self.long_job(max_tokens=20)
            yield load
        finally:
            done.set()
            asking.join()
        for job in load.jobs:
            answer = self.device.verdict(job, timeout=180)
            if answer["state"] != "SUCCEEDED":
                check(answer["error"]["retryable"], f"{job} ended {answer['state']}: {answer['error']}")
                load.refused += 1

    def _new_id(self) -> str:
        self._asked += 1
        return f"{self._run}-{self._asked}"
