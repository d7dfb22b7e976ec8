"""Configurations of DeepCompressor for diffusion models: types of weights and inputs, and what is skipped, by role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.draft import CONVOLUTIONS, WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.schemes import (
    NoScheme,
    Scheme,
    by_block,
    by_channel,
    by_tensor,
    integers,
    scheme_words,
)

__all__ = ["DeepCompressor"]

_INTEGERS: Final = {"sint8": 8, "sint4": 4, "sint6": 6, "sint3": 3, "sint2": 2}
_ROLES: Final[dict[str, dict[str, Any]]] = {
    "embed": {"role": ["first", "time_embed"]},
    "resblock": {"role": "conv"},
    "resblock_shortcut": {"role": "shortcut"},
    "resblock_time_proj": {"role": "time_embed"},
    "transformer_proj_in": {"name": ["proj_in", "*.proj_in"]},
    "transformer_proj_out": {"name": ["*.attentions.*.proj_out"]},
    "transformer_norm": {"name": ["*.norm*.linear", "norm_out.linear"]},
    "transformer_add_norm": {"name": ["*.norm*_context.linear"]},
    "down_sample": {"name": ["*.downsamplers.*"]},
    "up_sample": {"name": ["*.upsamplers.*"]},
    "attn_q": {"role": "attn.q"},
    "attn_k": {"role": "attn.k"},
    "attn_v": {"role": "attn.v"},
    "attn_out_proj": {"role": "attn.out"},
    "ffn_up_proj": {"role": "ff.in"},
    "ffn_down_proj": {"role": "ff.out"},
}
"""Its keys of modules, as selections."""
_METHODS: Final = {
    "low_rank": "a low-rank branch beside the weights",
    "kernel_gptq": "rounding by second moments of inputs",
    "calib_range": "a search of ranges",
}
_SMOOTH_KEYS: Final = ("enabled", "enable_proj", "enable_attn", "alpha", "strategy")
_PART_KEYS: Final = (
    "dtype", "zero_point", "group_shapes", "scale_dtypes", "static", "skips", "low_rank", "kernel_gptq", "calib_range", "allow_unsigned",
)  # fmt: skip
_PART_HARMLESS: Final = ("intermediate_dtypes", "intermediate_levels", "needs_dequant_saturation", "enable_low_rank", "enable_kernel_gptq", "enable_calib_range")  # fmt: skip
_OTHER_SECTIONS: Final = (
    "pipeline", "eval", "calib", "text", "model", "output", "cache", "skip_eval", "skip_gen", "save_model", "load_from", "copy_on_save", "seed", "job",
)  # fmt: skip
"""What is measured, cached and saved, and how: nothing of it changes what is quantized here."""
_QUANT_KEYS: Final = ("wgts", "ipts", "opts", "extra_wgts", "unsigned_ipts", "smooth", "rotation", "calib")  # fmt: skip


class DeepCompressor(PlanImporter):
    """Reads `{"quant": {"wgts": {...}, "ipts": {...}}}`."""

    tool = "deepcompressor"
    title = "DeepCompressor"
    reads = "YAML of a diffusion configuration (`quant` with `wgts` in it)"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        quant = data.get("quant")
        return isinstance(quant, dict) and ("wgts" in quant or "ipts" in quant)

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        quant = root.need("quant")
        draft.refuse_others(root, ("quant",), harmless=_OTHER_SECTIONS)
        draft.refuse_others(quant, _QUANT_KEYS, harmless=("develop_dtype", "enable_cache"))
        for key, part in (("wgts", "weights"), ("ipts", "inputs")):
            place = quant.find(key)
            if place is not None:
                _part(place, part, draft)
        opts = quant.find("opts")
        if opts is not None and opts.find("dtype") is not None:
            draft.refuse(opts, "results that are quantized; rules quantize what an operation reads")
        for key, words in (("extra_wgts", "a second type of weights for some modules"), ("rotation", "a rotation")):  # fmt: skip
            found = quant.find(key)
            if found is not None and not _is_off(found):
                draft.refuse(found, words)
        smooth = quant.find("smooth")
        if smooth is not None and not _is_off(smooth):
            _smooth(smooth, draft)


def _is_off(place: Foreign) -> bool:
    """Whether a part of the configuration is there and says that it does nothing."""
    if not isinstance(place.value, dict):
        return place.is_any(False, None)
    for key in ("enabled", "dtype"):
        if key in place.value and (place.value[key] is None or place.value[key] is False):
            return True
    return not any(value not in (None, False, {}, []) for value in place.value.values())


def _part(place: Foreign, part: str, draft: Draft) -> None:
    draft.refuse_others(place, _PART_KEYS, harmless=_PART_HARMLESS)
    kind = place.find("dtype")
    if kind is None:
        draft.exact(place, f"{part} stay float")
        return
    try:
        scheme = _weights(place, kind.text()) if part == "weights" else _inputs(place, kind.text())
    except NoScheme as bad:
        draft.refuse(place, str(bad))
        return
    # Blocks divide the channels of products; convolutions have none here.
    operations = ("linear",) if scheme.get("granularity") in {"block", "token"} else WEIGHTED
    draft.rule(part, op=operations, **{part: scheme})
    left = "" if operations == WEIGHTED else "; convolutions stay float, whose channels DeepCompressor groups too"  # fmt: skip
    draft.approximate(place, f"{part} {scheme_words(scheme)}{left}; which modules its keys mean is told here by roles")  # fmt: skip
    skips = place.find("skips")
    for one in () if skips is None else skips.items():
        _skip(one, part, draft)
    for key, words in _METHODS.items():
        found = place.find(key)
        if found is not None and not _is_off(found):
            draft.refuse(found, words)


def _skip(one: Foreign, part: str, draft: Draft) -> None:
    select = _ROLES.get(one.text())
    if select is None:
        draft.refuse(one, f"{quoted(one.text())} is none of its keys that roles or names stand for")
        return
    floats = {"weights": {"dtype": "float"}, "inputs": {"dtype": "float32"}}
    operations = CONVOLUTIONS if one.text() == "resblock" else WEIGHTED
    draft.rule("skip", op=operations, select=select, **{part: floats[part]})
    draft.approximate(one, f"{part} stay float where {next(iter(select))} is {quoted(next(iter(select.values())))}")  # fmt: skip


def _weights(place: Foreign, kind: str) -> Scheme:
    groups = _groups(place)
    if kind in {"sfp4_e2m1_all", "sfp4_e2m1_all_"} and groups == 16:
        return {"dtype": "nvfp4", "granularity": "block", "block": 16}
    if kind not in _INTEGERS:
        raise NoScheme(f"weights {quoted(kind)} with groups of {groups}: no scheme is like it")
    zero = place.find("zero_point")
    scheme = integers(_INTEGERS[kind], symmetric=zero is None)
    if groups == -1:
        return by_channel(scheme)
    return by_tensor(scheme) if groups == 0 else by_block(scheme, groups)


def _inputs(place: Foreign, kind: str) -> Scheme:
    static = place.find("static")
    if static is not None and static.boolean():
        if _INTEGERS.get(kind) not in {8, 6, 4, 3, 2}:
            raise NoScheme(f"inputs {quoted(kind)}")
        return {"dtype": f"int{_INTEGERS[kind]}", "symmetric": place.find("zero_point") is None}
    groups = _groups(place)
    if kind == "sint8" and groups == -1:
        return {"dtype": "int8", "granularity": "token", "mode": "dynamic"}
    if kind.startswith("sfp4_e2m1") and groups == 16:
        return {"dtype": "nvfp4", "granularity": "block", "mode": "dynamic"}
    raise NoScheme(f"dynamic inputs {quoted(kind)} in groups of {groups}; there are int8 by token, and nvfp4")  # fmt: skip


def _groups(place: Foreign) -> int:
    """Channels of the innermost group; -1 for all of a row, 0 for the whole tensor."""
    shapes = place.find("group_shapes")
    if shapes is None:
        return -1
    items = list(shapes.items())
    if not items:
        shapes.fail("a list of shapes")
    last = [item.value for item in items[-1].items()]
    if len(last) < 2 or not all(isinstance(one, int) for one in last[:2]):
        items[-1].fail("whole numbers, such as `[1, 64, 1, 1, 1]`")
    if last[0] == -1:
        return 0
    return int(last[1])


def _smooth(place: Foreign, draft: Draft) -> None:
    draft.refuse_others(place, (*_SMOOTH_KEYS, "proj", "attn"))
    attention = place.find("attn")
    if attention is not None and not _is_off(attention):
        draft.refuse(attention, "smoothing of the keys of attention")
    projection = place.find("proj") or place
    draft.refuse_others(projection, (*_SMOOTH_KEYS, "proj", "attn"))
    alpha = projection.find("alpha")
    strategy = projection.find("strategy")
    if alpha is None or (strategy is not None and not strategy.is_any("Manual", "manual")):
        draft.refuse(place, "smoothing by a search of its exponents; a plan has one for all")
        return
    if not 0 <= alpha.number() <= 1:
        draft.refuse(alpha, "an exponent outside of 0 to 1")
        return
    draft.options["smoothing"] = {"alpha": alpha.number()}
    draft.approximate(place, f"smoothing with alpha {alpha.number():g} of all quantized layers")
