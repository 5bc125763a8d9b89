"""The model: Phi-3.5-vision's structure, three thousand times smaller. Vision tower, embedding, Phi-3 decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Phi3Config, Phi3ForCausalLM

from scripts.train_shapes_vision import tokenizer

CROP = 336
PATCH = 14
PATCHES = CROP // PATCH
MERGED = PATCHES // 2
"""Rows (and columns) of a crop's tokens, after neighbouring patches were merged two by two."""
CROP_TOKENS = MERGED * MERGED


@dataclass(frozen=True)
class Size:
    """How large the parts are."""

    vocabulary: int
    tower: int = 64
    tower_layers: int = 3
    tower_heads: int = 4
    hidden: int = 96
    layers: int = 6
    heads: int = 3
    intermediate: int = 256
    context: int = 4096


class TowerLayer(nn.Module):
    """A pre-norm transformer layer, as in CLIP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [crops, tokens, width] to the same."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))


class Tower(nn.Module):
    """A CLIP-style vision transformer on 336 by 336 crops."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.width = 4 * size.tower
        self.patches = nn.Conv2d(3, size.tower, PATCH, PATCH, bias=False)
        self.class_token = nn.Parameter(torch.randn(size.tower) * 0.02)
        self.positions = nn.Parameter(_positions(size.tower))
        self.norm = nn.LayerNorm(size.tower)
        self.layers = nn.ModuleList(TowerLayer(size.tower, size.tower_heads) for _ in range(size.tower_layers))

    def forward(self, crops: Tensor) -> Tensor:
        """Map [crops, 3, 336, 336] to [crops, 144, width]: patches merged two by two, without the class token."""
        return self.after_each_layer(crops)[-1]

    def after_each_layer(self, crops: Tensor, corner: Tensor | None = None) -> list[Tensor]:
        """Map the same to what `forward` would return if it ended after the first layer, the second, and so on.

        Args:
            crops: whole ones, or squares out of them: [squares, 3, side, side].
            corner: [squares, 2], where in its crop each square begins, in patches; even.

        """
        patches = self.patches(crops)
        side = patches.shape[-1]
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], 1)
        if corner is None:
            x = x + self.positions
        else:
            rows, columns = (corner[:, :, None] + torch.arange(side)).unbind(1)
            places = 1 + (rows[:, :, None] * PATCHES + columns[:, None, :]).flatten(1)
            x = x + self.positions[functional.pad(places, (1, 0))]
        x = self.norm(x)
        merged = []
        for layer in self.layers:
            x = layer(x)
            squares = x[:, 1:].unflatten(1, (side // 2, 2, side // 2, 2)).transpose(2, 3)
            merged.append(squares.reshape(-1, side * side // 4, self.width))
        return merged


def _positions(width: int) -> Tensor:
    """Begin with waves over rows and columns: learnt from noise, positions took many steps."""
    angles = torch.arange(PATCHES).unsqueeze(1) * 0.02 ** torch.linspace(0, 1, width // 4)
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = waves.repeat_interleave(PATCHES, 0), waves.repeat(PATCHES, 1)
    return 0.5 * torch.cat([torch.zeros(1, width), torch.cat([rows, columns], 1)])


def arrangement(sizes: Tensor, crops: int) -> Tensor:
    """Say which feature each image token is.

    Sub-crops come first, row by row over the whole grid, with a separator at each row's end; then the separator between
    them and the global view; then the global view, likewise. Images follow one another. No loop, so it exports.

    Args:
        sizes: [images, 2], the padded height and width of each, in pixels.
        crops: places for crops that every image has in the features, the global view's included.

    Returns:
        [image tokens]: rows of the features [images * crops * 144] with the two separators after them.

    """
    newline = sizes.shape[0] * crops * CROP_TOKENS
    rows, columns = (MERGED * (sizes // CROP)).unsqueeze(-1).unbind(1)
    body = rows * (columns + 1)
    total = body + 1 + MERGED * (MERGED + 1)
    token = torch.arange(crops * CROP_TOKENS + (crops + 1) * MERGED + 1, device=sizes.device)
    # The same arithmetic serves both views: the global one is a grid of one crop.
    whole = token > body
    inner = torch.where(whole, token - body - 1, token)
    width = torch.where(whole, MERGED, columns)
    row, column = inner // (width + 1), inner % (width + 1)
    crop = torch.where(whole, 0, 1 + row // MERGED * (columns // MERGED) + column // MERGED)
    index = (crop * MERGED + row % MERGED) * MERGED + column % MERGED
    index = index + torch.arange(sizes.shape[0], device=sizes.device).unsqueeze(-1) * (crops * CROP_TOKENS)
    index = torch.where(column == width, newline, index)
    index = torch.where(token == body, newline + 1, index)
    return index[token < total]


class Vision(nn.Module):
    """Pixels to image features."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tower = Tower(size)
        width = self.tower.width
        self.newline = nn.Parameter(torch.randn(1, width) * 0.5)
        self.between = nn.Parameter(torch.randn(1, width) * 0.5)
        self.projector = nn.Sequential(nn.Linear(width, size.hidden), nn.GELU(), nn.Linear(size.hidden, size.hidden))

    def project(self, features: Tensor, index: Tensor) -> Tensor:
        """Map the tower's features [batch, crops, 144, width], arranged, to [batch, image tokens, hidden]."""
        separators = torch.cat([self.newline, self.between]).expand(features.shape[0], -1, -1)
        return self.projector(torch.cat([features.flatten(1, 2), separators], 1)[:, index])

    def forward(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """Map [images, crops, 3, 336, 336] and [images, 2] to [image tokens, hidden]."""
        features = self.tower(pixel_values.flatten(0, 1))
        return self.project(features[None], arrangement(image_sizes, pixel_values.shape[1]))[0]


class Embedding(nn.Module):
    """The vocabulary's embeddings, with image features where the ids are negative."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.table = nn.Embedding(size.vocabulary, size.hidden)
        nn.init.normal_(self.table.weight, std=0.5)

    def forward(self, input_ids: Tensor, image_features: Tensor) -> Tensor:
        """Map [1, tokens] and [image tokens, hidden] to [1, tokens, hidden]."""
        image = input_ids < 0
        # One row of zeros more, so that a prompt without images has something not to look up.
        rows = torch.cat([image_features, image_features.new_zeros(1, image_features.shape[1])])
        place = (image.long().cumsum(1) - 1).clamp(min=0)
        return torch.where(image.unsqueeze(-1), rows[place], self.table(input_ids.clamp(min=0)))


class Model(nn.Module):
    """The three parts."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.vision = Vision(size)
        self.embedding = Embedding(size)
        self.decoder = Phi3ForCausalLM(decoder_config(size))


def decoder_config(size: Size) -> Phi3Config:
    """Return the decoder's configuration, as the model builder reads it."""
    return Phi3Config(
        architectures=["Phi3ForCausalLM"],
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=size.context,
        original_max_position_embeddings=size.context,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        bos_token_id=tokenizer.BOS,
        eos_token_id=tokenizer.END,
        pad_token_id=tokenizer.END_OF_TEXT,
    )
