"""Writes the files of `made/` with the tools whose they are; each tool is needed for its own alone.

python tests/exporter/plan/importers/make_fixtures.py TOOL...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MADE = Path(__file__).parent / "made"


def _write(name: str, value: Any) -> None:
    (MADE / name).write_text(json.dumps(value, indent=1) + "\n")


def modelopt() -> None:
    """nvidia-modelopt 0.47: its own configurations, and what they switch on in the UNet of the tests."""
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.conversion import replace_quant_module, set_quantizer_by_cfg
    from modelopt.torch.quantization.nn import TensorQuantizer

    names = ("INT8_DEFAULT_CFG", "INT8_SMOOTHQUANT_CFG", "FP8_DEFAULT_CFG", "NVFP4_DEFAULT_CFG", "INT4_AWQ_CFG", "MXFP8_DEFAULT_CFG", "INT4_BLOCKWISE_WEIGHT_ONLY_CFG")  # fmt: skip
    configs = {name.removesuffix("_CFG").lower(): getattr(mtq, name) for name in names}
    configs["mixed"] = {"quant_cfg": _MIXED, "algorithm": "max"}
    for name, config in configs.items():
        _write(f"modelopt-{name}.json", config)
    enabled = {}
    for name in ("int8_default", "fp8_default", "mixed"):
        unet = _unet()
        replace_quant_module(unet)
        set_quantizer_by_cfg(unet, json.loads(json.dumps(configs[name], default=list))["quant_cfg"])
        enabled[name] = {
            where: [one.num_bits, one.axis]
            for where, one in unet.named_modules()
            if isinstance(one, TensorQuantizer) and one.is_enabled
        }
    _write("modelopt-enabled.json", enabled)


_MIXED = [
    {"quantizer_name": "*", "enable": False},
    {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
    {"quantizer_name": "*.to_[kv].weight_quantizer", "cfg": {"num_bits": 4, "axis": 0}},
    {"quantizer_name": "*attn?.*input_quantizer", "cfg": {"num_bits": 8, "axis": None}},
    {"quantizer_name": "*[qk]_bmm_quantizer", "cfg": {"num_bits": 8, "axis": None}},
    {"quantizer_name": "*conv_*", "enable": False},
    {"quantizer_name": "*", "parent_class": "nn.Conv2d", "cfg": {"num_bits": [4, 3], "axis": 0}, "enable": False},
    {"quantizer_name": "*time_emb*", "enable": False},
    {"quantizer_name": "*.attn1.to_q.input_quantizer", "enable": False},
]  # fmt: skip


def _unet() -> Any:
    """The UNet of the tests with attention, at random."""
    import tempfile

    from diffusers import UNet2DConditionModel

    from tests.support.smallest import build_smallest_text_to_image

    with tempfile.TemporaryDirectory() as folder:
        build_smallest_text_to_image(Path(folder))
        return UNet2DConditionModel.from_pretrained(folder, subfolder="unet")


def _weight() -> Any:
    """A weight of eight channels and 128 inputs, the same for all tools."""
    import torch

    return torch.randn(8, 128, generator=torch.Generator().manual_seed(0)) * 0.1


def _numbers(tool: str, plans: dict[str, Any], values: dict[str, Any]) -> None:
    """Plans as a tool writes them, and what it makes of the weight."""
    from safetensors.torch import save_file

    _write(f"{tool}-plans.json", plans)
    save_file(
        {name: one.float().contiguous() for name, one in values.items()},
        MADE / f"{tool}-values.safetensors",
    )


def torchao() -> None:
    """torchao 0.18."""
    import torch
    from torch import nn
    from torchao.core.config import config_to_dict
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        MappingType,
        PerAxis,
        PerGroup,
        PerTensor,
        quantize_,
    )

    configs = {
        "int8": Int8WeightOnlyConfig(),
        "int8-tensor": Int8WeightOnlyConfig(granularity=PerTensor()),
        "int4-group": IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
        "int4-axis": IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerAxis(0)),
        "int4-zero": IntxWeightOnlyConfig(
            weight_dtype=torch.int4, granularity=PerGroup(32), mapping_type=MappingType.ASYMMETRIC
        ),
        "int3-group": IntxWeightOnlyConfig(weight_dtype=torch.int3, granularity=PerGroup(64)),
        "float8": Float8WeightOnlyConfig(),
    }
    values = {}
    for name, config in configs.items():
        module = nn.Sequential(nn.Linear(128, 8, bias=False))
        module[0].weight = nn.Parameter(_weight())
        quantize_(module, config)
        values[name] = module[0].weight.dequantize().detach()
    _numbers("torchao", {name: config_to_dict(one) for name, one in configs.items()}, values)


def quanto() -> None:
    """optimum-quanto 0.2.7."""
    from optimum.quanto import freeze, qfloat8, qint4, qint8, quantization_map, quantize
    from torch import nn

    values, plans = {}, {}
    for name, kind in (("qint8", qint8), ("qfloat8", qfloat8), ("qint4", qint4)):
        module = nn.Sequential(nn.Linear(128, 8, bias=False))
        module[0].weight = nn.Parameter(_weight())
        quantize(module, weights=kind)
        freeze(module)
        values[name], plans[name] = module[0].weight.dequantize().detach(), quantization_map(module)
    _numbers("quanto", plans, values)


def modelopt_values() -> None:
    """nvidia-modelopt 0.47: what its quantizers make of the weight."""
    import modelopt.torch.quantization as mtq
    from torch import nn

    names = ("int8_default", "fp8_default", "int4_blockwise_weight_only")
    values, plans = {}, {}
    for name in names:
        config = json.loads((MADE / f"modelopt-{name}.json").read_text())
        for entry in config["quant_cfg"]:  # JSON has no integers as keys
            blocks = (entry.get("cfg") or {}).get("block_sizes")
            if blocks:
                entry["cfg"]["block_sizes"] = {
                    int(k) if k.lstrip("-").isdigit() else k: v for k, v in blocks.items()
                }
        module = nn.Sequential(nn.Linear(128, 8, bias=False))
        module[0].weight = nn.Parameter(_weight())
        mtq.quantize(module, config, lambda model: model(_weight()))
        quantizer = module[0].weight_quantizer
        values[name] = quantizer(_weight()).detach()
        plans[name] = json.loads((MADE / f"modelopt-{name}.json").read_text())
    _numbers("modelopt", plans, values)


def sdnq() -> None:
    """SDNQ 0.2.8."""
    from sdnq.quantizer import SDNQConfig, sdnq_quantize_layer
    from torch import nn

    values, plans = {}, {}
    for name, kind, group in (
        ("int8", "int8", -1),
        ("uint4", "uint4", 64),
        ("float8", "float8_e4m3fn", -1),
    ):
        config = SDNQConfig(
            weights_dtype=kind, group_size=group, minimum_allowed_numel=1, dequantize_fp32=True
        )
        module = nn.Linear(128, 8, bias=False)
        module.weight = nn.Parameter(_weight())
        layer = sdnq_quantize_layer(module, quantization_config=config)
        layer = layer[0] if isinstance(layer, tuple) else layer
        values[name] = (
            layer.sdnq_dequantizer(layer.weight, layer.scale, zero_point=layer.zero_point).detach()
            if hasattr(layer, "sdnq_dequantizer")
            else layer.weight.detach()
        )
        plans[name] = {"quantization_config": json.loads(json.dumps(config.to_dict(), default=str))}
    _numbers("sdnq", plans, values)


def bitsandbytes() -> None:
    """bitsandbytes 0.50."""
    import bitsandbytes.functional as bnb

    integers, scales, _ = bnb.int8_vectorwise_quant(_weight())
    plans = {
        "int8": {"load_in_8bit": True, "llm_int8_threshold": 0.0, "quant_method": "bitsandbytes"}
    }
    _numbers("bitsandbytes", plans, {"int8": integers.float() * scales[:, None] / 127})


MAKERS: dict[str, Callable[[], None]] = {
    "modelopt": modelopt,
    "modelopt-values": modelopt_values,
    "torchao": torchao,
    "quanto": quanto,
    "sdnq": sdnq,
    "bitsandbytes": bitsandbytes,
}

if __name__ == "__main__":
    for tool in sys.argv[1:] or MAKERS:
        MAKERS[tool]()
