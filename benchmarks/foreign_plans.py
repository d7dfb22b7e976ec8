"""Plans of other tools, in the formats that each is known for: what the table of importers is made of."""

from __future__ import annotations

from typing import Any

__all__ = ["PLANS", "RESULTS"]


def _modelopt(weights: dict[str, Any], inputs: dict[str, Any] | None = None, algorithm: Any = "max") -> dict[str, Any]:  # fmt: skip
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    entries.append({"quantizer_name": "*weight_quantizer", "parent_class": "nn.Linear", "cfg": weights})  # fmt: skip
    if inputs is not None:
        entries.append({"quantizer_name": "*input_quantizer", "parent_class": "nn.Linear", "cfg": inputs})  # fmt: skip
    return {"quant_cfg": entries, "algorithm": algorithm}


def _torchao(kind: str, **data: Any) -> dict[str, Any]:
    return {"_type": kind, "_version": 2, "_data": data}


def _dtype(name: str) -> dict[str, Any]:
    return {"_type": "torch.dtype", "_data": name}


def _blocks(bits: list[int], size: int, scale: list[int]) -> dict[str, Any]:
    return {"num_bits": bits, "block_sizes": {"-1": size, "type": "dynamic", "scale_bits": scale}}


_INT8 = {"num_bits": 8, "axis": 0}
_TENSOR = {"num_bits": 8, "axis": None}
_FP8 = {"num_bits": [4, 3], "axis": None}
_NVFP4 = _blocks([2, 1], 16, [4, 3])
_MXFP8 = _blocks([4, 3], 32, [8, 0])
_GROUP = {"_type": "PerGroup", "_version": 1, "_data": {"group_size": 32}}
_LAYER = "block.linear"

PLANS: dict[str, dict[str, Any]] = {
    "modelopt": {
        "int8": _modelopt(_INT8, _TENSOR),
        "int8, smoothquant": _modelopt(_INT8, _TENSOR, {"method": "smoothquant", "alpha": 0.5}),
        "fp8": _modelopt(_FP8, _FP8),
        "nvfp4": _modelopt(_NVFP4, _NVFP4),
        "mxfp8": _modelopt(_MXFP8, _MXFP8),
        "int4 in blocks": _modelopt({"num_bits": 4, "block_sizes": {"-1": 128}}),
        "int4, awq": _modelopt({"num_bits": 4, "block_sizes": {"-1": 128}}, None, "awq_lite"),
    },
    "nncf": {
        "quantize": {"preset": "mixed", "ignored_scope": {"types": ["Convolution"]}},
        "int8_asym": {"mode": "int8_asym", "ignored_scope": {}},
        "int4_sym": {"mode": "int4_sym", "group_size": 128, "ignored_scope": {}},
        "nf4": {"mode": "nf4", "group_size": 128, "ignored_scope": {}},
    },
    "apple": {
        f"{bits} bits": {"model_version": "m", "recipes": {"r": {_LAYER: bits}}}
        for bits in (1, 2, 4, 6, 8)
    },
    "mixdq": {f"{bits} bits": {f"model.{_LAYER}": bits} for bits in (2, 4, 8)},
    "mixdq-act": {
        "8 bits": {f"model.{_LAYER}": 8},
        "4 bits": {f"model.{_LAYER}": 4},
        "4 and 6 bits by steps": {"3-2": {_LAYER: 4}, "1-0": {_LAYER: 6}},
    },
    "torchao": {
        "int8": _torchao("Int8WeightOnlyConfig"),
        "int8, dynamic": _torchao("Int8DynamicActivationInt8WeightConfig"),
        "float8": _torchao("Float8WeightOnlyConfig"),
        "intx 4, symmetric": _torchao("IntxWeightOnlyConfig", weight_dtype=_dtype("int4"), granularity=_GROUP),
        "intx 4, zero points": _torchao("IntxWeightOnlyConfig", weight_dtype=_dtype("int4"), granularity=_GROUP, mapping_type={"_type": "MappingType", "_data": "ASYMMETRIC"}),
        "int4 (tinygemm)": _torchao("Int4WeightOnlyConfig", group_size=128),
        "float8, dynamic": _torchao("Float8DynamicActivationFloat8WeightConfig"),
    },
    "quanto": {
        "qint8": {_LAYER: {"weights": "qint8", "activations": "none"}},
        "qint8, activations": {_LAYER: {"weights": "qint8", "activations": "qint8"}},
        "qfloat8": {_LAYER: {"weights": "qfloat8", "activations": "none"}},
        "qint4": {_LAYER: {"weights": "qint4", "activations": "none"}},
    },
    "bitsandbytes": {
        "int8": {"load_in_8bit": True},
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    },
    "deepcompressor": {
        "w8a8": {"quant": {"wgts": {"dtype": "sint8", "group_shapes": [[1, -1, -1, -1]]}, "ipts": {"dtype": "sint8", "group_shapes": [[1, -1]]}}},
        "w4 in groups": {"quant": {"wgts": {"dtype": "sint4", "group_shapes": [[1, 64, 1, 1, 1]]}}},
        "svdquant int4": {"quant": {"wgts": {"dtype": "sint4", "group_shapes": [[1, 64, 1, 1, 1]], "low_rank": {"rank": 32}}}},
    },
    "sdnq": {
        "int8": {"quant_method": "sdnq", "weights_dtype": "int8", "group_size": -1},
        "uint4": {"quant_method": "sdnq", "weights_dtype": "uint4", "group_size": 64},
        "float8": {"quant_method": "sdnq", "weights_dtype": "float8_e4m3fn", "group_size": -1},
        "svd": {"quant_method": "sdnq", "weights_dtype": "int8", "group_size": -1, "use_svd": True},
    },
    "comfyui": {
        kind: {"format_version": "1.0", "layers": {_LAYER: {"format": kind}}}
        for kind in ("float8_e4m3fn", "int8_tensorwise", "nvfp4", "mxfp8", "int8_blockwise")
    },
}  # fmt: skip
"""By tool and format; the layer is called `block.linear`."""

RESULTS: dict[str, dict[str, dict[str, Any] | str]] = {
    "torchao": {
        "Int8Tensor": {"dtype": "int8", "granularity": "channel"},
        "IntxUnpackedToInt8Tensor, 4 bits": {"dtype": "int4", "granularity": "block", "block": 32},
        "the same with zero points": {"dtype": "int4", "granularity": "block", "block": 32, "symmetric": False},
        "Float8Tensor": {"dtype": "float8_e4m3fn", "granularity": "channel"},
        "Int4Tensor": "zero points are floats",
    },
    "quanto": {
        "qint8": {"dtype": "int8", "granularity": "channel"},
        "qfloat8": {"dtype": "float8_e4m3fn", "granularity": "channel"},
        "qint4, qint2": "zero points are floats",
    },
    "bitsandbytes": {
        "int8": {"dtype": "int8", "granularity": "channel"},
        "nf4, fp4": "tables with a scale of each block",
    },
    "scaled": {
        "float8 with scales": {"dtype": "float8_e4m3fn", "granularity": "tensor"},
        "int8 with scales": {"dtype": "int8", "granularity": "channel"},
        "NVFP4 (ModelOpt)": {"dtype": "nvfp4", "granularity": "block", "block": 16},
        "`pre_quant_scale` (ModelOpt)": "inputs smoothed by given factors",
    },
    "gguf": {
        "Q8_0, Q5_0": {"dtype": "int8", "granularity": "block", "block": 32},
        "Q6_K": {"dtype": "int8", "granularity": "block", "block": 16},
        "Q4_0": {"dtype": "int4", "granularity": "block", "block": 32, "symmetric": False},
        "Q3_K": {"dtype": "int4", "granularity": "block", "block": 16},
        "Q4_1, Q5_1, Q2_K, Q4_K, Q5_K": "blocks have minima",
    },
    "aimet": {
        "8 bits, symmetric": {"dtype": "int8", "granularity": "channel"},
        "8 bits, offsets": {"dtype": "int8", "granularity": "channel", "symmetric": False},
        "4 bits in blocks": {"dtype": "int4", "granularity": "block", "block": 32},
        "16 bits; of activations": "no integers of that width; names of another graph",
    },
    "Q-Diffusion, DeepCompressor": {"`.pt` files": "pickles"},
}  # fmt: skip
"""By tool and what is stored: the scheme that it is read as, or why it is not."""
