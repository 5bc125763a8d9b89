"""kill -9, at points nobody chose: what a caller was told is there is there."""

import asyncio
import random
import sys
from pathlib import Path

from agent.spool import Spool

_ROUNDS = 8


async def killed_after(lines: int, path: Path, life: int) -> list[str]:
    """Run the child until it printed ``lines`` lines, kill it, and return all that it printed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.spool.writing_child", str(path), str(life), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    told = [await child.stdout.readline() for _ in range(lines)]
    child.kill()
    # A line torn by the kill has no newline, and told nobody anything.
    told += [line for line in (await child.stdout.read()).splitlines(keepends=True) if line.endswith(b"\n")]
    await child.wait()
    return [line.decode().strip() for line in told]


async def test_what_was_told_to_be_committed_survives_kill_9(path: Path) -> None:
    accepted: set[str] = set()
    finished: set[str] = set()
    left: dict[str, int] = {}
    for life in range(_ROUNDS):
        for line in await killed_after(random.randint(1, 1500), path, life):
            match line.split():
                case "accepted", job_id:
                    accepted.add(job_id)
                case "finished", job_id:
                    finished.add(job_id)
                case "left", job_id, total:
                    left[job_id] = int(total)

        spool = await Spool.open(path)
        recovered = await spool.recover()
        spent = max((requests for _, _, requests, _, _ in await spool.spending()), default=0)
        unfinished = [each.key.id for each in recovered]
        waiting = await spool.outgoing(0, 1_000_000)
        await spool.close()

        finals = {row.key.id for row in waiting}
        assert len(finals) == len(waiting)
        assert not finals & set(unfinished)
        assert finished <= finals
        assert accepted <= finals | set(unfinished)
        assert spent >= max(left.values(), default=0)
        assert {*left} <= {each.key.id for each in recovered if each.egress} | finals
        assert all(row.payload == row.key.id.encode() for row in waiting)
