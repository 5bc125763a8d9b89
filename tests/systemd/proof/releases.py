"""Installation, upgrades that go well and that do not, and removal."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.systemd.proof.bench import Bench
from tests.systemd.proof.machine import (
    CONFIG,
    HOME,
    SOURCE,
    STATE,
    check,
    of_service,
    pid,
    ready,
    run,
    script,
    systemctl,
    version,
    wait_until,
)

_RUN = '"""Serve until stopped."""'
_WORKER = '"""Load the model, then run jobs until the parent is gone. Return the exit code."""'
BROKEN = {
    "start": ("agent/cli/run.py", _RUN, 'raise RuntimeError("a release that cannot start")'),
    "hang": ("agent/cli/run.py", _RUN, '__import__("time").sleep(3600)'),
    "stay": ("agent/cli/run.py", _RUN, '__import__("threading").Timer(6, __import__("os")._exit, [70]).start()'),
    "load": ("agent/engines/worker/__main__.py", _WORKER, 'raise SystemExit("a release that cannot load")'),
}
"""Releases to be taken back: in a file, what is replaced by what."""


def install_from_nothing(_bench: Bench) -> str:
    """Install on a machine that has never seen it, and have the first answer."""
    began = time.monotonic()
    said = script("install")
    took = time.monotonic() - began
    check(ready(), "the service is not active")
    check("serves: serving" in said, f"install does not say that it serves: {said[-1000:]}")
    check(systemctl("is-enabled", "edge-slm").strip() == "enabled", "the service does not start with the machine")
    check("models" in CONFIG.read_text(), f"{CONFIG} was not written")
    usec = int(of_service("ActiveEnterTimestampMonotonic")) - int(of_service("ExecMainStartTimestampMonotonic"))
    first = run("edge-slm", "ask", "What is the capital of France?")
    check("Paris" in first, f"it answers {first!r}")
    return f"{took:.0f} s in all; from start to READY {usec / 1e6:.1f} s"


def install_again(_bench: Bench) -> str:
    """Install what is installed: nothing happens."""
    agent, config, began = pid(), CONFIG.read_text(), time.monotonic()
    script("install")
    check(pid() == agent, "the service was started anew")
    check(CONFIG.read_text() == config, "the configuration was touched")
    return f"nothing touched; {time.monotonic() - began:.0f} s"


def upgrade(bench: Bench) -> str:
    """Install a newer version under jobs."""
    old = HOME.joinpath("current").resolve().name
    with bench.under_load() as load:
        began = time.monotonic()
        script("install", "--from", version("0.9.1"))
        took = time.monotonic() - began
    check(_current().startswith("0.9.1-"), f"{_current()} is current")
    check(HOME.joinpath("previous").resolve().name == old, "the version before was not kept")
    return f"{load}; {took:.0f} s, the box offline {bench.device.away_s():.1f} s"


def upgrade_that_does_not_start(bench: Bench) -> str:
    """Install a version that ends at its start."""
    return _rolled_back(bench, "0.9.2", "start", "a release that cannot start")


def upgrade_that_hangs(bench: Bench) -> str:
    """Install a version that does not become ready, and have less patience with it than is usual."""
    return _rolled_back(bench, "0.9.6", "hang", "did not become ready", EDGE_SLM_READY_S="15")


def upgrade_that_dies(bench: Bench) -> str:
    """Install a version that ends some seconds after it was ready."""
    return _rolled_back(bench, "0.9.3", "stay", "of being ready")


def upgrade_without_engine(bench: Bench) -> str:
    """Install a version whose inference process does not start: the service is ready, and of no use."""
    return _rolled_back(bench, "0.9.4", "load", "ailing")


def upgrade_interrupted(bench: Bench) -> str:
    """Kill an installation when it has switched to a version that does not start, as a power cut would."""
    good, source = _current(), version("0.9.5", BROKEN["start"])
    with subprocess.Popen(
        [SOURCE / "scripts/install", "--from", source],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as install:
        wait_until(lambda: _current().startswith("0.9.5-"), "install does not come to the switch", timeout=300)
        os.killpg(install.pid, signal.SIGKILL)
    script("install", "--from", source, code=1)
    check(_current() == good and ready(), f"{_current()} is current, and not {good}")
    bench.answers()
    return f"the next installation sees that it is not well, and puts {good.split('-')[0]} back"


def uninstall(bench: Bench) -> str:
    """Remove it, with a job in its spool, and put it back: the job is answered."""
    CONFIG.write_text(CONFIG.read_text() + "drain_s: 0.1\n")
    systemctl("restart", "edge-slm")
    long = bench.long_job(max_tokens=400)
    script("uninstall")
    script("uninstall")
    check(not HOME.exists() and not Path("/usr/local/bin/edge-slm").exists(), "programs are left")
    check(run("systemctl", "is-active", "edge-slm", code=None).strip() == "inactive", "the service is still there")
    check(CONFIG.exists() and (STATE / "spool.sqlite3").exists(), "the configuration or the spool is gone")
    check(not bench.device.has_final(long), "the job had its answer before")
    script("install", "--no-models")
    check(bench.device.final(long)["attempt"] > 1, "the job that it left was not begun again")
    return "twice; configuration and spool stay, and the next installation answers the job left there"


def purge(_bench: Bench) -> str:
    """Remove everything."""
    script("uninstall", "--purge")
    left = [path for path in (HOME, CONFIG.parent, STATE, Path("/var/lib/private/edge-slm")) if os.path.lexists(path)]
    check(not left, f"{left} are left")
    return "nothing left"


def _rolled_back(bench: Bench, number: str, broken: str, why: str, **environment: str) -> str:
    good, source = _current(), version(number, BROKEN[broken])
    with bench.under_load() as load:
        began = time.monotonic()
        said = script("install", "--from", source, code=1, **environment)
        took = time.monotonic() - began
    check(why in said, f"install does not say why: {said[-1000:]}")
    check(_current() == good and ready(), f"{_current()} is current, and not {good}")
    check(not list((HOME / "versions").glob(f"{source.name}-*")), "the broken version is still there")
    away = bench.device.away_s()
    return f"{load}; {good.split('-')[0]} back after {took:.0f} s, the box offline {away:.1f} s"


def _current() -> str:
    return HOME.joinpath("current").resolve().name
