"""The house's import arrows: which room may know of which."""

import ast
import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent

# From the foundations up: a room may import the rooms named beside it, all of which stand above it here (a star is
# all of those), and the version in `agent` itself. A module belongs to the longest name here that it begins with.
_ROOMS = {
    "agent": "",
    "agent.backoff": "",
    "agent.clock": "",
    "agent.contract": "",
    "agent.durable": "",
    "agent.errors": "",
    "agent.kernel_files": "",
    "agent.systemd": "",
    "agent.threads": "",
    "agent.hardware": "kernel_files",
    "agent.latest": "",
    "agent.logs": "",
    "agent.metrics": "",
    "agent.progress": "",
    "agent.settings": "",
    "agent.asks": "settings",
    "agent.standin": "",
    "agent.credentials": "errors",
    "agent.budget": "contract settings",
    "agent.keys": "settings",
    "agent.layers": "errors keys settings",
    "agent.cameras": "contract settings",
    "agent.bus": "backoff contract credentials errors settings",
    "agent.client": "bus contract errors settings",
    "agent.spool": "contract durable errors",
    "agent.accounts": "budget contract spool",
    "agent.ageing": "clock spool threads",
    "agent.admission": "contract",
    "agent.signals": "admission kernel_files",
    "agent.placement": "contract",
    "agent.publisher": "contract",
    "agent.engines": "",
    "agent.engines.base": "contract",
    "agent.engines.wire": "contract",
    "agent.engines.spec": "",
    "agent.engines.ladder": "engines.spec",
    "agent.engines.worker": "contract engines.wire kernel_files",
    "agent.engines.growth": "kernel_files",
    "agent.engines.translation": "contract engines.base engines.wire",
    "agent.engines.watchdog": "engines.wire",
    "agent.engines.child": "engines.watchdog engines.wire",
    "agent.engines.local": "backoff contract engines.base engines.child engines.growth engines.ladder engines.spec"
    " engines.translation engines.watchdog engines.wire metrics",
    "agent.engines.cloud.bundle": "",
    # A process of its own, which decodes.
    "agent.engines.cloud.shrink": "contract engines.cloud.bundle engines.worker",
    "agent.engines.cloud": "backoff engines.cloud.bundle contract engines.base kernel_files settings",
    "agent.engines.served": "engines.local placement",
    "agent.forecast": "contract engines.base",
    "agent.models.conversion": "",
    "agent.models.shapes": "",
    "agent.models": "durable errors",
    "agent.course": "admission contract engines.base forecast placement publisher",
    "agent.outlook": "admission contract course engines.base forecast",
    "agent.line": "admission contract course engines.base forecast outlook placement",
    "agent.practice": "contract engines.base line placement",
    "agent.chooser": "admission contract course line placement",
    "agent.dispatcher": "admission chooser contract course engines.base forecast line placement practice publisher",
    "agent.rates": "forecast line placement spool",
    "agent.stations": "admission contract credentials engines.base engines.cloud engines.local engines.spec errors"
    " forecast hardware kernel_files line models placement settings",
    "agent.outbox": "bus contract publisher spool",
    "agent.reception": "admission contract course dispatcher latest metrics outbox spool",
    "agent.intake": "bus cameras contract metrics reception spool",
    "agent.status": "admission contract engines.base line metrics placement settings",
    "agent.testing": "contract engines.base",
    "agent.service": "accounts admission ageing budget bus cameras contract dispatcher engines.base forecast intake"
    " metrics outbox placement publisher rates reception settings signals spool stations status",
    "agent.remote": "contract durable errors keys layers settings threads",
    "agent.box": "engines.local errors placement service settings",
    "agent.herald": "box engines.local systemd",
    "agent.supervisor": "ageing asks box engines.local engines.served errors hardware herald kernel_files placement"
    " service settings spool stations systemd threads",
    "agent.fleet": "client contract errors layers remote settings",
    "agent.demo": "client errors layers models models.shapes settings",
    "agent.doctor": "*",
    "agent.bench": "*",
    "agent.cli": "*",
}

# What only some rooms may import from outside, that no other depends on it or pays for it.
_OWNERS = {
    "gguf": "models.conversion",
    "httpx": "bench engines.cloud",
    "httpx_sse": "bench engines.cloud",
    "matplotlib": "bench",
    "httpx2": "models",
    "huggingface_hub": "models",
    "numpy": "engines.worker models.conversion",
    # The parent reads headers alone; what decodes is the worker.
    "PIL": "bench engines.cloud.shrink engines.worker models.shapes",
    "onnxruntime": "engines.worker models.conversion",
    "onnxruntime_genai": "engines.worker",
    "paho": "bus client doctor",
    "sqlite3": "spool",
    "tenacity": "engines.cloud",
    "uvicorn": "bench",
    "yaml": "layers models",
}


def _names(rooms: str) -> set[str]:
    return {f"agent.{room}" for room in rooms.split()}


def _below(room: str) -> set[str]:
    """Return the rooms that one may import."""
    if _ROOMS[room] == "*":
        return set(itertools.takewhile(lambda each: each != room, _ROOMS))
    return _names(_ROOMS[room])


def _room(module: str) -> str:
    """Return the room that a module of ours is in."""
    steps = module.split(".")
    return next(name for n in range(len(steps), 0, -1) if (name := ".".join(steps[:n])) in _ROOMS)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> Iterator[str]:
    """Yield the full name of each module that a file imports, wherever in the file."""
    package = _module(path) if path.name == "__init__.py" else _module(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name(f"{'.' * node.level}{node.module or ''}", package)
            for alias in node.names:
                inner = _ROOT.joinpath(*base.split("."), alias.name)
                is_module = inner.with_suffix(".py").is_file() or inner.is_dir()
                yield f"{base}.{alias.name}" if is_module else base


def _may_import(room: str, target: str) -> bool:
    top = target.partition(".")[0]
    if top != "agent":
        owners = _OWNERS.get(top)
        return owners is None or room in _names(owners)
    return _room(target) in {room, "agent"} | _below(room)


@pytest.mark.parametrize("path", sorted((_ROOT / "agent").rglob("*.py")), ids=_module)
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    module = _module(path)
    assert module == "agent" or _room(module) != "agent", "a new room: give it a place and its arrows in this table"
    assert [target for target in _imports(path) if not _may_import(_room(module), target)] == []


def test_every_arrow_points_the_same_way() -> None:
    rooms = list(_ROOMS)
    assert [(room, below) for room in rooms for below in _below(room) if below not in rooms[: rooms.index(room)]] == []


def test_the_daemon_loads_nothing_that_its_worker_is_for() -> None:
    report = "import sys, agent.service; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", report], check=True, capture_output=True, text=True).stdout.split()
    for_others = "gguf httpx httpx2 huggingface_hub numpy onnxruntime onnxruntime_genai tenacity yaml"
    assert {*for_others.split()} & {*loaded} == set()


def test_the_command_line_loads_what_a_command_needs_when_it_runs() -> None:
    report = "import sys, agent.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", report], check=True, capture_output=True, text=True).stdout.split()
    assert {"asyncio", "paho", "pydantic", "sqlite3", "structlog", "yaml"} & {*loaded} == set()
