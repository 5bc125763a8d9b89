"""How long the library's own processor takes to prepare pictures, and how long ours does.

``python -m agent.engines.worker.bare_vision FOLDER`` reads a JSON object from standard input and prints a list with
one object a file, in order, with one time a repeat, in seconds::

    {"files": ["frame.jpg", …], "most": 1, "repeats": 5}
    [{"library_s": [0.09, …], "ours_s": [0.008, …]}, …]

``most`` is how many crops ours makes at the most; the library always makes up to 16. Both begin with the file's bytes,
the library's by way of a prompt that is its mark alone, and end with the tensors.
"""

import json
import sys
import time
from pathlib import Path

import onnxruntime_genai as og  # type: ignore[import-untyped]

from agent.engines.worker.crops import cut
from agent.engines.worker.pictures import Picture
from agent.engines.worker.vision import inputs


def main() -> None:
    """Time what standard input asks for."""
    asked = json.load(sys.stdin)
    model = og.Model(sys.argv[1])
    processor = model.create_multimodal_processor()
    results = []
    for path in asked["files"]:
        data = Path(path).read_bytes()
        times: dict[str, list[float]] = {"library_s": [], "ours_s": []}
        for _ in range(asked.get("repeats", 1)):
            begun = time.perf_counter()
            processor("<|image_1|>", images=og.Images.open_bytes(data))
            between = time.perf_counter()
            picture = Picture(data, asked["most"])
            inputs([-1] * picture.tokens, [cut(picture.decode(), picture.resized)])
            times["library_s"].append(between - begun)
            times["ours_s"].append(time.perf_counter() - between)
        results.append(times)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
