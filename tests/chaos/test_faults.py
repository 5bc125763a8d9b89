"""What the faults and those who look on write down of the agent's processes and files."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.contract.jobs import Key
from agent.spool import Spool, StoredFinal
from tests.boxes import Box
from tests.brokers import Broker
from tests.chaos import faults, plan
from tests.chaos.evidence import keep
from tests.chaos.faults import Faults, Unit, stored_finals
from tests.chaos.history import History, Quiet, Told
from tests.chaos.proxy import Link
from tests.chaos.running import at_rest
from tests.waiting import eventually

KEY = Key("five-a", "j1")


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Path]:
    """Make a spool that an agent has, and has not closed."""
    path = tmp_path / "state" / "spool.sqlite3"
    held = await Spool.open(path)
    await held.finish(StoredFinal(KEY, b'{"state": "SUCCEEDED"}', "slm/box1/res/five-a/j1/final", None, 0.0))
    yield path
    await held.close()


async def test_finals_are_read_from_a_spool_that_was_not_closed(spool: Path) -> None:
    assert stored_finals(spool) == [(KEY, b'{"state": "SUCCEEDED"}')]


async def test_the_spool_itself_is_left_as_it_was(spool: Path) -> None:
    before = {each.name: each.read_bytes() for each in spool.parent.iterdir() if each.name.startswith(spool.name)}
    stored_finals(spool)
    assert {name: (spool.parent / name).read_bytes() for name in before} == before


def test_an_agent_that_made_no_spool_stored_nothing(tmp_path: Path) -> None:
    assert stored_finals(tmp_path / "spool.sqlite3") == []


async def test_the_spool_is_looked_into_before_the_agent_is_started_again(tmp_path: Path, spool: Path) -> None:
    history = History()
    unit = Unit(Box(tmp_path, 1, Path()), spool, history)
    keeping = asyncio.create_task(unit.keep())
    async with unit.down(signal.SIGKILL):
        assert list(history.stored) == [(KEY, b'{"state": "SUCCEEDED"}')]
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping


async def test_the_spool_is_looked_into_at_the_end(tmp_path: Path, spool: Path) -> None:
    history = History()
    unit = Unit(Box(tmp_path, 1, Path()), spool, history)
    keeping = asyncio.create_task(unit.keep())
    await unit.pid()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert list(history.stored) == [(KEY, b'{"state": "SUCCEEDED"}')]


def test_a_spool_that_cannot_be_read_is_a_defect_of_the_agent(tmp_path: Path) -> None:
    spool, history = tmp_path / "spool.sqlite3", History()
    spool.write_bytes(b"no database, whatever it says" * 100)
    Unit(Box(tmp_path, 1, Path()), spool, history)._look_into_spool()
    assert len(history.deaths) == 1


@pytest.mark.parametrize("target", ["text worker", "link", "agent"])
async def test_a_fault_that_finds_nothing_to_hit_is_missed(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(faults, "_AWAY_S", 0.01)
    history = History()
    box = Box(tmp_path, broker.port, Path())
    monkeypatch.setattr(Box, "workers", [])
    unit = Unit(box, tmp_path / "spool.sqlite3", history)
    async with Link(broker.port, history) as link:
        await Faults(unit, box, broker, link, None, {"text": "text"}, history).strike(plan.Fault(target, "cut", 0.0))
    assert (history.missed, history.struck) == ([f"{target}: cut had nothing to hit for 0 s"], Counter())


async def test_a_stopped_worker_that_is_given_up_ends_its_fault(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History()
    box = Box(tmp_path, broker.port, Path())
    worker = await asyncio.create_subprocess_exec("tail", "-f", tmp_path / "box.yaml", stdout=asyncio.subprocess.PIPE)
    monkeypatch.setattr(Box, "workers", [worker.pid])
    unit = Unit(box, tmp_path / "spool.sqlite3", history)
    async with Link(broker.port, history) as link, asyncio.timeout(30):
        all_faults = Faults(unit, box, broker, link, None, {"text": str(tmp_path)}, history)
        striking = asyncio.create_task(all_faults.strike(plan.Fault("text worker", "stop", 60.0)))
        stat = Path(f"/proc/{worker.pid}/stat")
        await eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        worker.kill()
        await striking
    await worker.communicate()
    assert history.struck == {"text worker: stop": 1}


async def test_a_broker_that_is_killed_is_an_outage(tmp_path: Path, broker: Broker) -> None:
    history = History()
    box = Box(tmp_path, broker.port, Path())
    unit = Unit(box, tmp_path / "spool.sqlite3", history)
    async with Link(broker.port, history) as link:
        await Faults(unit, box, broker, link, None, {}, history).strike(plan.Fault("broker", "kill", 0.1))
    (outage,) = history.outages
    assert outage.how == "kill"
    assert outage.over - outage.began >= 0.1


def test_what_is_there_for_a_moment_is_not_there_at_rest() -> None:
    quiet = Quiet(1, 50_000_000, Counter({"socket": 3}), 5, 2)
    moment = replace(quiet, resident=70_000_000, files=Counter({"socket": 4, "file": 1}), threads=6, workers=3)
    assert at_rest([quiet, moment, quiet, moment, quiet]) == quiet


def test_what_is_there_all_the_time_is_there_at_rest() -> None:
    more = Quiet(1, 70_000_000, Counter({"socket": 4}), 6, 3)
    assert at_rest([more] * 5) == more


def test_a_run_that_broke_a_promise_leaves_what_was_seen_and_the_agents_state(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "spool.sqlite3").write_bytes(b"spool")
    seen = History({KEY: [1.0]}, acknowledged={KEY}, sent=[Told(KEY, "final", b"{}", 2.0, 1)])
    seen.stored[KEY, b"{}"] = 3.0
    seen.quiet.append(Quiet(1, 50_000_000, Counter({"socket": 3}), 5, 2))
    keep(seen, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert {"asked": [list(KEY), [1.0]]} in lines
    assert {"sent": {"key": list(KEY), "kind": "final", "payload": "{}", "at": 2.0, "connection": 1}} in lines
    assert (tmp_path / "state-at-end" / "spool.sqlite3").read_bytes() == b"spool"
