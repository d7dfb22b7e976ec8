"""`BitsAndBytesConfig` of diffusers and transformers: linear layers in 8 bits; those of 4 bits have no scheme here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdx.exporter.plan.importers.draft import Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.schemes import by_channel, integers

__all__ = ["BitsAndBytes"]

_KEYS = (
    "load_in_8bit", "load_in_4bit", "_load_in_8bit", "_load_in_4bit", "quant_method", "llm_int8_threshold", "llm_int8_skip_modules",
    "bnb_4bit_quant_type", "bnb_4bit_use_double_quant",
)  # fmt: skip
_HARMLESS = (
    "llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage",
)  # fmt: skip


class BitsAndBytes(PlanImporter):
    """Reads `{"load_in_8bit": true, ...}`."""

    tool = "bitsandbytes"
    title = "bitsandbytes"
    reads = "JSON of a `BitsAndBytesConfig`, or `config.json` of a model that diffusers saved"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        inner = data.get("quantization_config", data)
        return isinstance(inner, dict) and (
            inner.get("quant_method") == "bitsandbytes"
            or any(key.removeprefix("_") in {"load_in_8bit", "load_in_4bit"} for key in inner)
        )

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        config = root.find("quantization_config") or root
        draft.refuse_others(config, _KEYS, harmless=_HARMLESS)
        if _is_on(config, "load_in_4bit"):
            kind = config.find("bnb_4bit_quant_type")
            name = "fp4" if kind is None else kind.one_of(("fp4", "nf4"))
            draft.refuse(
                config, f"{name}: sixteen fixed values times a scale of each 64 elements; palettes have tables of their own, without such scales, and `int4` in blocks of 64 has other values"
            )  # fmt: skip
            return
        if not _is_on(config, "load_in_8bit"):
            config.fail("`load_in_8bit` or `load_in_4bit` that is true")
        _eight_bits(config, draft)


def _eight_bits(config: Foreign, draft: Draft) -> None:
    """LLM.int8() (https://arxiv.org/abs/2208.07339): 8-bit weights, inputs by token, outlying channels in sixteen bits."""
    draft.rule(
        "int8",
        op=("linear",),
        weights=by_channel(integers(8, symmetric=True)),
        inputs={"dtype": "int8", "granularity": "token", "mode": "dynamic"},
    )
    threshold = config.find("llm_int8_threshold")
    limit = 6.0 if threshold is None else threshold.number()
    words = "linear layers with weights in 8 bits, a scale for each channel, and inputs by token"
    if limit:
        draft.approximate(threshold or config, f"{words}; input channels with magnitudes above {limit:g} are computed in sixteen bits there, here in eight")  # fmt: skip
    else:
        draft.exact(threshold or config, words)
    kept = config.find("llm_int8_skip_modules")
    for name in () if kept is None else kept.texts():
        draft.rule("off", op=("linear",), modules=(name, f"*.{name}", f"*{name}.*"), keep="float")
    if kept is not None:
        draft.exact(kept, "these stay float")


def _is_on(config: Foreign, key: str) -> bool:
    found = config.find(key) or config.find(f"_{key}")
    return found is not None and found.boolean()
