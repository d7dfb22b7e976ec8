"""What OpenVINO really executes: the operations of a compiled model, their kernels and their time.

A kernel works in 8 bits if its name ends in `_i8` (signed inputs) or `_I8` (unsigned) and its first input has
8 bits. The precision that the compiled model declares is no proof: operations that decompress their
weights and multiply floats declare that of the weights.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.capabilities import TimedOperation
from qdx.backends.contract import KernelExecution
from qdx.backends.openvino.package import core
from qdx.backends.openvino.site_tables import read_tables
from qdx.backends.repeats import repeats
from qdx.backends.site_table import SiteTable
from qdx.exporter.errors import InternalError, InvalidBundle, quoted

__all__ = ["audit", "time_operations"]

_NOT_EXECUTED: Final = frozenset({"Const", "Input", "Output", "Parameter", "Result"})
_WARM_UP: Final = 3
"""Runs that do not count: the first lay out weights for their kernels."""
_MEAN_OF: Final = 4
"""Runs that make one sample of the times."""
_SAMPLES: Final = 4
"""Samples of one compiled model."""
_HALF_UNIT_S: Final = 0.5e-6
"""What is missing on the average where times are cut to whole microseconds."""
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
    read, compiled = _compiled(model, options, threads)
    tables = read_tables(read, source=model.name)
    times = {} if read.is_dynamic() else _times(compiled)
    total = sum(times.values())
    found: list[KernelExecution] = []
    for node in _executed(compiled):
        name = node.get_friendly_name()
        time_s = times.get(name, 0.0) if total else None
        found.extend(_executions(node, name, tables, time_s, total))
    return tuple(found)


def time_operations(
    model: Path,
    options: Mapping[str, str],
    inputs: Mapping[str, NDArray[Any]],
    *,
    runs: int,
    threads: int | None = None,
) -> tuple[TimedOperation, ...]:
    """The time of every kernel; see `qdx.backends.capabilities.TimesOperations`."""
    found: list[TimedOperation] = []
    while not found or len(found[0].seconds) < runs:
        read, compiled = _compiled(model, options, threads, shapes=inputs)
        tables = read_tables(read, source=model.name)
        arrays = [inputs[port.get_any_name()] for port in compiled.inputs]
        count = min(_SAMPLES, runs - (len(found[0].seconds) if found else 0))
        samples = _samples(compiled, arrays, count)
        # Names that OpenVINO counts up differ when it compiles again; what it does, and in which order, does not.
        nodes = _executed(compiled)
        if found and len(nodes) != len(found):
            raise InternalError(f"`{model.name}`: OpenVINO compiles it now so and now otherwise")
        found = [
            _and_samples(found[place] if found else None, node, tables, samples)
            for place, node in enumerate(nodes)
        ]
    return tuple(found)


def _and_samples(
    known: TimedOperation | None,
    node: Any,
    tables: tuple[SiteTable, SiteTable],
    samples: Sequence[Mapping[str, float]],
) -> TimedOperation:
    """An operation with the samples of one more compiled model, in which it is called as the node is."""
    name = node.get_friendly_name()
    seconds = tuple(one.get(name, 0.0) for one in samples)
    if known is not None:
        return replace(known, seconds=known.seconds + seconds)
    return TimedOperation(name, _told(node, "primitiveType"), _sites(node, name, *tables), seconds)


def _samples(compiled: Any, arrays: Sequence[NDArray[Any]], count: int) -> list[dict[str, float]]:
    """Seconds of each operation by name, means over a few runs each.

    What the runtime reports is a mean over all runs since it compiled the model, the first ones with their laying out of
    weights among them, in whole microseconds. So sums are subtracted, over few enough runs for what rounding leaves.
    """
    request = compiled.create_infer_request()

    def run(times: int) -> dict[str, float]:
        means = [_run(request, arrays) for _ in range(times)][-1]
        return {name: mean + _HALF_UNIT_S for name, mean in means.items()}

    total, before = _WARM_UP, run(_WARM_UP)
    found = []
    for _ in range(count):
        means = run(_MEAN_OF)
        after = total + _MEAN_OF
        found.append(
            {
                name: max(0.0, (after * mean - total * before[name]) / _MEAN_OF)
                for name, mean in means.items()
                if mean > _HALF_UNIT_S
            }
        )
        total, before = after, means
    return found


def _compiled(
    model: Path,
    options: Mapping[str, str],
    threads: int | None,
    shapes: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[Any, Any]:
    """The model as it was read, and compiled with counters; for the shapes of a call where its own are open."""
    settings: dict[str, Any] = {**options, "PERF_COUNT": "YES"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        read = core().read_model(model)
        if shapes is not None and read.is_dynamic():
            read.reshape({port: list(shapes[port.get_any_name()].shape) for port in read.inputs})
        return read, core().compile_model(read, "CPU", settings)
    except RuntimeError as error:
        raise InvalidBundle(f"{quoted(model.name)}: OpenVINO cannot open it: {error}") from error


def _executed(compiled: Any) -> list[Any]:
    """The operations that are carried out, in order."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    return [node for node in nodes if _told(node, "layerType") not in _NOT_EXECUTED]


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
    start = time.perf_counter()
    means = [_run(request, inputs)]
    means += [_run(request, inputs) for _ in range(repeats(time.perf_counter() - start))]
    # What is reported is a mean over all runs; the first one lays out weights, too.
    runs = [
        {name: (n + 1) * mean - n * before.get(name, mean) for name, mean in after.items()}
        for n, (before, after) in enumerate(pairwise(means), 1)
    ] or means
    return {name: max(0.0, min(one.get(name, t) for one in runs)) for name, t in runs[0].items()}


def _run(request: Any, inputs: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Runs once; seconds of each operation by name."""
    request.infer(list(inputs))
    return {row.node_name: row.real_time.total_seconds() for row in request.profiling_info}


def _told(node: Any, key: str) -> str:
    info = node.get_rt_info()
    if key not in info:
        return ""
    value = info[key]
    return str(value.value if hasattr(value, "value") else value)
