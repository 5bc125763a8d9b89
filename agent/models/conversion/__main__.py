"""``python -m agent.models.conversion FILE.gguf FOLDER``: convert into an existing, empty folder.

Standard output has a line ``done total`` for each step; what went wrong is standard error's last line, and the exit
status is 1.
"""

import json
import sys
from pathlib import Path

import onnx

from agent.models.conversion import graph, sidecars
from agent.models.conversion.llama import Model, UnsuitableModelError, write_weights

GRAPH = "model.onnx"
DATA = "model.onnx.data"


def convert(source: Path, folder: Path) -> None:
    """Write the model folder."""
    model = Model(source)
    places = write_weights(model, folder / DATA, _report)
    onnx.save_model(graph.build(model.shape, places, DATA), folder / GRAPH)
    (folder / "chat_template.jinja").write_text(sidecars.chat_template(model), encoding="utf-8")
    for name, content in (
        ("tokenizer.json", sidecars.tokenizer(model)),
        ("tokenizer_config.json", sidecars.tokenizer_config(model)),
        ("genai_config.json", sidecars.genai_config(model, GRAPH)),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _report(done: int, total: int) -> None:
    sys.stdout.write(f"{done} {total}\n")
    sys.stdout.flush()


def main() -> int:
    """Entry point."""
    source, folder = sys.argv[1:]
    try:
        convert(Path(source), Path(folder))
    except (OSError, UnsuitableModelError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
