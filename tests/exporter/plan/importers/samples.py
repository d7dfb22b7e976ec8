"""A plan of each tool, with every part that its importer reads."""

from __future__ import annotations

__all__ = ["SAMPLES"]


def _torchao(kind, version=2, **data):
    return {"_type": kind, "_version": version, "_data": data}


_GROUP = _torchao("PerGroup", 1, group_size=32)
SAMPLES = {
    "modelopt": {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
            {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8, "axis": None}},
            {"quantizer_name": "*[qk]_bmm_quantizer", "cfg": {"num_bits": [4, 3]}},
            {"quantizer_name": "*proj_out*", "parent_class": "nn.Linear", "enable": False},
        ],
        "algorithm": {"method": "smoothquant", "alpha": 0.5},
    },
    "nncf": {
        "preset": "mixed",
        "fast_bias_correction": True,
        "advanced_parameters": {"smooth_quant_alphas": {"matmul": 0.5}},
        "ignored_scope": {
            "names": ["__module.conv_in/aten::_convolution/Convolution"],
            "patterns": [".*proj_out$"],
            "types": ["Convolution"],
            "subgraphs": [],
        },
    },
    "apple": {
        "model_version": "m",
        "recipes": {"r": {"conv_in": 8, "mid_block.attentions.0.proj_in": 4, "conv_out": 16}},
    },
    "mixdq": {"model.conv_in": 8, "model.mid_block.attentions.0.proj_in": 4},
    "mixdq-act": {"4-2": {"conv_in": 8, "conv_out": 4}, "1-0": {"conv_in": 6, "conv_out": 4}},
    "torchao": _torchao(
        "FqnToConfig",
        1,
        fqn_to_config={
            "re:.*to_q": _torchao(
                "IntxWeightOnlyConfig",
                weight_dtype={"_type": "torch.dtype", "_data": "int4"},
                granularity=_GROUP,
            ),
            "proj_out": None,
            "_default": _torchao(
                "Int8DynamicActivationInt8WeightConfig", granularity=_torchao("PerRow", 1, dim=-1)
            ),
        },
    ),
    "quanto": {
        "a.to_q": {"weights": "qint8", "activations": "none"},
        "a.to_k": {"weights": "qint4", "activations": "qint8"},
    },
    "bitsandbytes": {
        "load_in_8bit": True,
        "llm_int8_threshold": 6.0,
        "llm_int8_skip_modules": ["proj_out"],
    },
    "deepcompressor": {
        "quant": {
            "wgts": {
                "dtype": "sint4",
                "zero_point": None,
                "group_shapes": [[1, 64, 1, 1, 1]],
                "skips": ["embed", "resblock_shortcut"],
            },
            "ipts": {"dtype": "sint8", "static": False, "group_shapes": [[1, -1, 1, 1, 1]]},
            "smooth": {"enabled": True, "proj": {"alpha": 0.5, "strategy": "Manual"}},
        }
    },
    "sdnq": {
        "quant_method": "sdnq",
        "weights_dtype": "int8",
        "group_size": -1,
        "modules_to_not_convert": ["proj_out", ".time_embed"],
        "modules_dtype_dict": {"int6": ["to_q"]},
    },
    "comfyui": {
        "format_version": "1.0",
        "layers": {
            "double_blocks.0.img_attn.qkv": {"format": "float8_e4m3fn"},
            "input_blocks.1.0.in_layers.2": {"format": "int8_tensorwise"},
        },
    },
}
