"""Random-weight pipeline folders of real sizes, written without holding a model in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tests.support.tiny import build

# Stable Diffusion 1.5's own configurations, as far as they differ from the tiny pipeline's.
_SD15: dict[str, dict[str, Any]] = {
    "unet": {
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
        "sample_size": 64,
    },
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "sample_size": 512,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
    },
}
# Stable Diffusion XL 1.0's own, likewise.
_SDXL: dict[str, dict[str, Any]] = {
    "unet": {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "norm_num_groups": 32,
        "sample_size": 128,
    },
    "vae": {**_SD15["vae"], "sample_size": 1024},
    "text_encoder": {**_SD15["text_encoder"], "projection_dim": 768},
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "vocab_size": 49408,
    },
}
_WHOLE = {"sd15": ("sd", _SD15), "sdxl": ("sdxl", _SDXL)}
"""Pipelines of which every component has its real size, with the tiny family that they are made from."""
# FLUX.1's width; the depth sets the size: 340 million parameters per double block, 141 per single block.
_FLUX: dict[str, Any] = {
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "axes_dims_rope": [16, 56, 56],
}
_FLUX_LAYERS = {"flux-1b": (1, 5), "flux-4b": (6, 14), "flux-12b": (19, 38)}
_BLOCK = 1 << 22  # random numbers are repeated after so many elements

MODELS = (*_WHOLE, *_FLUX_LAYERS)


def make(model: str, folder: Path, *, dtype: str, hollow: bool = False) -> int:
    """Writes the pipeline; returns the number of parameters of its enlarged components.

    Args:
        model: One of `MODELS`.
        folder: Where.
        dtype: `float32` or `float16`, of the stored weights.
        hollow: Whether weights are zeros that take no room on the disk, for what never reads them.
    """
    if model in _WHOLE:
        family, components = _WHOLE[model]
        build(family, folder)
        return sum(
            _enlarge(folder, n, changes, dtype, hollow=hollow) for n, changes in components.items()
        )
    build("flux", folder)
    double, single = _FLUX_LAYERS[model]
    changes = {**_FLUX, "num_layers": double, "num_single_layers": single}
    return _enlarge(folder, "transformer", changes, dtype, hollow=hollow)


def _enlarge(
    folder: Path, component: str, changes: dict[str, Any], dtype: str, *, hollow: bool
) -> int:
    """Rewrites one component's configuration and gives it random weights of the new shapes."""
    path = folder / component / "config.json"
    config = json.loads(path.read_text()) | changes  # written by `build` a moment ago
    path.write_text(json.dumps(config))
    shapes = _parameter_shapes(folder, component)
    for old in (folder / component).glob("*.safetensors"):
        old.unlink()
    stem = "model" if component.startswith("text") else "diffusion_pytorch_model"
    path = folder / component / f"{stem}.safetensors"
    if hollow:
        with path.open("wb") as file:
            file.truncate(_write_header(file, shapes, np.dtype(dtype).itemsize))
    else:
        _write_random(path, shapes, dtype)
    return sum(int(np.prod(shape)) for shape in shapes.values())


def _parameter_shapes(folder: Path, component: str) -> dict[str, tuple[int, ...]]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from qdx.exporter.capture.folder import read_pipeline_folder
    from qdx.exporter.capture.skeleton import build_component

    module = build_component(read_pipeline_folder(folder).components[component], FakeTensorMode())
    return {name: tuple(value.shape) for name, value in module.named_parameters()}


def _write_header(file: BinaryIO, shapes: dict[str, tuple[int, ...]], item: int) -> int:
    """The header of a safetensors file; see the format's specification. Returns the size of the whole file."""
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * item
        header[name] = {
            "dtype": {2: "F16", 4: "F32"}[item],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    return 8 + len(text) + offset


def _write_random(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str) -> None:
    """A safetensors file, one tensor after the other."""
    noise = (np.random.default_rng(0).standard_normal(_BLOCK) * 0.02).astype(dtype)
    with path.open("wb") as file:
        _write_header(file, shapes, np.dtype(dtype).itemsize)
        for index, shape in enumerate(shapes.values()):
            left = int(np.prod(shape))
            start = (
                index * 4099 % (_BLOCK // 2)
            )  # no two tensors alike: writers store equal ones once
            while left:
                count = min(left, _BLOCK // 2)
                file.write(noise[start : start + count].data)
                left -= count
