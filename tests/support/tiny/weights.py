"""Random weights that let a comparison fail.

Fresh modules hold many constants: zero gates, zero output layers, norms of one. A converter
that drops such a layer would go unseen, so every parameter here is drawn anew.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


_USUAL = 1e6
"""Larger numbers, and what is none, is memory that a constructor has not written to."""


def randomise(components: Mapping[str, Any], seed: int) -> None:
    """Redraw the parameters of every torch module among a pipeline's components, in place.

    The values depend on the seed, the component's name and the parameter's name alone.

    Args:
        components: Component name -> module, tokenizer, scheduler or None.
        seed: Chooses the weights.
    """
    import torch

    for component, module in components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        module.eval()
        named = [*module.named_parameters(), *_statistics(module)]
        for name, tensor in named:
            key = zlib.crc32(f"{seed}/{component}/{name}".encode())
            _redraw(name, tensor, torch.Generator().manual_seed(key))


def _statistics(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    # Latent statistics of some autoencoders are buffers of zeros and ones until a checkpoint fills
    # them.
    return [(n, b) for n, b in module.named_buffers() if n in ("latents_mean", "latents_std")]


def _redraw(name: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    import torch

    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    first = float(tensor.detach().flatten()[0])
    constant = bool((tensor.detach() == first).all())
    with torch.no_grad():
        if name.endswith("weight_g") or (constant and first != 0.0):
            # Scales: near their usual value, and row norms of weight-normed layers a little below
            # one, since their residual branches carry no norm that would hold the signal.
            base = 0.7 if name.endswith("weight_g") else first
            tensor.copy_(base * (1.0 + 0.1 * noise.clamp(-3, 3)))
        elif tensor.ndim >= 2:
            # Keeps a unit-variance input near unit variance, whatever the layer.
            fan_in = max(tensor[0].numel(), 1)
            tensor.copy_(noise / fan_in**0.5)
        elif constant or name.endswith("bias") or not bool((tensor.abs() < _USUAL).all()):
            tensor.copy_(0.1 * noise)
        # What is left are fixed one-dimensional tables, such as Fourier frequencies.
