"""Files of low-rank adapters with random pairs, in the spellings of trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

__all__ = ["pair", "random_pairs", "write_kohya", "write_lora"]

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


def pair(weight: torch.Tensor, rank: int, generator: torch.Generator) -> tuple[Any, Any]:
    """Two matrices for a weight, whose product is about as large as it; of a convolution with its kernel."""
    down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
    up = torch.randn(weight.shape[0], rank, *([1] * (weight.dim() - 2)), generator=generator)
    return down, up / rank**0.5


def random_pairs(
    module: torch.nn.Module, endings: tuple[str, ...], rank: int = 4, seed: int = 0
) -> Pairs:
    """Pairs for the layers of a module whose names end so, by the layer's path."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name.removesuffix(".weight"): pair(parameter, rank, generator)
        for name, parameter in module.named_parameters()
        if name.removesuffix(".weight").endswith(endings) and name.endswith(".weight")
    }


def write_lora(path: Path, **components: Pairs) -> Path:
    """A file in diffusers' own format, of components by name."""
    tensors = {}
    for component, pairs in components.items():
        for layer, (down, up) in pairs.items():
            tensors[f"{component}.{layer}.lora_A.weight"] = down
            tensors[f"{component}.{layer}.lora_B.weight"] = up
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def write_kohya(path: Path, alpha: float, **prefixes: Pairs) -> Path:
    """A file of kohya's trainer: `lora_unet_down_blocks_0_….lora_down.weight`, with alphas."""
    tensors = {}
    for prefix, pairs in prefixes.items():
        for layer, (down, up) in pairs.items():
            name = f"{prefix}_{layer.replace('.', '_')}"
            tensors[f"{name}.lora_down.weight"] = down
            tensors[f"{name}.lora_up.weight"] = up
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
