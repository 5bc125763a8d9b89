"""Stage one: the vision tower alone learns what each of a crop's tokens shows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agent.models import shapes
from scripts.train_shapes_vision.data import COLOURS, Example, normalised
from scripts.train_shapes_vision.model import CROP_TOKENS, MERGED, PATCH, Tower
from scripts.train_shapes_vision.optimiser import Optimiser

_IGNORED = -100
# The share of empty crops that is left out.
_LEFT_OUT = 0.85


class Phase(NamedTuple):
    """A part of the training, on squares of side by side tokens out of crops: small ones cost less."""

    details: tuple[str, ...]
    side: int
    batch: int
    steps: int
    rate: float


class Labels(NamedTuple):
    """What tokens show.

    Attributes:
        outline: [crops, tokens, 16], the share of every sixteenth of a token that is covered.
        colour, kind: [crops, tokens], -100 for the tokens that show no shape.
        place: [crops, tokens], where in its crop each is.

    """

    outline: Tensor
    colour: Tensor
    kind: Tensor
    place: Tensor

    def of(self, index: object) -> "Labels":
        """Return those of some crops, or tokens."""
        return Labels(*(label[index] for label in self))


class Heads(nn.Module):
    """What is asked of every token in training, by linear heads that are thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.outline = nn.Linear(width, 16)
        self.colour = nn.Linear(width, len(COLOURS))
        self.kind = nn.Linear(width, len(shapes.SHAPES))
        self.row = nn.Linear(width, MERGED)
        self.column = nn.Linear(width, MERGED)

    def losses(self, layers: list[Tensor], labels: Labels) -> dict[str, Tensor]:
        """Return the losses of a batch: the outline is asked of the first layer, all else of the last.

        Args:
            layers: the tower's features after each, [squares, tokens, width].
            labels: of the same tokens.

        """
        first, last = layers[0], layers[-1]
        return {
            "outline": functional.binary_cross_entropy_with_logits(self.outline(first), labels.outline),
            "colour": _cross_entropy(self.colour(last), labels.colour),
            "kind": _cross_entropy(self.kind(last), labels.kind),
            "row": _cross_entropy(self.row(last), labels.place // MERGED),
            "column": _cross_entropy(self.column(last), labels.place % MERGED),
        }


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)


def train(tower: Tower, examples: dict[str, list[Example]], phases: Sequence[Phase], random: Random) -> None:
    """Train the tower on the crops of the examples, by detail."""
    heads = Heads(tower.width)
    weights = {"outline": 1.0, "colour": 0.5, "kind": 1.0, "row": 0.05, "column": 0.05}
    for phase in phases:
        crops, labels = _labelled([example for detail in phase.details for example in examples[detail]], random)
        optimiser = Optimiser([tower, heads], phase.rate, phase.steps)
        sums: Counter[str] = Counter()
        for step in range(1, phase.steps + 1):
            chosen = torch.tensor(random.choices(range(len(crops)), k=phase.batch))
            pixels, corner, wanted = _squares(crops[chosen], labels.of(chosen), phase.side, random)
            losses = heads.losses(tower.after_each_layer(normalised(pixels), corner), wanted)
            optimiser.step(sum(weights[name] * loss for name, loss in losses.items()))
            sums.update({name: loss.item() for name, loss in losses.items()})
            if step % 50 == 0:
                said = " ".join(f"{name} {loss / 50:.3f}" for name, loss in sums.items())
                print(f"tower {step}/{phase.steps}: {said}", flush=True)
                sums.clear()


def _squares(crops: Tensor, labels: Labels, side: int, random: Random) -> tuple[Tensor, Tensor, Labels]:
    """Cut a square of side by side tokens out of each crop, about one of the tokens that show a shape."""
    corners = []
    for kind in labels.kind:
        shown = (kind != _IGNORED).nonzero().flatten().tolist() or range(CROP_TOKENS)
        token = random.choice(shown)
        middle = (token // MERGED, token % MERGED)
        corners.append([max(0, min(MERGED - side, place - random.randrange(side))) for place in middle])
    corner = torch.tensor(corners)
    rows, columns = (corner[:, :, None] + torch.arange(side)).unbind(1)
    tokens = (rows[:, :, None] * MERGED + columns[:, None, :]).flatten(1)
    pixel = 2 * PATCH
    cut = [
        crop[:, row * pixel : (row + side) * pixel, column * pixel : (column + side) * pixel]
        for crop, (row, column) in zip(crops, corners, strict=True)
    ]
    chosen = torch.arange(len(crops))[:, None]
    return torch.stack(cut), 2 * corner, labels.of((chosen, tokens))


def _labelled(examples: Iterable[Example], random: Random) -> tuple[Tensor, Labels]:
    """Return crops, and what each of their tokens shows; most crops show something."""
    crops, outlines, colours, kinds = [], [], [], []
    for example in examples:
        shown = example.shape
        for number in range(1, len(shown)):
            if not shown[number].any() and random.random() < _LEFT_OUT:
                continue
            crops.append(torch.from_numpy(example.crops[number]))
            outlines.append(torch.from_numpy(example.outline[number]).float() / 255)
            colours.append(torch.from_numpy(np.where(shown[number], example.colour, _IGNORED)))
            kinds.append(torch.from_numpy(np.where(shown[number], example.kind, _IGNORED)))
    places = torch.arange(CROP_TOKENS).expand(len(crops), -1)
    return torch.stack(crops), Labels(torch.stack(outlines), torch.stack(colours), torch.stack(kinds), places)
