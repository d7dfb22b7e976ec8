"""What an engine executes, by site, with each layer's share of the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.contract import KernelExecution
from qdx.backends.onnx.site_tables import PRODUCTS, read_tables
from qdx.backends.tensorrt.engine.inspect import executions
from qdx.backends.tensorrt.engine.logged import check_logged
from qdx.backends.tensorrt.engine.record import read_record
from qdx.backends.tensorrt.engine.run import TensorRtRunner
from qdx.backends.tensorrt.engine.stored_log import stored_model
from qdx.backends.tensorrt.model_file import read_model
from qdx.exporter.files import safe_child
from qdx.exporter.graph.ir.graph import TensorSpec

__all__ = ["audit_engine", "sites_by_node"]

_RUNS: Final = 5


def audit_engine(folder: Path, options: Mapping[str, str]) -> tuple[KernelExecution, ...]:
    """Opens an engine, runs it on arbitrary inputs and says which kernels it has.

    Args:
        folder: With the engine, its record and the model that it was built from.
        options: As for running; a CUDA graph is never used.

    Returns:
        Every layer, in order. One that computes a site names it, several where TensorRT fused them. Those of TensorRT-RTX
        say what they were compiled for, as their log does without a device.

    Raises:
        InvalidBundle: The record, the engine or the model is missing or malformed, or the engine on the device is not
            what the log of its build says.
        RuntimeMissing: TensorRT or the device is missing, or the engine is for another one.
    """
    runner = TensorRtRunner(folder, {**options, "cuda_graph": "off"})
    shapes = runner.usual_shapes()
    inputs = {spec.name: _example(spec, shapes[spec.name]) for spec in runner.inputs}
    times = runner.layer_times_ms(inputs, _RUNS)
    layers, record = runner.layers(), read_record(folder)
    if record.recipe.builder.builds_anywhere:
        logged = stored_model(folder, record)
        check_logged(layers, logged.log, record.engine)
        return _timed(logged.executions(), times)
    sites = sites_by_node(safe_child(folder, record.recipe.model))
    return executions(layers, lambda node: sites.get(node, ()), times)


def _timed(
    found: Sequence[KernelExecution], times_ms: Mapping[str, float]
) -> tuple[KernelExecution, ...]:
    """Executions with their share of the time; those of one layer share its time."""
    total = sum(times_ms.values())
    entries = Counter(one.name for one in found)
    return tuple(
        replace(one, time_share=times_ms.get(one.name, 0.0) / total / entries[one.name])
        if total
        else one
        for one in found
    )


def sites_by_node(model: Path) -> dict[str, tuple[str, ...]]:
    """Sites of a model's products, by the node's name.

    Of a fused layer, which has the precision of its product, what stands around that is no site of its own.

    Raises:
        InvalidBundle: The model is missing, no ONNX model, or one without a table of sites.
    """
    read = read_model(model)
    table, _ = read_tables(read, source=model.name)
    nodes = [str(node.name) for node in read.graph if node.op_type in PRODUCTS]
    return {name: table.sites(name) for name in nodes}


def _example(spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    if not spec.dtype.startswith(("float", "bfloat")):
        return np.ones(shape, dtype=spec.dtype)
    numbers = np.random.default_rng(0).standard_normal(shape)
    return numbers.astype(np.dtype(spec.dtype))
