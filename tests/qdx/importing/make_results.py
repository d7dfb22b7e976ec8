"""Writes the files of `made/` with the tools whose they are: weights of the UNet of the tests, quantized, and the values that they stand for.

    python tests/qdx/importing/make_results.py TOOL...

Float tensors are left out of the files, which are those of diffusers otherwise.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MADE = Path(__file__).parent / "made"
CHOSEN = ("time_embedding.linear_2", "ff.net.2", "attn1.to_q", "proj_in")


def _load(folder: Path, **arguments: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **arguments)


def _model(folder: Path) -> Path:
    from tests.support.smallest import build_smallest_text_to_image

    return build_smallest_text_to_image(folder)


def _weights() -> dict[str, Any]:
    """The float weights of some linear layers."""
    from torch import nn

    with tempfile.TemporaryDirectory() as folder:
        unet = _load(_model(Path(folder)))
        return {
            name: module.weight.detach().clone()
            for name, module in unet.named_modules()
            if isinstance(module, nn.Linear) and name.endswith(CHOSEN)
        }


def _save(
    name: str,
    tensors: dict[str, Any],
    values: dict[str, Any],
    *,
    metadata: Any = None,
    config: Any = None,
) -> None:
    from safetensors.torch import save_file

    folder = MADE / name
    folder.mkdir(exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        folder / "diffusion_pytorch_model.safetensors",
        metadata,
    )
    save_file(
        {k: v.float().contiguous() for k, v in values.items()}, MADE / f"{name}-values.safetensors"
    )
    if config is not None:
        (folder / "config.json").write_text(
            json.dumps({"quantization_config": config}, indent=1) + "\n"
        )


def _saved(name: str, config: Any, kept: str) -> None:
    """A folder that diffusers saved, without float tensors, and what its weights stand for."""
    import torch
    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as place:
        unet = _load(_model(Path(place)), quantization_config=config, torch_dtype=torch.float32)
        unet.save_pretrained(Path(place) / "saved", safe_serialization=True)
        with safe_open(Path(place) / "saved" / "diffusion_pytorch_model.safetensors", "pt") as file:
            every = file.keys()
            names = [n for n in every if kept in n and any(f"{one}." in n for one in CHOSEN)]
            tensors = {n: file.get_tensor(n) for n in names}
            metadata = {
                k: v
                for k, v in (file.metadata() or {}).items()
                if any(f"{one}.weight" in k for one in CHOSEN)
            }
        stored = json.loads((Path(place) / "saved" / "config.json").read_text())[
            "quantization_config"
        ]
        values = {
            n: m.weight.dequantize().detach()
            for n, m in unet.named_modules()
            if n.endswith(CHOSEN) and hasattr(m.weight, "dequantize")
        }
        _save(name, tensors, values, metadata={"format": "pt", **metadata}, config=stored)


def torchao() -> None:
    """torchao 0.18."""
    import torch
    from diffusers import TorchAoConfig
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
    )

    _saved("torchao-int8", TorchAoConfig(Int8WeightOnlyConfig()), "._weight_")
    _saved("torchao-float8", TorchAoConfig(Float8WeightOnlyConfig()), "._weight_")
    others = ["attn1", "attn2", "linear_1", "proj", "resnets", "cond_proj"]
    intx = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16))
    _saved("torchao-int4", TorchAoConfig(intx, modules_to_not_convert=others), "._weight_")


def quanto() -> None:
    """optimum-quanto 0.2.7."""
    from diffusers import QuantoConfig

    for kind in ("int8", "float8", "int4"):
        _saved(f"quanto-{kind}", QuantoConfig(kind), ".weight._")


def bitsandbytes() -> None:
    """bitsandbytes 0.50."""
    import bitsandbytes.functional as bnb

    tensors, values = {}, {}
    for name, weight in _weights().items():
        integers, peaks, _ = bnb.int8_vectorwise_quant(weight)
        tensors |= {f"{name}.weight": integers, f"{name}.SCB": peaks}
        values[name] = bnb.int8_vectorwise_dequant(integers, peaks)
    _save(
        "bitsandbytes-int8",
        tensors,
        values,
        config={"quant_method": "bitsandbytes", "load_in_8bit": True},
    )
    four = {}
    for name, weight in list(_weights().items())[:1]:
        packed, state = bnb.quantize_4bit(weight, quant_type="nf4")
        four |= {f"{name}.weight": packed} | {
            f"{name}.weight.{k}": v for k, v in state.as_dict(packed=True).items()
        }
    _save(
        "bitsandbytes-nf4", four, {}, config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    )


def modelopt() -> None:
    """nvidia-modelopt 0.47: its packed tensors, under the names that it exports."""
    import torch
    from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor

    tensors, values = {}, {}
    for name, weight in _weights().items():
        if weight.shape[1] % 16:
            continue
        packed, scales, outer = NVFP4QTensor.quantize(weight, 16)
        tensors |= {
            f"{name}.weight": packed._quantized_data,
            f"{name}.weight_scale": scales,
            f"{name}.weight_scale_2": outer,
        }
        values[name] = packed.dequantize(
            scale=scales, double_scale=outer, block_sizes={-1: 16}, dtype=torch.float32
        )
    _save("modelopt-nvfp4", tensors, values, config={"quant_method": "modelopt"})
    tensors, values = {}, {}
    for name, weight in _weights().items():
        scale = weight.abs().amax() / 448
        packed, scales = FP8QTensor.quantize(weight, scale)
        tensors |= {
            f"{name}.weight": packed._quantized_data,
            f"{name}.weight_scale": scales.float().reshape(()),
            f"{name}.input_scale": torch.tensor(0.02),
        }
        values[name] = packed.dequantize(scale=scales)
    _save("modelopt-fp8", tensors, values, config={"quant_method": "modelopt"})


def gguf() -> None:
    """gguf 0.19: files of its writer; of the types that it does not quantize, random blocks that it reads."""
    import numpy as np
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFWriter, quants
    from safetensors.numpy import save_file

    weights = {n: w.numpy() for n, w in _weights().items() if w.shape[1] % 32 == 0}
    for kind in (Kind.Q8_0, Kind.Q4_0, Kind.Q5_0, Kind.Q4_1):
        values = {}
        writer = GGUFWriter(MADE / f"{kind.name}.gguf", "unet")
        for name, weight in weights.items():
            blocks = quants.quantize(weight, kind)
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
            values[name] = quants.dequantize(blocks, kind).astype(np.float32)
        writer.add_tensor("conv_in.bias", np.zeros(8, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        save_file(values, MADE / f"{kind.name}-values.safetensors")
    random = np.random.default_rng(0)
    parts = {}
    for kind, size in ((Kind.Q6_K, 210), (Kind.Q3_K, 110)):
        blocks = random.integers(0, 256, (4, size), dtype=np.uint8)
        blocks[:, -2:] = (
            np.array([0.01, -0.02, 0.003, 0.0], np.float16).view(np.uint8).reshape(4, 2)
        )
        parts |= {
            f"{kind.name}.blocks": blocks,
            f"{kind.name}.values": quants.dequantize(blocks, kind).astype(np.float32),
        }
    save_file(parts, MADE / "k-quants.safetensors")


MAKERS: dict[str, Callable[[], None]] = {
    "torchao": torchao,
    "quanto": quanto,
    "bitsandbytes": bitsandbytes,
    "modelopt": modelopt,
    "gguf": gguf,
}

if __name__ == "__main__":
    for tool in sys.argv[1:] or MAKERS:
        MAKERS[tool]()
