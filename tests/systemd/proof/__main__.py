"""Run the steps, or those that are named, and print a line of each."""

import subprocess
import sys
import time

from tests.systemd.proof import releases, serving
from tests.systemd.proof.bench import Bench
from tests.systemd.proof.machine import Failed, Skipped

STEPS = (
    releases.install_from_nothing,
    serving.credentials,
    serving.sandbox,
    serving.reload_good,
    serving.reload_bad,
    serving.hung_worker,
    serving.hung_agent,
    serving.killed_agent,
    serving.out_of_memory,
    releases.install_again,
    releases.upgrade,
    releases.upgrade_that_does_not_start,
    releases.upgrade_that_hangs,
    releases.upgrade_that_dies,
    releases.upgrade_without_engine,
    releases.upgrade_interrupted,
    serving.drain,
    releases.uninstall,
    releases.purge,
)
"""Each does one thing to the service, in this order, and returns what was measured in a few words."""


def main() -> int:
    """Return 1 if a step has failed."""
    wanted, failed, bench = sys.argv[1:], 0, Bench()
    for step in STEPS:
        name = step.__name__
        if wanted and name not in wanted:
            continue
        began = time.monotonic()
        try:
            mark, told = "✓", step(bench)
        except Skipped as reason:
            mark, told = "–", str(reason)  # noqa: RUF001  it is a dash
        except (Failed, OSError, subprocess.SubprocessError) as failure:
            mark, told = "✗", str(failure)
        failed += mark == "✗"
        print(f"{mark} {time.monotonic() - began:6.1f} s  {name.replace('_', ' '):28} {told}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
