"""Outlier twins of the samples: the same functions in floats, with channels of activations that stand out.

    python -m samples.twins samples/shapes build/shapes-twin

One channel of every activation that can be scaled alone is multiplied, and the weights' columns that read it are divided:
the affine parameters of a norm or what stands in for them (the scale and shift that a block computes from its embedding),
the values of an attention, the half of a gated layer that is not the gate. Behind a norm followed by a nonlinearity there
is nothing that could take a factor back, nor behind what is added to a residual stream, such as a token's embedding.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FACTOR = 50.0
"""What a channel is multiplied by."""

AFFINE = (
    ("norm1", ("attn1.to_q", "attn1.to_k", "attn1.to_v")),
    ("norm2", ("attn2.to_q",)),
    ("norm3", ("ff.net.0.proj",)),
    ("group_norm", ("to_q", "to_k", "to_v")),
    ("norm", ("proj_in",)),
    ("layer_norm1", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("layer_norm2", ("mlp.fc1",)),
)
"""Norms, and all that read one, by names beside it."""

PRODUCTS = (
    (("to_v", "add_v_proj"), ("to_out.0", "to_add_out")),
    (("v_proj",), ("out_proj",)),
)
"""Values of an attention, and what reads them when it has weighed them. The second of each may be missing."""

MODULATED = (
    ("norm1.linear", 6, 0, 1, ("attn.to_q", "attn.to_k", "attn.to_v")),
    ("norm1.linear", 6, 3, 4, ("ff.net.0.proj",)),
    ("norm1_context.linear", 6, 0, 1, ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    ("norm1_context.linear", 6, 3, 4, ("ff_context.net.0.proj",)),
    ("norm1_context.linear", 2, 1, 0, ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    ("norm_out.linear", 2, 1, 0, ("proj_out",)),
)
"""Layers that compute shift and scale of a norm, of how many parts, which of them these are, and all that read the norm."""


@dataclass(frozen=True)
class Rescaling:
    """One channel that is to stand out.

    Attributes:
        layers: Those that make it, weight and bias, each with the row that is it.
        scale: The layer and row that make what one is added to before it multiplies the channel; None without.
        readers: Layers that take it, by whose column it is divided.
        channel: Its place.
    """

    layers: tuple[tuple[str, int], ...]
    readers: tuple[str, ...]
    channel: int
    scale: tuple[str, int] | None = None


def write_twin(source: Path, target: Path, factor: float = FACTOR) -> int:
    """Writes a pipeline's twin, whose changed weights are in float32.

    Args:
        source: A pipeline in the folder format of `diffusers`.
        target: The folder to write, which must not be there.
        factor: What channels are multiplied by.

    Returns:
        How many channels stand out.

    Raises:
        ValueError: None of the pipeline's layers is known to be fit for it.
    """
    shutil.copytree(source, target)
    count = 0
    for file in sorted(target.rglob("*.safetensors")):
        state = load_file(file)
        found = tuple(rescalings(state))
        if found:
            save_file(twin_state(state, found, factor), file, metadata={"format": "pt"})
        count += len(found)
    if not count:
        raise ValueError(f"{source}: no layer whose channels can be scaled")
    return count


def twin_state(
    state: Mapping[str, torch.Tensor], found: tuple[Rescaling, ...], factor: float
) -> dict[str, torch.Tensor]:
    """Weights of one component with channels that stand out, in float32.

    Args:
        state: Its weights by name.
        found: The channels.
        factor: What they are multiplied by.
    """
    twin = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    for one in found:
        made = one.layers if one.scale is None else (*one.layers, one.scale)
        for layer, row in made:
            for part in ("weight", "bias"):
                if f"{layer}.{part}" in twin:
                    twin[f"{layer}.{part}"][row] *= factor
        if one.scale is not None:  # 1 + s' = factor (1 + s)
            twin[f"{one.scale[0]}.bias"][one.scale[1]] += factor - 1
        for layer in one.readers:
            twin[f"{layer}.weight"][:, one.channel] /= factor
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in twin.items()
    }


def rescalings(state: Mapping[str, torch.Tensor]) -> Iterator[Rescaling]:
    """The channels of one component that can stand out, one of each activation.

    Args:
        state: Its weights by name.
    """
    layers = {name.removesuffix(".weight") for name in state if name.endswith(".weight")}
    for layer in sorted(layers):
        yield from _affine(state, layers, layer)
        yield from _values(state, layers, layer)
        yield from _gated(state, layers, layer)
        yield from _modulated(state, layers, layer)


def _affine(state: Mapping[str, torch.Tensor], layers: set[str], layer: str) -> Iterator[Rescaling]:
    for name, beside in AFFINE:
        readers = _beside(layers, layer, name, beside)
        if readers:
            channel = _channel(layer, len(state[f"{layer}.weight"]))
            yield Rescaling(((layer, channel),), readers, channel)


def _values(state: Mapping[str, torch.Tensor], layers: set[str], layer: str) -> Iterator[Rescaling]:
    for made, read in PRODUCTS:
        if not re.search(rf"(^|\.){re.escape(made[0])}$", layer):
            continue
        prefix = layer.removesuffix(made[0])
        makers = [f"{prefix}{one}" for one in made if f"{prefix}{one}" in layers]
        readers = tuple(f"{prefix}{one}" for one in read if f"{prefix}{one}" in layers)
        if readers:
            channel = _channel(layer, len(state[f"{layer}.weight"]))
            yield Rescaling(tuple((one, channel) for one in makers), readers, channel)


def _gated(state: Mapping[str, torch.Tensor], layers: set[str], layer: str) -> Iterator[Rescaling]:
    readers = _beside(layers, layer, "net.0.proj", ("net.2",))
    if readers:
        width = state[f"{readers[0]}.weight"].shape[1]
        if len(state[f"{layer}.weight"]) == 2 * width:  # the first half is not the gate
            channel = _channel(layer, width)
            yield Rescaling(((layer, channel),), readers, channel)


def _modulated(
    state: Mapping[str, torch.Tensor], layers: set[str], layer: str
) -> Iterator[Rescaling]:
    for name, parts, shift, scale, beside in MODULATED:
        readers = _beside(layers, layer, name, beside)
        if not readers:
            continue
        width = state[f"{readers[0]}.weight"].shape[1]
        if len(state[f"{layer}.weight"]) == parts * width:
            channel = _channel(f"{layer} {scale}", width)
            yield Rescaling(
                ((layer, shift * width + channel),),
                readers,
                channel,
                scale=(layer, scale * width + channel),
            )


def _beside(layers: set[str], layer: str, name: str, beside: tuple[str, ...]) -> tuple[str, ...]:
    """The layers of these names beside one of that name; none where one of them is missing."""
    if layer != name and not layer.endswith(f".{name}"):
        return ()
    prefix = layer.removesuffix(name)
    found = tuple(f"{prefix}{one}" for one in beside)
    return found if layers.issuperset(found) else ()


def _channel(layer: str, channels: int) -> int:
    """One of some channels, the same at every call and not the same for every layer."""
    return sum(layer.encode()) % channels


def main() -> None:
    """Writes a twin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--factor", type=float, default=FACTOR)
    arguments = parser.parse_args()
    count = write_twin(arguments.source, arguments.target, arguments.factor)
    print(f"{arguments.target}: {count} channels times {arguments.factor:g}")


if __name__ == "__main__":
    main()
