"""Graphs of small modules, traced as the exporter does it: fake weights, real bytes behind a reader."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from qdx.exporter.graph.ir.graph import Graph, TensorSpec, dtype_name
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights


class Wrapped(nn.Module):
    """Named tensors in and out, the component as `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"y": self.module(**tensors)}


def graph_of(
    make: Callable[[], nn.Module],
    inputs: dict[str, torch.Tensor],
    *,
    dynamic: dict[str, Any] | None = None,
    reads: list[str] | None = None,
) -> tuple[Graph, nn.Module]:
    """The graph of a module and the module itself; `reads` collects the names of weights as they are read."""
    torch.manual_seed(0)
    real = make().eval()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with mode, torch.no_grad():
        fake = make().eval()
    with torch.no_grad():
        program = torch.export.export(
            Wrapped(fake),
            (inputs,),
            dynamic_shapes=None if dynamic is None else (dynamic,),
            strict=False,
        )
    by_name = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    graph = Graph(
        "block",
        "forward",
        program,
        tuple(_spec(k, by_name[n]) for k, n in zip(inputs, signature.user_inputs, strict=True)),
        tuple(_spec("y", by_name[n]) for n in signature.user_outputs),
        _weights(real, [] if reads is None else reads),
    )
    return graph, real


def _spec(name: str, node: torch.fx.Node) -> TensorSpec:
    value = node.meta["val"]
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(name, dtype_name(value.dtype), shape)


def _weights(module: nn.Module, reads: list[str]) -> LazyWeights:
    owners: dict[int, str] = {}
    aliases: dict[str, str] = {}
    found: dict[str, LazyWeight] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner = owners.setdefault(id(parameter), name)
        if owner != name:
            aliases[name] = owner

        def read(name: str = name, parameter: nn.Parameter = parameter) -> torch.Tensor:
            reads.append(name)
            return parameter.detach()

        found[name] = LazyWeight(name, tuple(parameter.shape), parameter.dtype, read)
    return LazyWeights(found, aliases=aliases)


def sqnr_db(reference: torch.Tensor, other: Any) -> float:
    """Signal to quantization noise ratio in decibels."""
    signal = reference.detach().double()
    noise = float((signal - torch.from_numpy(other).double()).square().sum())
    return math.inf if noise == 0 else 10 * math.log10(float(signal.square().sum()) / noise)


class Block(nn.Module):
    """A piece of a UNet: timestep, convolution, group norm, attention and a gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 32, 3, padding=1)
        self.norm = nn.GroupNorm(8, 32)
        self.act = nn.SiLU()
        self.time = nn.Linear(1, 32)
        self.norm1 = nn.LayerNorm(32)
        self.to_q = nn.Linear(32, 32, bias=False)
        self.to_k = nn.Linear(16, 32, bias=False)
        self.to_v = nn.Linear(16, 32, bias=False)
        self.to_out = nn.Linear(32, 32)
        self.proj = nn.Linear(32, 128)
        self.ff = nn.Linear(64, 32)
        self.tied = nn.Linear(64, 32)
        self.tied.weight = self.ff.weight
        self.conv_out = nn.Conv2d(32, 4, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x) + self.time(t[None, None].float())[:, :, None, None]
        x = self.act(self.norm(x)) / 1.0
        batch, channels, height, width = x.shape
        tokens = self.norm1(x.flatten(2).transpose(1, 2))
        heads = [
            layer(y).view(batch, -1, 4, 8).transpose(1, 2)
            for layer, y in ((self.to_q, tokens), (self.to_k, context), (self.to_v, context))
        ]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        tokens = tokens + self.to_out(mixed.transpose(1, 2).reshape(batch, -1, channels))
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        gated = value * nn.functional.gelu(gate)
        tokens = tokens + self.ff(gated) + self.tied(gated)
        return self.conv_out(tokens.transpose(1, 2).reshape(batch, channels, height, width))


def block_inputs(*, batch: int = 2, size: int = 8) -> dict[str, torch.Tensor]:
    """Inputs of `Block`: x [batch, 4, size, size], t a scalar int64, context [batch, 5, 16]."""
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(batch, 4, size, size, generator=generator),
        "t": torch.tensor(500),
        "context": torch.randn(batch, 5, 16, generator=generator),
    }
