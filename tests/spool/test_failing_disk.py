"""A disk that becomes read-only, is so from the start, or hangs."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.spool import Receipt, Spool, SpoolError, SpoolSick
from tests.filesystems import failing_disk, read_only, small_disk
from tests.spool.samples import final, held, job, key, unsent


async def test_a_disk_that_becomes_read_only_is_a_sentence_and_changes_nothing(tmp_path: Path) -> None:
    with failing_disk(tmp_path / "disk") as fail:
        spool = await Spool.open(tmp_path / "disk" / "spool.db")
        await spool.accept(job("a"), 1.0)
        await spool.finish(final("b", b"answer"))
        fail()
        for refused in (spool.accept(job("c"), 1.0), spool.finish(final("a")), spool.sent([1])):
            with pytest.raises(SpoolSick, match=r"the disk under .*spool\.db"):
                await refused
        assert await spool.known(key("a")) is Receipt.RUNNING
        assert await unsent(spool) == [("b", b"answer")]
        assert (spool.unfinished, spool.unsent) == (1, 1)
        await spool.close()


async def test_a_disk_that_is_read_only_at_the_start_is_the_disks_fault(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 32 << 20) as disk:
        spool = await Spool.open(disk / "spool.db")
        await spool.accept(job("a"), 1.0)
        await spool.close()
        with read_only(disk), pytest.raises(SpoolSick, match="Read-only file system"):
            await Spool.open(disk / "spool.db")
        spool = await Spool.open(disk / "spool.db")
        assert spool.unfinished == 1
        await spool.close()


async def test_close_does_not_wait_for_a_disk_that_hangs(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.spool.writer._CLOSE_S", 0.01)
    with capture_logs() as logged:
        async with held(spool):
            await spool.close()
            await spool.close()
            with pytest.raises(SpoolError, match="is closed"):
                await spool.accept(job("a"), 1.0)
    assert [each["event"] for each in logged] == ["spool.close_timed_out"] * 2
