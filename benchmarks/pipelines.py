"""Pipelines of known size for the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

SHAPES = {"sample": (2, 4, 32, 32), "encoder_hidden_states": (2, 77, 512)}
"""The call that is measured: both halves of guidance, 32 x 32 latents, 77 tokens."""

_UNET = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (96, 192, 384, 384),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "cross_attention_dim": 512,
}
"""Stable Diffusion's topology at 30 % of its width: 79.6 million parameters."""

HEADS = {"8-heads": 8, "32-wide-heads": (3, 6, 12, 12)}
"""Attention heads of each level. Stable Diffusion 1 has 8 everywhere, of 40 to 160 channels, Stable Diffusion 2 has heads
of 64 channels. At 30 % of the width neither can be kept: 8 heads keep the number, and have 12 to 48 channels; heads of 32
channels keep softmax, whose work grows with heads rather than channels, nearer to its share of the whole."""


def make_pipeline(folder: Path, heads: str = "8-heads") -> Path:
    """Writes a Stable Diffusion folder with that UNet; the other components are tiny. Kept if it is there.

    Called with its defaults, the pipeline calls the UNet with the measured shapes. `heads` is a key of `HEADS`.
    """
    if (folder / "model_index.json").exists():
        return folder
    import torch
    from diffusers import UNet2DConditionModel

    from tests.support.tiny import build
    from tests.support.tiny.parts import clip_text
    from tests.support.tiny.vocabularies import clip_tokenizer

    build("sd", folder)
    tokens, width = SHAPES["encoder_hidden_states"][1:]
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = tokens
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    UNet2DConditionModel(**_UNET, attention_head_dim=HEADS[heads]).save_pretrained(folder / "unet")
    clip_text(tokenizer, hidden=width).save_pretrained(folder / "text_encoder")
    return folder


def unet_graph(folder: Path, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Graph:
    """The UNet's graph, at the measured shapes or at others."""
    import torch

    from qdx.exporter.capture.calls import CallRecord
    from qdx.exporter.capture.folder import read_pipeline_folder
    from qdx.exporter.capture.skeleton import build_skeleton
    from qdx.exporter.capture.trace import trace
    from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
    from qdx.exporter.graph.ir.weights import bind_weights

    skeleton = build_skeleton(read_pipeline_folder(folder))
    arguments = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    arguments["timestep"] = torch.empty((), dtype=torch.int64, device="meta")
    record = CallRecord("unet", "forward", arguments)
    checkpoint = open_checkpoint(skeleton.folder.components["unet"].path)
    return trace(
        skeleton, record, bind_weights(skeleton.modules["unet"], checkpoint, component="unet")
    )
