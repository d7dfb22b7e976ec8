"""Arguments of NNCF: what is ignored, and how the rest is quantized or compressed; also those that optimum-intel stores.

NNCF has no file of its own. A JSON object with the names of the arguments of `nncf.quantize` or `nncf.compress_weights` is read, an
`IgnoredScope` alone, and `openvino_config.json`. Names of nodes are those of OpenVINO's conversion of PyTorch, of torch's ONNX export or of NNCF's PyTorch
graph, which begin with the module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.draft import CONVOLUTIONS, WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.patterns import (
    NoGlobError,
    globs_of_regex,
    names_of_regex,
)
from qdx.exporter.plan.importers.schemes import NoScheme, by_block, by_channel, integers

__all__ = ["Nncf", "module_of_node"]

_SCOPE_KEYS: Final = ("names", "patterns", "types", "subgraphs", "validate")
_QUANTIZE_KEYS: Final = (
    "preset", "target_device", "subset_size", "fast_bias_correction", "model_type", "ignored_scope", "advanced_parameters",
)  # fmt: skip
_COMPRESS_KEYS: Final = (
    "mode", "ratio", "group_size", "ignored_scope", "all_layers", "sensitivity_metric", "awq", "scale_estimation", "gptq", "lora_correction",
    "backup_mode", "compression_format", "advanced_parameters",
)  # fmt: skip
_OPTIMUM_KEYS: Final = (
    "bits", "sym", "group_size", "ratio", "all_layers", "quant_method", "dataset", "num_samples", "ignored_scope", "tokenizer", "processor",
    "trust_remote_code", "backup_precision", "sensitivity_metric", "scale_estimation", "gptq", "lora_correction", "dtype", "weight_format",
    "activation_format", "fast_bias_correction", "model_type", "overflow_fix", "smooth_quant_alpha", "statistics_path", "group_size_fallback",
)  # fmt: skip
_METHODS: Final = ("awq", "scale_estimation", "gptq", "lora_correction")
"""What changes weights or their scales before they are rounded."""
_TYPES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("Convolution", "Conv", "GroupConvolution"), ("conv1d", "conv2d", "conv3d")),
    **dict.fromkeys(("ConvolutionBackpropData", "ConvTranspose", "GroupConvolutionBackpropData"), tuple(one for one in CONVOLUTIONS if "transpose" in one)),
    **{one: (one,) for one in (*CONVOLUTIONS, "linear")},
    **dict.fromkeys(("MatMul", "Gemm", "matmul"), ("linear", "matmul", "qk", "pv")),
    **dict.fromkeys(("ScaledDotProductAttention", "scaled_dot_product_attention"), ("qk", "pv")),
    **dict.fromkeys(("Add", "add"), ("add",)),
    **dict.fromkeys(("Gather", "Embedding", "embedding"), ("embedding",)),
}  # fmt: skip
"""Types of nodes in OpenVINO, ONNX and PyTorch, as operations."""
_OPENVINO: Final = re.compile(r"__module\.([A-Za-z0-9_.]+)/aten::[A-Za-z0-9_]+/[A-Za-z]+(?:_\d+)?")
_ONNX: Final = re.compile(r"/?((?:[A-Za-z0-9_.]+/)+)[A-Z][A-Za-z]+(?:_\d+)?")
_TORCH: Final = re.compile(r"([A-Za-z0-9_./]+)/([a-z_]+[a-z0-9_]*)/(\d+)")


def module_of_node(name: str) -> str:
    """The name of the module that a node's name begins with.

    >>> module_of_node("__module.mid_block.attentions.0.proj_in/aten::linear/MatMul")
    'mid_block.attentions.0.proj_in'

    Raises:
        NoGlobError: The name begins with none.
    """
    found = _OPENVINO.fullmatch(name)
    if found is not None:
        return found[1]
    found = _TORCH.fullmatch(name)
    if found is not None:
        return found[1].replace("/", ".").strip(".")
    found = _ONNX.fullmatch(name)
    if found is not None:
        parts = found[1].strip("/").split("/")
        return _unfolded(parts)
    raise NoGlobError("names no module; nodes are known as `__module.a.b/aten::linear/MatMul` or `/a/b/MatMul`")  # fmt: skip


def _unfolded(parts: list[str]) -> str:
    """A module's name out of ONNX scopes, in which a list's item repeats the list: `/blocks.0/attn/to_q`."""
    return ".".join(parts)


class Nncf(PlanImporter):
    """Reads the arguments of NNCF, as JSON."""

    tool = "nncf"
    title = "NNCF"
    reads = "JSON of the arguments of `quantize` or `compress_weights`, an `IgnoredScope` alone, or `openvino_config.json` of optimum-intel"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        inner = data.get("quantization_config", data)
        if not isinstance(inner, dict):
            return False
        scope = "ignored_scope" in inner or ("patterns" in inner and "types" in inner)
        return scope or ("mode" in inner and "group_size" in inner)

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        config = root.find("quantization_config")
        if config is not None:
            draft.refuse_others(root, ("quantization_config", "dtype"), harmless=("input_info", "save_onnx_model", "optimum_version", "transformers_version"))  # fmt: skip
            _optimum(config, draft)
        elif any(key in root.value for key in ("names", "patterns", "types", "subgraphs")):
            draft.approximate(root, f"an ignored scope alone: the rest in 8 bits as `quantize` does it; {_PLACES}")  # fmt: skip
            _quantized(draft, symmetric=True)
            _ignored(root, draft)
            return
        elif "mode" in root.value:
            draft.refuse_others(root, _COMPRESS_KEYS, harmless=("validate",))
            _compress(root, draft)
            config = root
        else:
            draft.refuse_others(root, _QUANTIZE_KEYS)
            _quantize(root, draft)
            config = root
        scope = config.find("ignored_scope")
        if scope is not None:
            _ignored(scope, draft)


_PLACES: Final = "NNCF also quantizes inputs of sums and other operations, and leaves patterns float that it knows"


def _quantized(draft: Draft, *, symmetric: bool) -> None:
    draft.rule(
        "w8a8",
        op=WEIGHTED,
        weights=by_channel(integers(8, symmetric=True)),
        inputs=integers(8, symmetric=symmetric),
    )


def _quantize(root: Foreign, draft: Draft) -> None:
    """Arguments of `nncf.quantize`."""
    preset = root.find("preset")
    mixed = preset is not None and preset.one_of(("performance", "mixed", "PERFORMANCE", "MIXED")).lower() == "mixed"  # fmt: skip
    _quantized(draft, symmetric=not mixed)
    draft.approximate(
        preset or root,
        f"weights and inputs in 8 bits, inputs {'with' if mixed else 'without'} zero points; ranges of all values; {_PLACES}",
    )
    model_type = root.find("model_type")
    if model_type is not None:
        draft.approximate(model_type, "smoothing and the patterns of transformers are NNCF's")
    correction = root.find("fast_bias_correction")
    if correction is not None and correction.boolean():
        draft.options["bias_correction"] = True
        draft.approximate(correction, "biases are corrected by means, as in https://arxiv.org/abs/1906.04721")  # fmt: skip
    advanced = root.find("advanced_parameters")
    if advanced is not None:
        _advanced(advanced, draft)


def _advanced(place: Foreign, draft: Draft) -> None:
    for key, one in place.members():
        if one.value is None:
            continue
        if key == "smooth_quant_alphas":
            draft.refuse_others(one, ("matmul",), harmless=("convolution", "conv"))
            alpha = one.find("matmul")
            if alpha is not None and 0 <= alpha.number() <= 1:
                draft.options["smoothing"] = {"alpha": alpha.number()}
                draft.approximate(one, f"smoothing with alpha {alpha.number():g}, of convolutions too")  # fmt: skip
            continue
        draft.refuse(one, f"key {quoted(key)} is not read here")


def _compress(root: Foreign, draft: Draft) -> None:
    """Arguments of `nncf.compress_weights`."""
    mode = root.need("mode").text().lower()
    size = root.find("group_size")
    _weights(root.need("mode"), mode, None if size is None else size.value, draft)
    _share(root, draft)
    for key in _METHODS:
        found = root.find(key)
        if found is not None and found.value is not False:
            draft.refuse(found, f"{quoted(key)} changes weights or scales in ways that the plan does not say")  # fmt: skip
    advanced = root.find("advanced_parameters")
    if advanced is not None:
        draft.refuse(advanced, "parameters of NNCF's own methods")


def _share(root: Foreign, draft: Draft) -> None:
    ratio = root.find("ratio")
    if ratio is not None and ratio.number() != 1:
        draft.refuse(ratio, "which layers take 4 bits is chosen by NNCF's sensitivity; `qdx plan search` has budgets of its own")  # fmt: skip
    layers = root.find("all_layers")
    if layers is not None and layers.boolean():
        draft.approximate(layers, "embeddings, and the last layer, take 4 bits too where a rule selects them; here linear layers and convolutions do")  # fmt: skip


def _weights(place: Foreign, mode: str, group: Any, draft: Draft) -> None:
    """A rule for compressed weights."""
    kinds = {
        "int8_sym": (8, True),
        "int8_asym": (8, False),
        "int8": (8, False),
        "int4_sym": (4, True),
        "int4_asym": (4, False),
        "int3_sym": (3, True),
        "int2_sym": (2, True),
    }
    try:
        if mode == "nvfp4":
            scheme: dict[str, Any] = {"dtype": "nvfp4", "granularity": "block", "block": 16}
        elif mode == "mxfp8_e4m3":
            scheme = {"dtype": "mxfp8", "granularity": "block", "block": 32}
        elif mode in kinds:
            bits, symmetric = kinds[mode]
            size = (-1 if bits == 8 else 128) if group is None else group
            if not isinstance(size, int):
                place.fail("a whole number as `group_size`")
            scheme = integers(bits, symmetric=symmetric)
            scheme = by_channel(scheme) if size == -1 else by_block(scheme, size)
        else:
            raise NoScheme(f"mode {quoted(mode)}: weights of that type are not stored by any rule")
    except NoScheme as bad:
        draft.refuse(place, str(bad))
        return
    narrow = scheme["dtype"] != "int8"
    draft.rule("weights", op=("linear",) if narrow else WEIGHTED, weights=scheme)
    if narrow:
        draft.rule("ends", op=("linear",), select={"role": "last"}, weights=by_channel(integers(8, symmetric=False)))  # fmt: skip
        draft.rule("convolutions", op=CONVOLUTIONS, weights=by_channel(integers(8, symmetric=False)))  # fmt: skip
    asymmetric = " with the range's zero point moved to a whole number" if not scheme.get("symmetric", True) else ""  # fmt: skip
    draft.approximate(
        place,
        f"weights {mode}{asymmetric}: NNCF chooses scales so that the value of largest magnitude takes the wider end, and stores them in float16"
        + ("; convolutions and the last layer take 8 bits" if narrow else ""),
    )


def _optimum(config: Foreign, draft: Draft) -> None:
    """The configuration that optimum-intel stores beside OpenVINO's files."""
    draft.refuse_others(config, _OPTIMUM_KEYS)
    bits = config.find("bits")
    if bits is None:
        draft.refuse(config, "no `bits`: a configuration of several submodels is read one by one")
        return
    symmetric = config.find("sym")
    size = config.find("group_size")
    suffix = "sym" if symmetric is not None and symmetric.boolean() else "asym"
    _weights(bits, f"int{bits.integer(1)}_{suffix}", None if size is None else size.value, draft)
    _share(config, draft)
    method = config.find("quant_method")
    if method is not None and not method.is_any("default", "QuantizationMethod.DEFAULT"):
        draft.refuse(method, f"method {quoted(method.value)}")
    for key in _METHODS:
        found = config.find(key)
        if found is not None and found.value is not False:
            draft.refuse(found, f"{quoted(key)} changes weights or scales in ways that the plan does not say")  # fmt: skip


def _ignored(scope: Foreign, draft: Draft) -> None:
    """Rules that keep what NNCF ignores."""
    draft.refuse_others(scope, _SCOPE_KEYS)
    names = scope.find("names")
    if names is not None:
        modules = list(_modules(names, draft))
        if modules:
            draft.rule("ignored", op=WEIGHTED, modules=modules, keep="float")
            draft.exact(names, f"{len(modules)} modules stay float")
    patterns = scope.find("patterns")
    for one in () if patterns is None else patterns.items():
        _ignored_pattern(one, draft)
    types = scope.find("types")
    for one in () if types is None else types.items():
        _ignored_type(one, draft)
    subgraphs = scope.find("subgraphs")
    for one in () if subgraphs is None else subgraphs.items():
        draft.refuse(one, "nodes between others: their names are in NNCF's graph alone; list the modules by name")  # fmt: skip


def _modules(names: Foreign, draft: Draft) -> Iterator[str]:
    for one in names.items():
        found = draft.globs(one, one.text(), lambda name: (module_of_node(name),))
        yield from found or ()


def _ignored_pattern(one: Foreign, draft: Draft) -> None:
    """A pattern of nodes' names, whose beginning and end are the framework's."""
    pattern = one.text()
    text = pattern.replace("__module\\.", "").replace("__module.", "")
    if "/" in text.replace("\\/", "/"):
        draft.refuse(one, f"{quoted(pattern)} speaks of the nodes of a framework; say which part of a module's name it means")  # fmt: skip
        return
    globs = draft.globs(one, text, globs_of_regex, partial(names_of_regex))
    if globs:
        draft.rule("ignored", op=WEIGHTED, modules=globs, keep="float")
        draft.approximate(one, f"modules {', '.join(map(quoted, globs[:3]))} stay float; in NNCF the pattern is held against names of nodes")  # fmt: skip
    elif globs is not None:
        draft.exact(one, "matches no module of the model")


def _ignored_type(one: Foreign, draft: Draft) -> None:
    found = _TYPES.get(one.text())
    if found is None:
        draft.exact(one, f"{quoted(one.text())}: no rule quantizes such operations")
        return
    weighted = tuple(op for op in found if op in WEIGHTED)
    if weighted:
        draft.rule("ignored", op=weighted, keep="float")
    draft.exact(one, f"{quoted(one.text())} stays float")
