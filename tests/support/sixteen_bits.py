"""A block that is lowered in sixteen bits."""

from __future__ import annotations

import torch
from torch import nn

LITERALLY = {"graph_optimization_level": "disable"}


class Block(nn.Module):
    """Convolution, group norm, an upsampled picture, a linear layer and attention over its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.interpolate(self.norm(self.convolution(x)), scale_factor=2.0)
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
