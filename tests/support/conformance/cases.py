"""Small graphs, one for each kind of operation, traced once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from qdx.exporter.graph.ir.graph import Graph
from tests.support.tracing import Block, block_inputs, graph_of

__all__ = ["KINDS", "QUANTIZED", "Case", "case_of", "dynamic_block", "marked"]


@dataclass(frozen=True)
class Case:
    """A graph, the module that it is of, and what both are given."""

    graph: Graph
    module: nn.Module
    inputs: Mapping[str, torch.Tensor]

    @property
    def expected(self) -> torch.Tensor:
        """What PyTorch computes."""
        with torch.no_grad():
            found: torch.Tensor = self.module(**self.inputs)
        return found


class One(nn.Module):
    """One operation as the attribute `op`, and something behind it."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x) * 1.5


class Attention(nn.Module):
    """Two heads, with the layers around them."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(32, 32, bias=False) for _ in range(3))
        self.to_out = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (2, 16)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class Resize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Gelu(nn.Module):
    """Both forms: they are different functions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        exact, approximate = nn.functional.gelu(x), nn.functional.gelu(x, approximate="tanh")
        return torch.cat([exact, approximate], 1)


class Norms(nn.Module):
    """A norm over groups of channels, and one over the channels of each position."""

    def __init__(self) -> None:
        super().__init__()
        self.groups, self.layer = nn.GroupNorm(8, 32), nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.groups(x).flatten(2).transpose(1, 2))


class Pointwise(nn.Module):
    """What stands between the products, in one graph: a graph for each is for the slow tests."""

    def __init__(self) -> None:
        super().__init__()
        self.gelu, self.resize = Gelu(), Resize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resize(self.gelu(nn.functional.silu(x)))


def _seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def _image() -> torch.Tensor:
    return _seeded(2, 32, 8, 8)


def _tokens() -> torch.Tensor:
    return _seeded(2, 12, 32)


KINDS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "conv2d": (lambda: One(nn.Conv2d(32, 24, 3, padding=1)), _image),
    "strided conv2d": (lambda: One(nn.Conv2d(32, 24, 3, stride=2, bias=False)), _image),
    "linear": (lambda: One(nn.Linear(32, 48)), _tokens),
    "linear without bias": (lambda: One(nn.Linear(32, 48, bias=False)), _tokens),
    "attention": (Attention, _tokens),
    "norms": (Norms, _image),
    "silu, gelu and resize": (Pointwise, _image),
    "group norm": (lambda: One(nn.GroupNorm(8, 32)), _image),
    "layer norm": (lambda: One(nn.LayerNorm(32)), _tokens),
    "resize": (Resize, _image),
    "gelu": (Gelu, _image),
    "silu": (lambda: One(nn.SiLU()), _image),
}
"""A module and its input, by kind of operation. All stay right in float32, and those of `QUANTIZED` in 8 bits."""
QUANTIZED = ("conv2d", "strided conv2d", "linear", "linear without bias", "attention", "block")
_ALWAYS = frozenset({"block", "norms", "silu, gelu and resize"})
"""Of many operations at once; the others say more exactly where a fault is."""


def marked(kinds: Iterable[str]) -> list[Any]:
    """Kinds as parameters of a test, of which some run with the slow tests alone."""
    return [
        pytest.param(kind, marks=[] if kind in _ALWAYS else [pytest.mark.slow]) for kind in kinds
    ]


@cache
def case_of(kind: str) -> Case:
    """The case of a kind, or `block`: many operations one behind the other, with three inputs."""
    if kind == "block":
        inputs = block_inputs()
        return Case(*graph_of(Block, inputs), inputs)
    make, given = KINDS[kind]
    return Case(*graph_of(make, {"x": given()}), {"x": given()})


@cache
def dynamic_block() -> Case:
    """The block with open sizes, as traced with a batch of 3."""
    size = torch.export.Dim.AUTO
    moving = {"x": {0: size, 2: size, 3: size}, "t": None, "context": {0: size}}
    inputs = block_inputs(batch=3)
    return Case(*graph_of(Block, inputs, dynamic=moving), inputs)
