"""Jobs and finals to fill a spool with, and ways to hold its thread and to look at what it does."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.contract.jobs import Job, Key, Message
from agent.spool import Spool, StoredFinal


def job(job_id: str, prompt: str = "Is anyone at the door?") -> Job:
    return Job(client="porch", id=job_id, messages=(Message(role="user", content=prompt),))


def key(job_id: str) -> Key:
    return Key("porch", job_id)


def final(job_id: str, payload: bytes = b"{}", finished_at: float = 1000.0) -> StoredFinal:
    return StoredFinal(key(job_id), payload, f"slm/box1/res/porch/{job_id}/final", b"\x00\x01", finished_at)


async def unsent(spool: Spool) -> list[tuple[str, bytes]]:
    return [(each.key.id, each.payload) for each in await spool.outgoing(0, 10_000)]


@asynccontextmanager
async def held(spool: Spool) -> AsyncIterator[None]:
    """Keep the writer thread in one operation, so that what is asked for meanwhile makes the next batch."""
    entered, gate = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        entered.set()
        gate.wait(10)

    holding = asyncio.create_task(spool._do(hold, durable=False))
    await asyncio.to_thread(entered.wait, 10)
    try:
        yield
    finally:
        gate.set()
        await holding


async def traced(spool: Spool) -> list[str]:
    """Return a list that each statement is added to, from the end of this transaction on."""
    statements: list[str] = []
    await spool._do(lambda database: database._connection.set_trace_callback(statements.append))
    return statements
