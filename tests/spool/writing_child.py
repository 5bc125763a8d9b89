"""Writes to a spool for ever, and prints a line for each thing that it was told is there. Made to be killed."""

import asyncio
import itertools
import sys
from pathlib import Path

from agent.spool import Spool
from tests.spool.samples import final, job

MONTH = "2026-11"


async def main(path: Path, life: str) -> None:
    spool = await Spool.open(path)
    await spool.recover()
    numbers = itertools.count()
    left = {period: requests for period, _, requests, _, _ in await spool.spending()}.get(MONTH, 0)

    async def write() -> None:
        nonlocal left
        for number in numbers:
            job_id = f"{life}-{number}"
            await spool.accept(job(job_id), 1.0)
            print("accepted", job_id, flush=True)  # noqa: T201
            if number % 2:
                left += 1
                total = left
                await spool.leaving(job(job_id).key, [(MONTH, "", total, 0, 0.0)])
                print("left", job_id, total, flush=True)  # noqa: T201
            if number % 3:
                await spool.finish(final(job_id, job_id.encode()))
                print("finished", job_id, flush=True)  # noqa: T201

    async with asyncio.TaskGroup() as writers:
        for _ in range(8):
            writers.create_task(write())


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
