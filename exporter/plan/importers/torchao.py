"""Configurations of torchao, as it writes them to JSON, and `quantization_config` of diffusers around them.

Only linear layers are quantized, as `quantize_` does it. torchao's symmetric scale is the largest magnitude over half the number of steps (127.5 for
eight bits), which `range_factor` says; below eight bits the values are then the same, but where the largest lies between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.draft import Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.patterns import globs_of_regex, names_of_regex
from qdx.exporter.plan.importers.schemes import (
    NoScheme,
    Scheme,
    by_block,
    by_channel,
    by_tensor,
    integers,
    scheme_words,
)

__all__ = ["TorchAo"]

_PARTS: Final = ("_type", "_version", "_data")
_TOKENS: Final = {"dtype": "int8", "granularity": "token", "mode": "dynamic"}
_HARMLESS: Final = (
    "set_inductor_config", "int4_packing_format", "int4_tile_packed_ntile", "intx_packing_format", "packing_format", "mm_config", "kernel_preference",
    "alg_id", "weight_only_decode", "layout",
)  # fmt: skip
"""Where numbers lie and which kernels take them."""
_BITS: Final = {f"int{bits}": bits for bits in (2, 3, 4, 5, 6, 8)}

Read = tuple[Scheme, Scheme | None, str]
"""Weights, inputs, and what differs."""


class TorchAo(PlanImporter):
    """Reads `{"_type": "Int8WeightOnlyConfig", ...}`."""

    tool = "torchao"
    title = "torchao"
    reads = "JSON of a configuration (`config_to_dict`), or `config.json` of a model that diffusers saved"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        inner = data.get("quantization_config", data)
        if not isinstance(inner, dict):
            return False
        return ("_type" in inner and "_data" in inner) or inner.get("quant_method") == "torchao"

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        config = root.find("quantization_config") or root
        left: tuple[str, ...] = ()
        if config.find("_type") is None:
            draft.refuse_others(config, ("quant_type", "modules_to_not_convert", "quant_method"))
            kept = config.find("modules_to_not_convert")
            left = () if kept is None else kept.texts()
            config = config.need("quant_type").need("default")
        draft.refuse_others(config, _PARTS)
        if config.need("_type").is_any("FqnToConfig", "ModuleFqnToConfig"):
            _by_name(config.need("_data"), draft)
        else:
            _rule(config, draft, None)
        for name in left:
            # diffusers compares with names of parameters: `NAME.` anywhere in them.
            draft.rule("off", op=("linear",), modules=(f"*{name}", f"*{name}.*"), keep="float")
        if left:
            draft.exact(config, f"{len(left)} names stay float")


def _by_name(data: Foreign, draft: Draft) -> None:
    """One configuration for each name or expression: names come before expressions, and of these the first that matches."""
    table = data.find("fqn_to_config") or data.need("module_fqn_to_config")
    draft.refuse_others(data, ("fqn_to_config", "module_fqn_to_config", "version"))
    pairs = list(_members(table))
    expressions = [pair for pair in pairs if pair[0].startswith("re:")]
    names = [pair for pair in pairs if not pair[0].startswith("re:") and pair[0] != "_default"]
    default = [pair for pair in pairs if pair[0] == "_default"]
    for _, config in default:
        _rule(config, draft, None)
    for name, config in reversed(expressions):
        globs = draft.globs(
            config, name[3:], partial(globs_of_regex, how="fullmatch"), partial(names_of_regex, how="fullmatch"),
        )  # fmt: skip
        if globs:
            _rule(config, draft, globs)
    for name, config in names:
        _rule(config, draft, (name.removesuffix(".weight"),))


def _members(table: Foreign) -> list[tuple[str, Foreign]]:
    return [
        (name, Foreign(value, table.source, (*table.path, name)))
        for name, value in (
            table.value.items() if isinstance(table.value, dict) else table.members()
        )
    ]


def _rule(config: Foreign, draft: Draft, modules: tuple[str, ...] | None) -> None:
    if config.value is None:
        draft.rule("off", op=("linear",), modules=modules, keep="float")
        draft.exact(config, "stays float")
        return
    draft.refuse_others(config, _PARTS)
    kind = config.need("_type").text()
    reader = _READERS.get(kind)
    if reader is None:
        draft.refuse(config, f"{quoted(kind)} is not read here")
        return
    try:
        weights, inputs, note = reader(config.need("_data"), draft)
    except NoScheme as bad:
        draft.refuse(config, f"{kind}: {bad}")
        return
    draft.rule("weights", op=("linear",), modules=modules, weights=weights, inputs=inputs)
    words = f"weights {scheme_words(weights)}"
    if inputs is not None:
        words += f", inputs {scheme_words(inputs)}"
    draft.noted(config, words, note)


def _halves(bits: int) -> tuple[Scheme, str]:
    """Symmetric integers whose scale is the magnitude over half of all steps."""
    top = (1 << bits - 1) - 1
    scheme = {**integers(bits, symmetric=True), "range_factor": top / (top + 0.5)}
    if bits < 8:
        return (
            scheme,
            "the largest value of each scale lies halfway between two integers, where either may be taken",
        )
    return scheme, "its least integer is -128, here -127, which values of largest magnitude take"


def _int8_weights(data: Foreign, draft: Draft) -> Read:
    draft.refuse_others(data, ("group_size", "granularity", "version"), harmless=_HARMLESS)
    scheme, note = _halves(8)
    size = data.find("group_size")
    if size is not None:
        return by_block(scheme, size.integer(1)), None, note
    return _shared(data.find("granularity"), scheme), None, note


def _int8_both(data: Foreign, draft: Draft) -> Read:
    draft.refuse_others(
        data, ("granularity", "act_mapping_type", "reduce_range", "version"), harmless=_HARMLESS
    )
    if _name(data.find("act_mapping_type"), "SYMMETRIC") != "SYMMETRIC":
        raise NoScheme("dynamic inputs with zero points")
    reduce = data.find("reduce_range")
    if reduce is not None and reduce.boolean():
        raise NoScheme("inputs in seven bits")
    scheme, note = _halves(8)
    granularity = data.find("granularity")
    inputs = granularity
    if granularity is not None and isinstance(granularity.value, list):
        both = list(granularity.items())
        if len(both) != 2:
            granularity.fail("that of inputs and that of weights")
        inputs, granularity = both
    if _name(inputs, "PerRow", key="_type") not in {"PerRow", "PerToken"}:
        raise NoScheme("dynamic inputs with one scale of the tensor")
    return _shared(granularity, scheme), dict(_TOKENS), f"{note}; so the inputs"


def _float8_weights(data: Foreign, draft: Draft) -> Read:
    draft.refuse_others(data, ("weight_dtype", "granularity", "version"), harmless=_HARMLESS)
    if _name(data.find("weight_dtype"), "float8_e4m3fn") != "float8_e4m3fn":
        raise NoScheme("floats of 5 bits of exponent")
    return _shared(data.find("granularity"), {"dtype": "float8_e4m3fn"}), None, ""


def _float8_both(data: Foreign, draft: Draft) -> Read:
    del data, draft
    raise NoScheme("dynamic inputs in 8-bit floats; those of a plan have a scale from calibration")


def _int4_weights(data: Foreign, draft: Draft) -> Read:
    draft.refuse_others(data, ("group_size", "int4_choose_qparams_algorithm", "version"), harmless=_HARMLESS)  # fmt: skip
    size = data.find("group_size")
    scheme = by_block(integers(4, symmetric=False), 128 if size is None else size.integer(1))
    return scheme, None, "zero points are whole numbers here, and floats in tinygemm's"


def _intx_weights(data: Foreign, draft: Draft) -> Read:
    draft.refuse_others(
        data, ("weight_dtype", "granularity", "mapping_type", "scale_dtype", "intx_choose_qparams_algorithm", "version"), harmless=_HARMLESS,
    )  # fmt: skip
    scheme, note = _intx(data, data.find("weight_dtype"), data.find("mapping_type"))
    return _shared(data.find("granularity"), scheme), None, note


def _intx_both(data: Foreign, draft: Draft) -> Read:
    draft.refuse_others(
        data, ("weight_dtype", "weight_granularity", "weight_mapping_type", "weight_scale_dtype", "act_mapping_type", "intx_choose_qparams_algorithm", "version"), harmless=_HARMLESS,
    )  # fmt: skip
    if _name(data.find("act_mapping_type"), "ASYMMETRIC") != "SYMMETRIC":
        raise NoScheme("dynamic inputs with zero points")
    scheme, note = _intx(data, data.find("weight_dtype"), data.find("weight_mapping_type"))
    weights = _shared(data.find("weight_granularity"), scheme)
    return weights, dict(_TOKENS), "; ".join(filter(None, [note, "the scale of inputs likewise"]))


def _intx(data: Foreign, dtype: Foreign | None, mapping: Foreign | None) -> tuple[Scheme, str]:
    bits = _BITS.get(_name(dtype, "int8"))
    if bits is None:
        raise NoScheme(f"weights {quoted(_name(dtype, ''))}")
    if _name(data.find("intx_choose_qparams_algorithm"), "AFFINE") != "AFFINE":
        raise NoScheme("a search of scales")
    kind = _name(mapping, "SYMMETRIC")
    if kind == "SYMMETRIC":
        return _halves(bits)
    if kind == "ASYMMETRIC":
        return integers(bits, symmetric=False), ""
    raise NoScheme(f"mapping {quoted(kind)}: scales by the sign of the largest magnitude")


def _shared(granularity: Foreign | None, scheme: Scheme) -> Scheme:
    """What shares a scale."""
    kind = _name(granularity, "PerRow", key="_type")
    data = None if granularity is None else granularity.find("_data")
    if kind in {"PerRow", "PerAxis"}:
        for name, other in () if data is None else data.members():
            if name not in {"dim", "axis"} or not other.is_any(-1, 0):
                other.fail("the axis of rows")
        return by_channel(scheme)
    if kind == "PerTensor":
        return by_tensor(scheme)
    if kind == "PerGroup" and data is not None:
        for _, other in data.others(("group_size",)):
            other.fail("nothing beside `group_size`")
        return by_block(scheme, data.need("group_size").integer(1))
    raise NoScheme(f"granularity {quoted(kind)}")


def _name(value: Foreign | None, default: str, *, key: str = "_data") -> str:
    """The name of an enumeration's member, or the type of a value."""
    if value is None:
        return default
    if isinstance(value.value, str):
        return value.text()
    for _, other in value.others(_PARTS):
        other.fail("a type, a version and data alone")
    return value.need(key).text()


_READERS: Final[dict[str, Callable[[Foreign, Draft], Read]]] = {
    "Int8WeightOnlyConfig": _int8_weights,
    "Int8DynamicActivationInt8WeightConfig": _int8_both,
    "Float8WeightOnlyConfig": _float8_weights,
    "Float8DynamicActivationFloat8WeightConfig": _float8_both,
    "Int4WeightOnlyConfig": _int4_weights,
    "IntxWeightOnlyConfig": _intx_weights,
    "Int8DynamicActivationIntxWeightConfig": _intx_both,
}
