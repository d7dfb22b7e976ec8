"""What ONNX Runtime executes for a model: its kernels after fusion, by site, with their share of the time."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic_core import from_json

from qdx.backends.capabilities import TimedOperation
from qdx.backends.contract import KernelExecution
from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.onnx.site_tables import read_tables
from qdx.backends.repeats import repeats
from qdx.exporter.errors import InvalidBundle, first_line, quoted
from qdx.exporter.graph.ir.graph import TensorSpec

__all__ = ["audit", "time_operations"]

_SIZES: Final = (16, 64, 8, 4)
"""Sizes to try for dynamic dimensions."""
_WARM_UP: Final = 2
"""Runs that do not count."""
_EVENT: Final = "_kernel_time"
_SECONDS: Final = 1e-6
"""In the profile's unit of time."""
_INTEGER_KERNELS: Final = frozenset(
    [
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    ]
)
_FLOAT_KERNELS: Final = frozenset(
    [
        "BiasGelu",
        "Conv",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gather",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "MatMul",
        "MatMulNBits",
        "MultiHeadAttention",
        "NhwcFusedConv",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
    ]
)
_ADDED: Final = re.compile(r"(_token_\d+|_nchwc|_nhwc|/.*|_\d+)*\Z")
"""What the runtime adds to the name of a node that it fuses or moves to another layout."""
_COMPRESSED: Final = "MatMulNBits"
_ACCURACY: Final = "session.qdq_matmulnbits_accuracy_level"
_FLOAT_ACCURACY: Final = ("0", "1")
"""Levels at which MatMulNBits does not round its input to eight bits."""
_PRECISIONS: Final = {"float": "float32", "double": "float64"}


def audit(
    model: Path, options: Mapping[str, str], *, threads: int | None = None
) -> tuple[KernelExecution, ...]:
    """Opens a model with profiling and runs it on arbitrary inputs.

    Args:
        model: The model file that `lower` wrote.
        options: As for running.
        threads: As for running.

    Returns:
        Every operation executed, in order. One that computes a site names it; what stands around a site
        (quantizers, reshapes) does not.

    Raises:
        InvalidBundle: ONNX Runtime cannot open or run the model, or it has no table of sites.
    """

    def run(runner: OnnxRuntimeRunner) -> None:
        inputs, first_s = _accepted(runner, model)
        for _ in range(repeats(first_s)):
            runner(inputs)

    found, first = _durations(_events(model, options, threads, run))
    sites = _Sites(model)
    times = {key: statistics.median(durations) for key, durations in found.items()}
    total = sum(times.values()) or 1.0
    executions = []
    for (name, kind), duration in times.items():
        executions.append(
            KernelExecution(
                name,
                kind,
                _precision(kind, first[name, kind], options),
                sites.of(name) if _computes(kind) else (),
                duration / total,
                duration * _SECONDS,
            )
        )
    return tuple(executions)


def time_operations(
    model: Path,
    options: Mapping[str, str],
    inputs: Mapping[str, NDArray[Any]],
    *,
    runs: int,
    threads: int | None = None,
) -> tuple[TimedOperation, ...]:
    """The time of every kernel; see `qdx.backends.capabilities.TimesOperations`."""

    def run(runner: OnnxRuntimeRunner) -> None:
        for _ in range(_WARM_UP + runs):
            runner(inputs)

    found, _ = _durations(_events(model, options, threads, run))
    sites = _Sites(model)
    return tuple(
        TimedOperation(
            name,
            kind,
            sites.of(name) if _computes(kind) else (),
            tuple(duration * _SECONDS for duration in durations[-runs:]),
        )
        for (name, kind), durations in found.items()
    )


class _Sites:
    """The sites of a model's nodes, by the names that the runtime gives them."""

    def __init__(self, model: Path) -> None:
        """Reads the model's structure; weights stay on disk."""
        read = ir.load(model)
        self._table, self._parts = read_tables(read, source=model.name)
        # The runtime sometimes names a node after the value that it makes.
        self._nodes = {
            str(name): str(node.name)
            for node in read.graph
            for name in (*(value.name for value in node.outputs), node.name)
        }

    def of(self, name: str) -> tuple[str, ...]:
        """The keys of the sites that a node of the runtime's own graph computes; none for other nodes."""
        ends = (end for end in range(len(name), 0, -1) if name[:end] in self._nodes)
        known = (name[:end] for end in ends if _ADDED.fullmatch(name, end))
        node = self._nodes.get(next(known, ""))
        return self._table.sites(node) or self._parts.sites(node)


def _precision(kind: str, arguments: Mapping[str, Any], options: Mapping[str, str]) -> str:
    if kind in _INTEGER_KERNELS:
        return "int8"
    if kind == _COMPRESSED:
        return "float32" if options.get(_ACCURACY) in _FLOAT_ACCURACY else "int8"
    types = [next(iter(each), "") for each in arguments.get("input_type_shape", ())]
    found = types[0] if types else ""
    return _PRECISIONS.get(found, found)


_Durations = dict[tuple[str, str], list[float]]


def _durations(
    events: Iterable[Mapping[str, Any]],
) -> tuple[_Durations, dict[tuple[str, str], Mapping[str, Any]]]:
    """By name and kind: the time of each run, and the arguments of the first."""
    found: _Durations = defaultdict(list)
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for event in events:
        arguments = event["args"]
        key = (str(event["name"]).removesuffix(_EVENT), str(arguments["op_name"]))
        found[key].append(float(event["dur"]))
        first.setdefault(key, arguments)
    return found, first


def _computes(kind: str) -> bool:
    return kind in _INTEGER_KERNELS or kind in _FLOAT_KERNELS


def _events(
    model: Path,
    options: Mapping[str, str],
    threads: int | None,
    run: Callable[[OnnxRuntimeRunner], None],
) -> list[dict[str, Any]]:
    """The profile's events of kernels, in order, of the runs that `run` makes."""
    with tempfile.TemporaryDirectory() as folder:
        runner = OnnxRuntimeRunner(model, options, threads=threads, profile_in=Path(folder))
        run(runner)
        events = from_json(runner.end_profile().read_bytes())  # the runtime's own list
    return [
        event
        for event in events
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_EVENT)
    ]


def _accepted(runner: OnnxRuntimeRunner, model: Path) -> tuple[dict[str, NDArray[Any]], float]:
    """Inputs that the model takes, found by running it, and the seconds of that run."""
    moving = any(isinstance(size, str) for spec in runner.inputs for size in spec.shape)
    failure: Exception | None = None
    for size in _SIZES if moving else _SIZES[:1]:
        inputs = {spec.name: _example(spec, size) for spec in runner.inputs}
        start = time.perf_counter()
        try:
            runner(inputs)
        except Exception as error:  # noqa: BLE001  # its errors share no base but Exception
            failure = error
        else:
            return inputs, time.perf_counter() - start
    assert failure is not None
    raise InvalidBundle(
        f"{quoted(model.name)}: ONNX Runtime cannot run it: {first_line(failure)}"
    ) from failure


def _example(spec: TensorSpec, size: int) -> NDArray[Any]:
    """An array for an input; a dynamic first dimension is a batch of one."""
    shape = [
        each if isinstance(each, int) else (size if index else 1)
        for index, each in enumerate(spec.shape)
    ]
    if not spec.dtype.startswith("float"):
        return np.ones(shape, dtype=spec.dtype)
    return np.random.default_rng(0).standard_normal(shape).astype(spec.dtype)
