"""Opens an engine of a bundle: checked against its record, loaded, and given weights where it has none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qdx.backends.tensorrt.engine import api
from qdx.backends.tensorrt.engine.build import parser_refusals
from qdx.backends.tensorrt.engine.log import Log, started
from qdx.backends.tensorrt.engine.options import BUDGET, RunOptions
from qdx.backends.tensorrt.engine.package import TensorRt, compute_capability, tensorrt
from qdx.backends.tensorrt.engine.record import (
    EngineRecord,
    check_runs_here,
    check_sources,
    read_engine,
    read_record,
)
from qdx.backends.tensorrt.engine.validity import check_validity
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, TargetRefusal, UsageError, quoted

__all__ = [
    "LoadedEngine",
    "RunOptions",
    "checked_context",
    "deserialized",
    "load_engine",
]


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
        trt = tensorrt(record.recipe.builder)
        check_runs_here(record, trt.__version__, compute_capability(options.device))
    except RuntimeMissing as missing:
        raise RuntimeMissing(
            f"{quoted(folder.name)}: holds an engine, which cannot run here: {missing.message}",
            hint=missing.hint,
        ) from missing
    log = Log(record.recipe.builder.title)
    logger = log.logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    runtime = started(trt.Runtime, logger, log)
    recipe = record.recipe
    if recipe.version_compatible and not recipe.exclude_lean_runtime:
        runtime.engine_host_code_allowed = (
            True  # the runtime inside the engine; the digest was compared
        )
    if record.recipe.builder.builds_anywhere:
        check_validity(trt, runtime, plan, record.engine, log)
    engine = deserialized(runtime, plan, record, log)
    if recipe.strip_weights:
        _refit(trt, engine, logger, folder, record)
    if options.weight_streaming_budget_bytes is not None:
        _stream(engine, record, options.weight_streaming_budget_bytes)
    return LoadedEngine(trt, engine, record, log, (logger, runtime))


def deserialized(
    runtime: api.Runtime, plan: bytes, record: EngineRecord, log: Log
) -> api.ICudaEngine:
    """Loads an engine whose digest was compared.

    Raises:
        InvalidBundle: TensorRT cannot load it.
        RuntimeMissing: TensorRT-RTX cannot, which compiles it for a device: there is none, or no driver for it.
    """
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is not None:
        return engine
    flavour = record.recipe.builder
    message = f"{quoted(record.engine)}: {flavour.title} cannot load it: {log.reason()}"
    if flavour.builds_anywhere:
        # Whatever is wrong with its bytes, `check_validity` has found.
        raise RuntimeMissing(message, hint="it needs an NVIDIA device and a driver for CUDA 13")
    raise InvalidBundle(message, hint="build the engine again from the model beside it")


def checked_context(
    loaded: LoadedEngine, context: api.IExecutionContext | None
) -> api.IExecutionContext:
    """Returns a context that was made.

    Raises:
        RuntimeMissing: It was not: the device's memory does not suffice.
    """
    if context is None:
        raise RuntimeMissing(
            f"{quoted(loaded.record.engine)}: the device's memory does not suffice: "
            f"{loaded.log.reason()}",
            hint=f"free some, or build with `weight_streaming` and set `{BUDGET}`",
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
            f"`{BUDGET}`: {quoted(record.engine)} was not built to stream its weights",
            hint="set `weight_streaming` in the recipe and build again",
        )
    # Before any context exists: contexts take their memory by it.
    engine.weight_streaming_budget_v2 = min(budget_bytes, engine.streamable_weights_size)
