"""Train, export and examine `shapes-vision`, the small model of Phi-3.5-vision's structure that tests and demo use.

For developers; what it makes is in the repository. It wants 8 GB of memory and, on two idle cores, half an hour:

    python3 -m venv /tmp/training
    /tmp/training/bin/pip install torch==2.13.0 transformers==5.23.0 onnxruntime-genai==0.18.0 onnx onnx_ir onnxscript \
        tokenizers pillow
    OMP_WAIT_POLICY=passive /tmp/training/bin/python -m scripts.train_shapes_vision agent/models/shapes-vision

Every draw is seeded, so the same machine makes the same model; another one's arithmetic may differ in the last places.
"""

import argparse
import time
from pathlib import Path
from random import Random

import torch

from agent.models import shapes
from scripts.train_shapes_vision import data, decoder, tokenizer, tower
from scripts.train_shapes_vision.decoder import Course, Lessons
from scripts.train_shapes_vision.evaluate import evaluate
from scripts.train_shapes_vision.export import export
from scripts.train_shapes_vision.model import Model, Size
from scripts.train_shapes_vision.tower import Phase

PICTURES = {"low": 1500, "auto": 700, "high": 600}
# Shapes that fit a small square first; those that larger crops cut into pieces are learnt by who knows them whole.
PHASES = (
    Phase(("low",), side=4, batch=96, steps=300, rate=3e-3),
    Phase(("low", "auto"), side=6, batch=40, steps=200, rate=4e-3),
    Phase(("low", "auto", "high"), side=12, batch=16, steps=160, rate=2e-3),
)
# Weights of details and numbers of pictures. A prompt at high detail costs seven of those at low, so most learn to find
# things in small grids first. Telling two pictures apart takes longest, and large grids need many pictures.
FIRST = {("low", 1): 35, ("low", 2): 15, ("auto", 1): 33, ("auto", 2): 5, ("high", 1): 7, ("high", 2): 2, ("", 0): 3}
SECOND = {("low", 1): 15, ("low", 2): 30, ("auto", 1): 20, ("auto", 2): 10, ("high", 1): 18, ("high", 2): 4, ("", 0): 3}
THIRD = {("low", 1): 8, ("low", 2): 32, ("auto", 1): 8, ("auto", 2): 18, ("high", 1): 24, ("high", 2): 7, ("", 0): 3}
COURSES = (Course(600, 3e-3, FIRST), Course(450, 2.5e-3, SECOND), Course(1200, 2e-3, THIRD))


def main() -> None:
    """Run it all, and say how long each part took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model goes")
    folder = parser.parse_args().folder
    torch.set_num_threads(2)
    torch.manual_seed(0)
    random = Random(0)  # noqa: S311 - nothing is secret here
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s, {time.process_time():5.0f} s of CPU: {what}", flush=True)

    words = tokenizer.train(language())
    model = Model(Size(words.get_vocab_size()))
    examples = {detail: list(data.examples(random, detail, count)) for detail, count in PICTURES.items()}
    say("pictures drawn")
    tower.train(model.vision.tower, examples, PHASES, random)
    say("tower trained")
    seen = {detail: decoder.see(model.vision.tower, pictures) for detail, pictures in examples.items()}
    decoder.train(model, Lessons(model, words, seen, random), COURSES, random)
    say("decoder trained")
    export(model, words, folder)
    say("exported")
    print(evaluate(folder))
    say("examined")


def language() -> list[str]:
    """Return what is said of pictures, and asked: every phrase as often as it should weigh in the vocabulary."""
    kinds = [f"{colour} {shape}" for colour in shapes.COLOURS for shape in shapes.SHAPES]
    captions = [f"a {kind} two {kind}s three {kind}s four {kind}s" for kind in kinds]
    places = [f"at the {place}" for place in shapes.PLACES] * 20
    return captions + places + ["image 1: ; image 2:"] * 30 + [shapes.NO_PICTURE, *decoder.QUESTIONS] * 5


if __name__ == "__main__":
    main()
