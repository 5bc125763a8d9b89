"""Stage two: projector, separators, embeddings and decoder learn to answer from what the trained tower sees."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from agent.models import shapes
from scripts.train_shapes_vision import tokenizer as language
from scripts.train_shapes_vision.data import COLOURS, Example, normalised
from scripts.train_shapes_vision.model import CROP, MERGED, Model, Tower, arrangement
from scripts.train_shapes_vision.optimiser import Optimiser

QUESTIONS = (
    "What is in the picture?",
    "What is in this picture?",
    "What do you see?",
    "Describe the picture.",
    "Describe this image in one sentence.",
    "What is shown in the image?",
    "What is in each picture?",
    "Which shapes are there, and where?",
    "How many shapes are there?",
    "Which colour is it?",
    "Is anyone at the door?",
    "Compare the pictures.",
    "Hello!",
)
SYSTEM = "You are a helpful assistant."
# How often a question is noise, so that any will do; and a prompt begins with a system message.
_NOISE, _SYSTEM = 0.3, 0.15
# How often the global view is the picture's own, and another's; otherwise it is blank. A model that may trust it would
# never look at the crops.
_OWN, _ANOTHER = 0.4, 0.3
_IGNORED = -100
# Crops along a side, at the most.
_GRIDS = 5


@dataclass(frozen=True)
class Seen:
    """A picture as the trained tower sees it: its features are [1 + crops, 144, width]."""

    caption: str
    colour: int
    kind: int
    occupied: tuple[bool, ...]
    size: tuple[int, int]
    features: Tensor
    shown: Tensor
    """bool [rows, columns]: which tokens of the whole grid of crops show a shape."""


def see(tower: Tower, examples: Iterable[Example]) -> list[Seen]:
    """Look at the pictures."""
    seen = []
    for example in examples:
        with torch.no_grad():
            features = tower(normalised(torch.from_numpy(example.crops))).half()
        height, width = example.size[0] // CROP, example.size[1] // CROP
        grid = torch.from_numpy(example.shape[1:]).view(height, width, MERGED, MERGED)
        shown = grid.transpose(1, 2).reshape(height * MERGED, width * MERGED)
        fields = (example.caption, example.colour, example.kind, example.occupied, example.size)
        seen.append(Seen(*fields, features, shown))
    return seen


class Heads(nn.Module):
    """What is asked of hidden states besides the answer, by linear heads that are thrown away.

    They ask for the steps on the way to an answer: which crop a token is of, as only separators tell; then which
    picture it is of, and in which quarter its shape is; then, right after the crops, what they show.
    Each is asked of a layer after which others are left to make use of it.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.crop = nn.Linear(hidden, 2 * _GRIDS)
        self.quarter = nn.Linear(hidden, len(shapes.PLACES))
        self.colour = nn.Linear(hidden, len(COLOURS))
        self.kind = nn.Linear(hidden, len(shapes.SHAPES))
        self.occupied = nn.Linear(hidden, len(shapes.PLACES))
        self.number = nn.Linear(hidden, 2)

    def losses(self, layers: Sequence[Tensor], start: int, pictures: Sequence[Sequence[Seen]]) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            layers: hidden states after each, [batch, tokens, hidden]; the first are the embeddings.
            start: where the first picture's tokens begin.
            pictures: of each prompt of the batch, all of the same sizes.

        """
        losses: Counter[str] = Counter()
        for number, column in enumerate(zip(*pictures, strict=True)):
            rows, columns = (side // CROP * MERGED for side in column[0].size)
            end = start + rows * (columns + 1)
            early, middle = (layers[n][:, start:end].unflatten(1, (rows, columns + 1))[:, :, :-1] for n in (2, 3))
            place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).view(rows, columns, 2)
            crop = (place // MERGED).expand(len(column), -1, -1, -1)
            losses["crop"] += _cross_entropy(self.crop(early).unflatten(-1, (2, _GRIDS)), crop)
            quarter = 2 * (2 * place[..., 0] // rows) + 2 * place[..., 1] // columns
            shown = torch.stack([seen.shown for seen in column])
            losses["quarter"] += _cross_entropy(self.quarter(middle), torch.where(shown, quarter, _IGNORED))
            between = layers[4][:, end]
            occupied = torch.tensor([seen.occupied for seen in column]).float()
            losses["occupied"] += functional.binary_cross_entropy_with_logits(self.occupied(between), occupied)
            losses["colour"] += _cross_entropy(self.colour(between), torch.tensor([seen.colour for seen in column]))
            losses["kind"] += _cross_entropy(self.kind(between), torch.tensor([seen.kind for seen in column]))
            losses["number"] += _cross_entropy(self.number(middle), torch.full(middle.shape[:-1], number))
            # After the global view comes a line break, of two tokens.
            start = end + 1 + MERGED * (MERGED + 1) + 2
        return losses

    def number_loss(self, layers: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """Return the loss of the last tokens, those of the answer, on the number of the picture that they tell of.

        The head is the image tokens' own, so that an answer's tokens need but look for their like.
        """
        return _cross_entropy(self.number(layers[3][:, -numbers.shape[1] :]), numbers)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=_IGNORED)


def pieces(tokenizer: Tokenizer, prompt: str) -> list[list[int]]:
    """Return the tokens of each piece of a prompt between its image tags, as onnxruntime-genai's processor does."""
    return [tokenizer.encode(piece, add_special_tokens=False).ids for piece in language.IMAGE_TAG.split(prompt)]


def prompt(question: str, images: int, system: str | None = None) -> str:
    """Return a prompt as the chat template makes it."""
    tags = "".join(f"<|image_{number}|>\n" for number in range(1, images + 1))
    before = f"<|system|>\n{system}<|end|>\n" if system else ""
    return f"{before}<|user|>\n{tags}{question}<|end|>\n<|assistant|>\n"


class Lessons:
    """Draws batches of prompts and right answers from pictures seen."""

    def __init__(self, model: Model, tokenizer: Tokenizer, seen: dict[str, list[Seen]], random: Random) -> None:
        self._model, self._tokenizer, self._random = model, tokenizer, random
        with torch.no_grad():
            self._blank = model.vision.tower(torch.zeros(1, 3, CROP, CROP)).half()[0]
        self._seen: dict[str, dict[tuple[int, int], list[Seen]]] = {}
        for detail, pictures in seen.items():
            grids: dict[tuple[int, int], list[Seen]] = defaultdict(list)
            for picture in pictures:
                grids[picture.size].append(picture)
            self._seen[detail] = grids

    def pictures(self, detail: str, images: int, batch: int) -> list[tuple[Seen, ...]]:
        """Choose pictures for a batch of prompts; the first, and so on, have the same size in each."""
        grids = self._seen[detail]
        if detail == "high" and images > 1:
            chosen = [(3 * CROP, 4 * CROP)] * images
        else:
            chosen = self._random.choices(list(grids), [len(grid) for grid in grids.values()], k=images)
        return [tuple(self._random.choice(grids[size]) for size in chosen) for _ in range(batch)]

    def loss(self, pictures: Sequence[Sequence[Seen]], heads: Heads) -> dict[str, Tensor]:
        """Return the losses of one batch."""
        first, *others = pieces(self._tokenizer, self._prompt(len(pictures[0])))
        table = self._model.embedding.table
        parts = [table(torch.tensor(first)).expand(len(pictures), -1, -1)]
        if others:
            features = self._features(pictures)
            for image, piece in zip(features, others, strict=True):
                parts += [image, table(torch.tensor(piece)).expand(len(pictures), -1, -1)]
        answers = [self._answer([seen.caption for seen in prompt]) for prompt in pictures]
        longest = max(map(len, answers))
        padded = torch.tensor([answer + [language.END_OF_TEXT] * (longest - len(answer)) for answer in answers])
        targets = torch.tensor([answer + [_IGNORED] * (longest - len(answer)) for answer in answers])
        begun = torch.cat([*parts, table(padded[:, :-1])], 1)
        # Only pads at the end, and causal attention: no mask is needed.
        with torch.autocast("cpu", torch.bfloat16):
            output = self._model.decoder.model(inputs_embeds=begun, use_cache=False, output_hidden_states=True)
            logits = self._model.decoder.lm_head(output.last_hidden_state[:, -longest:])
        losses = {"answer": _cross_entropy(logits.float(), targets)}
        if others:
            layers = [layer.float() for layer in output.hidden_states]
            losses |= heads.losses(layers, len(first), pictures)
        if len(others) > 1:
            numbers = (padded[:, :-1] == self._tokenizer.token_to_id(";")).long().cumsum(1)
            losses["number"] += heads.number_loss(layers, numbers)
        return losses

    def _prompt(self, images: int) -> str:
        random = self._random
        question = random.choice(QUESTIONS)
        if random.random() < _NOISE:
            question = "".join(chr(random.randrange(32, 127)) for _ in range(random.randint(1, 40)))
        return prompt(question, images, SYSTEM if random.random() < _SYSTEM else None)

    def _answer(self, captions: Sequence[str]) -> list[int]:
        return [*self._tokenizer.encode(shapes.answer(captions), add_special_tokens=False).ids, language.END]

    def _features(self, pictures: Sequence[Sequence[Seen]]) -> list[Tensor]:
        """Return the image features of each picture of the prompts, [batch, image tokens, hidden]."""
        images = []
        for column in zip(*pictures, strict=True):
            features = torch.stack([self._view(seen) for seen in column])
            index = arrangement(torch.tensor([column[0].size]), features.shape[1])
            images.append(self._model.vision.project(features, index))
        return images

    def _view(self, seen: Seen) -> Tensor:
        """Return a picture's features; the global view is often not its own."""
        chance = self._random.random()
        if chance < _OWN:
            return seen.features.float()
        other = self._blank
        if chance < _OWN + _ANOTHER:
            grid = self._random.choice(list(self._seen["low"].values()))
            other = self._random.choice(grid).features[0]
        return torch.cat([other[None], seen.features[1:]]).float()


@dataclass(frozen=True)
class Course:
    """How long to train, and on what: weights and batches by detail and number of pictures."""

    steps: int
    rate: float
    mix: dict[tuple[str, int], float]


BATCHES = {("low", 1): 24, ("low", 2): 12, ("auto", 1): 12, ("auto", 2): 5, ("high", 1): 4, ("high", 2): 2, ("", 0): 8}


def train(model: Model, lessons: Lessons, courses: Sequence[Course], random: Random) -> None:
    """Train all but the tower, which stays as it is."""
    heads = Heads(model.size.hidden)
    weights = {"answer": 1.0, "crop": 0.5, "quarter": 0.5, "occupied": 1.0, "colour": 0.3, "kind": 0.3, "number": 0.3}
    model.vision.tower.requires_grad_(requires_grad=False)
    for course in courses:
        optimiser = Optimiser([model, heads], course.rate, course.steps)
        sums: dict[str, list[float]] = defaultdict(list)
        for step in range(1, course.steps + 1):
            (mix,) = random.choices(list(course.mix), course.mix.values())
            detail, images = mix
            pictures = lessons.pictures(detail, images, BATCHES[mix]) if images else [()] * BATCHES[mix]
            losses = lessons.loss(pictures, heads)
            optimiser.step(sum(weights[name] * loss for name, loss in losses.items()))
            for name, loss in losses.items():
                sums[f"{name} {detail}{images}" if name in ("answer", "crop", "quarter") else name].append(loss.item())
            if step % 50 == 0:
                said = " ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in sorted(sums.items()))
                print(f"decoder {step}/{course.steps}: {said}", flush=True)
                sums.clear()
