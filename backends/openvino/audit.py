"""What OpenVINO really executes: the operations of a compiled model, their kernels and their time.

A kernel works in 8 bits if its name ends in `_i8` (signed inputs) or `_I8` (unsigned) and its first input has
8 bits. The precision that the compiled model declares is no proof: operations that decompress their
weights and multiply floats declare that of the weights.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from qdx.backends.contract import KernelExecution
from qdx.backends.openvino.package import core
from qdx.backends.openvino.site_tables import read_tables
from qdx.backends.repeats import repeats
from qdx.backends.site_table import SiteTable
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["audit"]

_NOT_EXECUTED: Final = frozenset({"Const", "Input", "Output", "Parameter", "Result"})
_EIGHT_BITS: Final = frozenset({"i8", "u8"})
_INTEGER_KERNEL: Final = re.compile(r"_[iI]8$")
_DTYPES: Final = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i64": "int64"}
_WEIGHTED: Final = ("Convolution", "Deconvolution", "FullyConnected", "GroupConvolution", "MatMul")
_ATTENTION: Final = frozenset({"ScaledDotProductAttention", "Subgraph"})
_ADDED: Final = re.compile(r"(/\d+|/WithoutBiases|/DequantizationMultiply|_Reshape_weight)*$")
"""What OpenVINO and the splitting of operations append to names."""


def audit(
    model: Path, options: Mapping[str, str], *, threads: int | None = None
) -> tuple[KernelExecution, ...]:
    """Compiles a model as it will run and reads off its kernels.

    The times are those of the fastest of a few runs on inputs of zeros, of one where it takes long. A model with dynamic
    dimensions is compiled, but not run.

    Args:
        model: The IR's XML file.
        options: OpenVINO's own properties of a compiled model.
        threads: Processor threads; OpenVINO's default where None.

    Raises:
        InvalidBundle: OpenVINO cannot read or compile the model, or it has no tables of sites.
    """
    settings: dict[str, Any] = {**options, "PERF_COUNT": "YES"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        read = core().read_model(model)
        compiled = core().compile_model(read, "CPU", settings)
    except RuntimeError as error:
        raise InvalidBundle(f"{quoted(model.name)}: OpenVINO cannot open it: {error}") from error
    tables = read_tables(read, source=model.name)
    times = {} if read.is_dynamic() else _times(compiled)
    total = sum(times.values())
    found: list[KernelExecution] = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        name = node.get_friendly_name()
        if _told(node, "layerType") not in _NOT_EXECUTED:
            time_s = times.get(name, 0.0) if total else None
            found.extend(_executions(node, name, tables, time_s, total))
    return tuple(found)


def _executions(
    node: Any, name: str, tables: tuple[SiteTable, SiteTable], time_s: float | None, total_s: float
) -> list[KernelExecution]:
    """One for each precision: fused attention can multiply queries and probabilities in different ones."""
    kind = _told(node, "primitiveType")
    sites = _sites(node, name, *tables)
    inputs = [output.get_element_type().get_type_name() for output in node.input_values()]
    by_precision: dict[str, list[str]] = {}
    for key in sites:
        by_precision.setdefault(_precision(kind, key, inputs, len(sites)), []).append(key)
    if not sites:
        by_precision[_precision(kind, "", inputs, 0)] = []
    part_s = None if time_s is None else time_s / len(by_precision)
    share = None if part_s is None else part_s / total_s
    return [
        KernelExecution(name, kind, precision, tuple(found), share, part_s)
        for precision, found in by_precision.items()
    ]


def _precision(kind: str, key: str, inputs: Sequence[str], sites: int) -> str:
    declared = kind.rpartition("_")[2]
    if not _INTEGER_KERNEL.search(kind):
        return _DTYPES.get(declared, declared)
    # Of attention in one kernel, queries and keys are the first inputs and values the last.
    first = inputs[-1:] if sites > 1 and key.rpartition(".")[2].startswith("pv") else inputs[:1]
    return "int8" if set(first) <= _EIGHT_BITS and first else "float32"


def _sites(node: Any, name: str, own: SiteTable, parts: SiteTable) -> tuple[str, ...]:
    names = [*_told(node, "originalLayersNames").split(","), name]
    layer = _told(node, "layerType")
    found = _looked_up(names, own)
    if layer in _ATTENTION:  # one operation for both products keeps the name of the second
        found += _looked_up([name for name in names if _looked_up([name], own)], parts)
    if not found and layer.startswith(_WEIGHTED):
        parents = (output.get_node() for output in node.input_values())
        constants = [p.get_friendly_name() for p in parents if _told(p, "layerType") == "Const"]
        named = ([*_looked_up([one], parts)] for one in (*constants, *names))
        found = next(filter(None, named), [])
    return tuple(dict.fromkeys(found))


def _looked_up(names: Sequence[str], table: SiteTable) -> list[str]:
    return [key for name in names for key in table.sites(_ADDED.sub("", name))]


def _times(compiled: Any) -> dict[str, float]:
    """Seconds of each operation that ran, by name."""
    request = compiled.create_infer_request()
    inputs = [
        np.zeros(tuple(port.get_shape()), dtype=port.get_element_type().to_dtype())
        for port in compiled.inputs
    ]

    def run() -> dict[str, float]:
        request.infer(inputs)
        return {row.node_name: row.real_time.total_seconds() for row in request.profiling_info}

    start = time.perf_counter()
    found = [run()]
    found += [run() for _ in range(repeats(time.perf_counter() - start))]
    return {
        name: min(one.get(name, seconds) for one in found) for name, seconds in found[0].items()
    }


def _told(node: Any, key: str) -> str:
    info = node.get_rt_info()
    if key not in info:
        return ""
    value = info[key]
    return str(value.value if hasattr(value, "value") else value)
