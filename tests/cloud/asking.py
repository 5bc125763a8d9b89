"""Jobs for a cloud engine, and what the stand-in says to them."""

from typing import Any

from agent.contract.jobs import Job, Message

WORDS = "cloud0 cloud1 cloud2 cloud3 cloud4"


def job(name: str = "j1", text: str = "one two three", **fields: Any) -> Job:
    return Job(client="dev7", id=name, messages=(Message(role="user", content=text),), **fields)
