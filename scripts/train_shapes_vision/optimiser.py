"""Muon for the layers' matrices, AdamW for the rest: with AdamW alone the tower was slow to tell shapes apart."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Optimiser:
    """Both, on one learning rate that rises for a tenth of the steps and falls to nothing."""

    def __init__(self, modules: Iterable[nn.Module], rate: float, steps: int) -> None:
        named = [pair for module in modules for pair in module.named_parameters() if pair[1].requires_grad]
        self._parameters = [parameter for _, parameter in named]
        matrices = [parameter for name, parameter in named if "layers." in name and parameter.dim() > 1]
        others = [parameter for name, parameter in named if not ("layers." in name and parameter.dim() > 1)]
        self._optimisers = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, weight_decay=0.01),
        ]
        self._schedules = [
            torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False)
            for optimiser in self._optimisers
        ]

    def step(self, loss: Tensor) -> None:
        """Learn from a batch."""
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for part in (*self._optimisers, *self._schedules):
            part.step()
