"""Pipelines that people hold in Python and that no folder can say, tiny and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
)
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.support.smallest import build_smallest_stable_diffusion
from tests.support.tiny import build

__all__ = ["CALL", "LIVE", "Sharpened", "differences", "drawn", "plain", "snapshot"]

CALL: Final = {"prompt": "a circle", "height": 32, "width": 32, "num_inference_steps": 2}


class Sharpened(StableDiffusionPipeline):
    """A pipeline class of somebody's own, whose decoder is not the last to change a picture."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        found = super().__call__(*args, **options)
        found.images = found.images**2
        return found


def loaded(family: str, cls: type, place: Any, **parts: Any) -> DiffusionPipeline:
    folder = build(family, place / family)
    pipeline = cls.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plain(place: Any, cls: type = StableDiffusionPipeline) -> DiffusionPipeline:
    folder = build_smallest_stable_diffusion(place / "sd")
    pipeline = cls.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pruned(place: Any) -> DiffusionPipeline:
    """Convolutions of irregular widths, which no configuration can say."""
    import torch_pruning

    pipeline = plain(place)
    unet = pipeline.unet
    inputs = {
        "sample": torch.zeros(1, unet.config.in_channels, 16, 16),
        "timestep": torch.ones(1, dtype=torch.int64),
        "encoder_hidden_states": torch.zeros(1, 77, unet.config.cross_attention_dim),
    }
    graph = torch_pruning.DependencyGraph().build_dependency(unet, example_inputs=inputs)
    for block in (unet.mid_block, *unet.up_blocks):
        first = block.resnets[0].conv1
        group = graph.get_pruning_group(
            first, torch_pruning.prune_conv_out_channels, idxs=list(range(4))
        )
        group.prune()
    for block in unet.modules():
        if isinstance(block, nn.GroupNorm):
            block.num_groups = 4 if block.num_channels % 4 == 0 else 1
    return pipeline


def shortened(place: Any) -> DiffusionPipeline:
    """A transformer without its last blocks."""
    pipeline = loaded("sd3", StableDiffusion3Pipeline, place)
    del pipeline.transformer.transformer_blocks[0]
    return pipeline


def perturbed(place: Any) -> DiffusionPipeline:
    return plain(place, StableDiffusionPAGPipeline)


def adapted(place: Any) -> DiffusionPipeline:
    """An adapter that is loaded and not fused."""
    from peft import LoraConfig

    pipeline = plain(place)
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipeline.unet.add_adapter(config, adapter_name="style")
    return pipeline


def pictured(place: Any) -> DiffusionPipeline:
    """An IP-Adapter, which adds projections and processors of its own."""
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, projection_dim=32, num_hidden_layers=2,
            num_attention_heads=4, image_size=32, patch_size=8,
        )
    ).eval()  # fmt: skip
    extractor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    pipeline = plain(place)
    pipeline.register_modules(image_encoder=encoder, feature_extractor=extractor)
    unet = pipeline.unet
    width = unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(4)

    def drawn_weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    weights: dict[str, dict[str, torch.Tensor]] = {
        "image_proj": {
            "proj.weight": drawn_weight(4 * width, 32),
            "proj.bias": drawn_weight(4 * width),
            "norm.weight": torch.ones(width),
            "norm.bias": torch.zeros(width),
        },
        "ip_adapter": {},
    }
    crossed = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(crossed):
        to_k = unet.get_submodule(name.removesuffix(".processor")).to_k
        for part in ("to_k_ip", "to_v_ip"):
            key = f"{2 * number + 1}.{part}.weight"
            weights["ip_adapter"][key] = drawn_weight(to_k.weight.shape[0], width)
    unet._load_ip_adapter_weights([weights])  # the public one wants a file
    return pipeline


def own_class(place: Any) -> DiffusionPipeline:
    return plain(place, Sharpened)


LIVE: Final[dict[str, Callable[[Any], DiffusionPipeline]]] = {
    "pruned": pruned,
    "shortened": shortened,
    "perturbed": perturbed,
    "adapted": adapted,
    "pictured": pictured,
    "own class": own_class,
}


def drawn(pipeline: DiffusionPipeline, call: dict[str, Any]) -> torch.Tensor:
    """What a pipeline makes of a call and of the noise of a seed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        found = pipeline(**call, generator=generator, output_type="np").images
    return torch.from_numpy(found)


def snapshot(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """All of an object that an export could change: parts, their attributes, and the bits of their tensors."""
    found: dict[str, Any] = {"config": dict(pipeline.config)}
    for name, part in pipeline.components.items():
        found[name] = id(part)
        if not isinstance(part, nn.Module):
            continue
        for path, module in part.named_modules():
            for key, value in vars(module).items():
                found[f"{name}.{path}.{key}"] = (
                    {k: id(v) for k, v in value.items()} if isinstance(value, dict) else id(value)
                )
        for key, value in part.state_dict().items():
            found[f"{name}:{key}"] = (value.dtype, value.device, value.clone())
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names at which two snapshots differ."""
    return [key for key in sorted({*before, *after}) if not _same(before.get(key), after.get(key))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and len(one) == 3 and isinstance(one[2], torch.Tensor):
        return isinstance(other, tuple) and one[:2] == other[:2] and torch.equal(one[2], other[2])
    return one == other
