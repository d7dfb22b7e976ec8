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


MAKERS: dict[str, Callable[[], None]] = {"modelopt": modelopt}

if __name__ == "__main__":
    for tool in sys.argv[1:] or MAKERS:
        MAKERS[tool]()
