"""The service at work: what it may do, what it is told, and what befalls it."""

import os
import re
import signal
import time
from pathlib import Path

from tests.systemd.proof.bench import Bench
from tests.systemd.proof.machine import (
    CONFIG,
    STATE,
    Skipped,
    check,
    drop_in,
    journal,
    of_service,
    pid,
    ready,
    run,
    systemctl,
    wait_until,
    worker,
)

_BASE = f"""
device: {{id: box1}}
mqtt: {{username: box, password_file: /run/credentials/edge-slm.service/mqtt-password}}
models: {{text: smollm2-135m, dir: {STATE}/models}}
"""


def credentials(bench: Bench) -> str:
    """Close the broker, and let the box in by a password that only systemd hands to it."""
    broker = Path("/etc/mosquitto")
    run("mosquitto_passwd", "-c", "-b", broker / "users", "box", "a-secret-word")
    run("mosquitto_passwd", "-b", broker / "users", "proof", "proof")
    run("chown", "mosquitto:", broker / "users")
    rules = f"listener 1883 127.0.0.1\nallow_anonymous false\npassword_file {broker}/users\n"
    (broker / "conf.d/proof.conf").write_text(rules + "autosave_interval 1\nautosave_on_changes true\n")
    systemctl("restart", "mosquitto")
    secret = CONFIG.parent / "credentials/mqtt-password"
    secret.write_text("a-secret-word\n")
    secret.chmod(0o600)
    CONFIG.write_text(_BASE)
    systemctl("restart", "edge-slm")
    bench.answers()
    environment = Path(f"/proc/{pid()}/environ").read_bytes()
    check(b"a-secret-word" not in environment, "the password is in the environment")
    check("a-secret-word" not in journal(0), "the password is in the log")
    return "read by the box, and in no log or environment"


def sandbox(_bench: Bench) -> str:
    """Look at what the running service may do."""
    status = Path(f"/proc/{pid()}/status").read_text()
    of = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    check("0" not in of["Uid"].split(), "it runs as root")
    check(int(of["CapBnd"], 16) == 0, "it could gain capabilities")
    check((of["NoNewPrivs"], of["Seccomp"]) == ("1", "2"), "its system calls are not filtered")
    found = re.search(r"exposure level for edge-slm.service: ([0-9.]+)", run("systemd-analyze", "security", "edge-slm"))
    check(found and float(found[1]) <= 2.0, f"its exposure is {found and found[1]}")
    return f"exposure {found[1] if found else '?'}, user {of['Uid'].split()[0]}"


def reload_good(bench: Bench) -> str:
    """Add a vision model by SIGHUP, under jobs, and show it a picture."""
    agent, began = pid(), time.monotonic()
    run("edge-slm", "models", "pull", "shapes-vision")
    with bench.under_load() as load:
        CONFIG.write_text(_BASE.replace("models: {", "models: {vision: shapes-vision, "))
        systemctl("reload", "edge-slm")
        wait_until(lambda: "shapes-vision" in of_service("StatusText") and ready(), "the vision model does not come")
        took = time.monotonic() - began
    text = bench.sees()
    check("red" in text and "square" in text, f"it sees {text!r} where a red square is")
    check(pid() == agent, "the agent was started anew")
    return f"{load}; {took:.1f} s; then it sees {text!r}"


def reload_bad(bench: Bench) -> str:
    """Reload a configuration with a typo."""
    agent, good, began = pid(), CONFIG.read_text(), time.time()
    CONFIG.write_text(good.replace("username", "usrname"))
    try:
        systemctl("reload", "edge-slm")
        wait_until(lambda: "configuration.refused" in journal(began), "the log does not say that it was refused")
    finally:
        CONFIG.write_text(good)
    bench.answers()
    check(pid() == agent and ready(), "the service did not go on")
    check("usrname" in journal(began), "the log does not say what is wrong")
    return "refused, and the box goes on"


def hung_worker(bench: Bench) -> str:
    """Stop the inference process in the middle of a job: the agent replaces it."""
    long = bench.long_job()
    hung, began = worker("smollm2-135m"), time.monotonic()
    os.kill(hung, signal.SIGSTOP)
    final = bench.device.final(long, timeout=120)
    check(final["attempt"] > 1, "the job was not begun again")
    check(not Path(f"/proc/{hung}").exists(), "the hung process is still there")
    return f"answered {time.monotonic() - began:.1f} s after it was stopped, at attempt {final['attempt']}"


def hung_agent(bench: Bench) -> str:
    """Block the agent's event loop for good: systemd's watchdog ends it, and the job is answered."""
    folder = Path("/opt/proof")
    folder.mkdir(exist_ok=True)
    # Of the agent alone: its inference processes are started without PYTHONPATH.
    hook = "import signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))\n"
    (folder / "sitecustomize.py").write_text(hook)
    drop_in("proof", f"Environment=PYTHONPATH={folder}\nWatchdogSec=6")
    try:
        systemctl("restart", "edge-slm")
        long = bench.long_job()
        agent, began, since = pid(), time.monotonic(), time.time()
        os.kill(agent, signal.SIGUSR1)
        wait_until(lambda: pid() not in (0, agent), "systemd did not end it")
        ended = time.monotonic() - began
        final = bench.device.final(long, timeout=120)
        took = time.monotonic() - began
        logged = journal(since)
        check("Watchdog timeout" in logged, "it was not the watchdog that ended it")
        check("sitecustomize.py" in logged, "the log does not show where it hung")
        check(final["attempt"] > 1, "the job was not begun again")
    finally:
        drop_in("proof", "")
        systemctl("restart", "edge-slm")
    return (
        f"with WatchdogSec=6 another agent runs after {ended:.1f} s; job answered after {took:.1f} s; stacks in the log"
    )


def killed_agent(bench: Bench) -> str:
    """Kill -9 the agent in the middle of jobs."""
    with bench.under_load() as load:
        agent, began = pid(), time.monotonic()
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda: pid() not in (0, agent) and ready(), "it was not started again")
        took = time.monotonic() - began
    return f"ready again after {took:.1f} s; {load}"


def out_of_memory(bench: Bench) -> str:
    """Take the service's memory away in the middle of a job: the kernel ends the inference process, not the agent."""
    group = Path("/sys/fs/cgroup/system.slice/edge-slm.service")
    if not (group / "memory.events").exists():
        raise Skipped("the machine's memory controller is not that of cgroup version 2")
    long = bench.long_job()
    agent, victim = pid(), worker("smollm2-135m")
    # What is not memory of files: the agent's, and a tenth of the inference process's.
    least = _anonymous(agent) + _anonymous(victim) // 10
    systemctl("set-property", "--runtime", "edge-slm", "MemoryHigh=infinity", f"MemoryMax={least}")
    wait_until(lambda: not Path(f"/proc/{victim}").exists(), "the kernel did not end it")
    systemctl("set-property", "--runtime", "edge-slm", "MemoryMax=infinity")
    final = bench.device.final(long, timeout=300)
    check(final["attempt"] > 1, "the job was not begun again")
    check(pid() == agent and ready(), "the agent was ended as well")
    return f"MemoryMax={least >> 20} MiB; the agent lives, and the job is answered at attempt {final['attempt']}"


def _anonymous(process: int) -> int:
    """Return a process's memory that is not of files, in bytes."""
    (line,) = [each for each in Path(f"/proc/{process}/status").read_text().splitlines() if each.startswith("RssAnon")]
    return int(line.split()[1]) << 10


def drain(bench: Bench) -> str:
    """Stop the service in the middle of a job: the job ends first."""
    long = bench.long_job()
    began = time.monotonic()
    systemctl("stop", "edge-slm")
    took = time.monotonic() - began
    answer = bench.device.final(long, timeout=1)
    check(answer["attempt"] == 1, "the job was not ended by the agent that was stopped")
    check(of_service("Result") == "success", f"it ended by {of_service('Result')}")
    systemctl("start", "edge-slm")
    return f"stopped in {took:.1f} s, with the job's {answer['usage']['completion_tokens']} tokens"
