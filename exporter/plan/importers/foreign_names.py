"""Names of layers in original checkpoints (LDM and Stable Diffusion's UNets, FLUX) as names of diffusers' modules."""

from __future__ import annotations

import re
from typing import Final

from qdx.exporter.plan.importers.patterns import NoGlobError

__all__ = ["modules_of"]

_PREFIXES: Final = ("model.diffusion_model.", "diffusion_model.", "model.")
_ORIGINAL: Final = re.compile(r"(?:input_blocks|output_blocks|middle_block|double_blocks|single_blocks|joint_blocks|time_embed|label_emb|out|img_in|txt_in|vector_in|guidance_in|time_in|final_layer|x_embedder|t_embedder|y_embedder|double_stream_modulation\w*|single_stream_modulation)\b")  # fmt: skip
_RESNET: Final = {
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS: Final = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_LAYERS: Final = 2
"""Residual blocks of each resolution, in all models of that family."""
_DOUBLE: Final = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_SINGLE: Final = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
_FLUX_ENDS: Final = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}


def modules_of(name: str) -> tuple[str, ...]:
    """The modules of diffusers that hold a layer of an original checkpoint; the name itself where it is none of these.

    >>> modules_of("double_blocks.3.txt_mlp.0")
    ('transformer_blocks.3.ff_context.net.0.proj',)

    Raises:
        NoGlobError: It is a name of an original checkpoint that no table has.
    """
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if _ORIGINAL.match(name) is None:
        return (name,)
    found = _flux(name) or _unet(name)
    if found is None:
        raise NoGlobError("is a layer of an original checkpoint that is known by no name of diffusers")  # fmt: skip
    return found


def _flux(name: str) -> tuple[str, ...] | None:
    if name in _FLUX_ENDS:
        return _FLUX_ENDS[name]
    kind, _, rest = name.partition(".")
    number, _, inside = rest.partition(".")
    if not number.isdigit():
        return None
    table, block = {
        "double_blocks": (_DOUBLE, "transformer_blocks"),
        "single_blocks": (_SINGLE, "single_transformer_blocks"),
    }.get(kind, ({}, ""))
    return tuple(f"{block}.{number}.{one}" for one in table[inside]) if inside in table else None


def _unet(name: str) -> tuple[str, ...] | None:
    if name in _UNET_ENDS:
        return (_UNET_ENDS[name],)
    parts = name.split(".")
    if parts[0] == "middle_block" and len(parts) > 2:
        place = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}.get(parts[1])  # fmt: skip
        return None if place is None else _inside(place, ".".join(parts[2:]))
    if len(parts) < 4 or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    number, part, rest = int(parts[1]), int(parts[2]), ".".join(parts[3:])
    if parts[0] == "input_blocks":
        block, layer = divmod(number - 1, _LAYERS + 1)
        if layer == _LAYERS:
            return (f"down_blocks.{block}.downsamplers.0.conv",) if rest == "op" else None
        return _of_block(f"down_blocks.{block}", layer, part, rest)
    if parts[0] == "output_blocks":
        block, layer = divmod(number, _LAYERS + 1)
        if rest == "conv":
            return (f"up_blocks.{block}.upsamplers.0.conv",)
        return _of_block(f"up_blocks.{block}", layer, part, rest)
    return None


def _of_block(block: str, layer: int, part: int, rest: str) -> tuple[str, ...] | None:
    kind = {0: "resnets", 1: "attentions"}.get(part)
    return None if kind is None else _inside(f"{block}.{kind}.{layer}", rest)


def _inside(place: str, rest: str) -> tuple[str, ...] | None:
    if ".resnets." in place:
        return (f"{place}.{_RESNET[rest]}",) if rest in _RESNET else None
    return (f"{place}.{rest}",)
