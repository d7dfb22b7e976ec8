"""Opens an engine of a bundle: checked against its record, loaded, and given weights where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qdx.backends.tensorrt.engine import api
from qdx.backends.tensorrt.engine.build import parser_refusals
from qdx.backends.tensorrt.engine.log import Log, started
from qdx.backends.tensorrt.engine.package import TensorRt, compute_capability, tensorrt
from qdx.backends.tensorrt.engine.record import (
    EngineRecord,
    check_runs_here,
    check_sources,
    read_engine,
    read_record,
)
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, TargetRefusal, UsageError, quoted

__all__ = ["LoadedEngine", "RunOptions", "load_engine", "new_context", "run_options"]

_BUDGET: Final = "weight_streaming_budget_bytes"
_GRAPH: Final = "cuda_graph"
_DEVICE: Final = "device"
_SWITCH: Final = {"on": True, "off": False}


@dataclass(frozen=True)
class RunOptions:
    """How an engine is run.

    Attributes:
        device: Number of the device.
        cuda_graph: Whether an engine of static shapes is replayed as a CUDA graph.
        weight_streaming_budget_bytes: Weights that stay on the device; None for all of them.
    """

    device: int = 0
    cuda_graph: bool = True
    weight_streaming_budget_bytes: int | None = None


@dataclass(frozen=True)
class LoadedEngine:
    """An engine on the device.

    Attributes:
        trt: The package.
        engine: The engine.
        record: What it was built from.
        log: What TensorRT said and says.
        keep: What the engine refers to and must outlive it.
    """

    trt: TensorRt
    engine: api.ICudaEngine
    record: EngineRecord
    log: Log
    keep: tuple[object, ...]


def run_options(options: Mapping[str, str]) -> RunOptions:
    """Reads options of running.

    Raises:
        UsageError: One is unknown, or has no such value.
    """
    unknown = sorted(options.keys() - {_BUDGET, _GRAPH, _DEVICE})
    if unknown:
        raise UsageError(
            f"{quoted(unknown[0])}: no such option of running an engine",
            hint=f"expected `{_DEVICE}`, `{_GRAPH}` or `{_BUDGET}`",
        )
    graph = options.get(_GRAPH, "on")
    if graph not in _SWITCH:
        raise UsageError(f"`{_GRAPH}`: got {quoted(graph)}, expected on or off")
    budget = options.get(_BUDGET)
    return RunOptions(
        _count(_DEVICE, options.get(_DEVICE, "0")),
        _SWITCH[graph],
        None if budget is None else _count(_BUDGET, budget),
    )


def load_engine(folder: Path, options: RunOptions) -> LoadedEngine:
    """Loads the engine that a component's folder records.

    The device must be PyTorch's current one, here and whenever the engine runs.

    Args:
        folder: With `engine.json` and the engine; with the model, where the engine has no weights.
        options: How it is run.

    Raises:
        InvalidBundle: The record or the engine is missing, altered, malformed, or of another model.
        RuntimeMissing: TensorRT or the device is missing, or the engine is for another one.
        TargetRefusal: The weights of the model do not fit the engine.
        UsageError: The engine cannot stream its weights.
    """
    # What is wrong with the files comes first: no other machine would help.
    record = read_record(folder)
    check_sources(folder, record)
    plan = read_engine(folder, record)
    try:
        trt = tensorrt()
        check_runs_here(record, trt.__version__, compute_capability(options.device))
    except RuntimeMissing as missing:
        raise RuntimeMissing(
            f"{quoted(folder.name)}: holds an engine, which cannot run here: {missing.message}",
            hint=missing.hint,
        ) from missing
    log = Log()
    logger = log.logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    runtime = started(trt.Runtime, logger, log)
    recipe = record.recipe
    if recipe.version_compatible and not recipe.exclude_lean_runtime:
        runtime.engine_host_code_allowed = (
            True  # the runtime inside the engine; the digest was compared
        )
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InvalidBundle(
            f"{quoted(record.engine)}: TensorRT cannot load it: {log.reason()}",
            hint="build the engine again from the model beside it",
        )
    if recipe.strip_weights:
        _refit(trt, engine, logger, folder, record)
    if options.weight_streaming_budget_bytes is not None:
        _stream(engine, record, options.weight_streaming_budget_bytes)
    return LoadedEngine(trt, engine, record, log, (logger, runtime))


def new_context(loaded: LoadedEngine) -> api.IExecutionContext:
    """Returns a context with memory of its own.

    Raises:
        RuntimeMissing: The device's memory does not suffice.
    """
    context = loaded.engine.create_execution_context()
    if context is None:
        raise RuntimeMissing(
            f"{quoted(loaded.record.engine)}: the device's memory does not suffice: "
            f"{loaded.log.reason()}",
            hint=f"free some, or build with `weight_streaming` and set `{_BUDGET}`",
        )
    return context


def _refit(
    trt: TensorRt,
    engine: api.ICudaEngine,
    logger: api.ILogger,
    folder: Path,
    record: EngineRecord,
) -> None:
    """Puts the weights of the model into an engine that was built without them."""
    name = record.recipe.model
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(folder / name)):
        raise TargetRefusal(
            f"{quoted(name)}: its weights do not fit the engine",
            refusals=parser_refusals(parser, name),
            hint="build the engine again",
        )
    missing = refitter.get_missing_weights()
    if missing or not refitter.refit_cuda_engine():
        raise TargetRefusal(
            f"{quoted(record.engine)}: {len(missing)} weights are missing from the model",
            hint="build the engine again",
        )


def _stream(engine: api.ICudaEngine, record: EngineRecord, budget_bytes: int) -> None:
    if not record.recipe.weight_streaming:
        raise UsageError(
            f"`{_BUDGET}`: {quoted(record.engine)} was not built to stream its weights",
            hint="set `weight_streaming` in the recipe and build again",
        )
    # Before any context exists: contexts take their memory by it.
    engine.weight_streaming_budget_v2 = min(budget_bytes, engine.streamable_weights_size)


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"`{name}`: got {quoted(text)}, expected a number from 0 on")
    return int(text)
