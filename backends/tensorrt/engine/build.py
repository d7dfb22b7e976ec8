"""Builds an engine from an ONNX file by a recipe: one way for TensorRT 10.12 and later, 11 included.

The network is strongly typed: precision is what the file says, quantizers and casts, and no flag of the
builder asks for one. Nothing falls back: what TensorRT refuses is an error that names the nodes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qdx.backends.tensorrt.engine import api, build_api
from qdx.backends.tensorrt.engine.log import Log, LogLine, started
from qdx.backends.tensorrt.engine.package import TensorRt, tensorrt
from qdx.backends.tensorrt.recipe import BuildRecipe
from qdx.backends.tensorrt.versions import version_of
from qdx.exporter.errors import InvalidBundle, Refusal, TargetRefusal, UsageError, quoted

__all__ = ["BuiltEngine", "build_engine"]

_LINT: Final = "`qdx inspect --lint` checks the model's rules without TensorRT"
_MEMORY: Final = (
    "free device memory, or lower `workspace_bytes` or `optimization_level` in the recipe"
)


@dataclass(frozen=True)
class BuiltEngine:
    """What a build gave.

    Attributes:
        plan: The engine, as memory that `memoryview` reads; it may be of many gigabytes.
        timing_cache: Times of kernels, for the next build on this version and device.
        log: What TensorRT said, warnings and errors.
        build_s: How long it took, in seconds.
    """

    plan: api.Buffer
    timing_cache: bytes
    log: tuple[LogLine, ...]
    build_s: float


def build_engine(model: Path, recipe: BuildRecipe, *, timing_cache: bytes = b"") -> BuiltEngine:
    """Builds for the device at hand.

    Args:
        model: The ONNX file, its weights beside it.
        recipe: How.
        timing_cache: Of an earlier build on this version and device; empty to measure anew.

    Raises:
        RuntimeMissing: TensorRT is not installed, not of a supported version, or finds no device.
        TargetRefusal: TensorRT refuses the model, with the nodes, or finds no kernels for it.
        InvalidBundle: The recipe's profiles do not fit the model.
        UsageError: The timing cache is for another version or device, or the version is not the recipe's.
    """
    trt = tensorrt()
    _check_version(trt, recipe)
    log = Log()
    logger = log.logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    builder = started(trt.Builder, logger, log)
    network = builder.create_network(
        1
        << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # no more than a no-op from 11 on
    )
    # The parser's memory holds the weights that the network refers to: it lives until the build is done.
    parser = parsed(trt, network, logger, model)
    config = builder.create_builder_config()
    configure(trt, config, recipe)
    add_profiles(builder, config, network, recipe, model.name)
    _set_timing_cache(config, timing_cache)
    start = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        reason = log.reason()
        raise TargetRefusal(
            f"{quoted(model.name)}: TensorRT built no engine: {reason}", hint=_build_hint(reason)
        )
    return BuiltEngine(
        plan,
        bytes(memoryview(config.get_timing_cache().serialize())),
        tuple(log.lines),
        time.monotonic() - start,
    )


def parsed(
    trt: TensorRt,
    network: build_api.INetworkDefinition,
    logger: api.ILogger,
    model: Path,
    title: str = "TensorRT",
) -> build_api.OnnxParser:
    """Reads a file into a network; the parser returned owns the weights.

    Raises:
        TargetRefusal: With each node that the parser refuses.
    """
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(model)):  # the path, so that weights beside it are found
        return parser
    refusals = parser_refusals(parser, model.name)
    raise TargetRefusal(
        f"{quoted(model.name)}: {title}'s parser refuses {len(refusals)} nodes",
        refusals=refusals,
        hint=_LINT,
    )


def parser_refusals(
    parser: build_api.OnnxParser | api.OnnxParserRefitter, where: str
) -> tuple[Refusal, ...]:
    """What a parser refuses, by node; an error of the whole file is one of that file."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = "/".join([*error.local_function_stack(), error.node_name() or where])
        operator, words = error.node_operator(), " ".join(error.desc().split())
        what = f"{operator}: {words}" if operator else words
        found.append(Refusal(name, f"{what} ({error.code().name})"))
    return tuple(dict.fromkeys(found)) or (Refusal(where, "the parser gives no reason"),)


def configure(trt: TensorRt, config: build_api.IBuilderConfig, recipe: BuildRecipe) -> None:
    """Sets every option of a recipe; TF32 is off where it does not ask for it, unlike by default."""
    flags = trt.BuilderFlag
    levels = trt.HardwareCompatibilityLevel
    if recipe.tf32:
        config.set_flag(flags.TF32)
    else:
        config.clear_flag(flags.TF32)
    wanted = [
        (recipe.version_compatible, flags.VERSION_COMPATIBLE),
        (recipe.exclude_lean_runtime, flags.EXCLUDE_LEAN_RUNTIME),
        (recipe.weight_streaming, flags.WEIGHT_STREAMING),
        (recipe.refit == "any", flags.REFIT),
        (recipe.refit == "identical", flags.REFIT_IDENTICAL),
        (recipe.strip_weights, flags.STRIP_PLAN),
    ]
    for asked, flag in wanted:
        if asked:
            config.set_flag(flag)
    config.hardware_compatibility_level = {
        "none": levels.NONE,
        "ampere_plus": levels.AMPERE_PLUS,
        "same_compute_capability": levels.SAME_COMPUTE_CAPABILITY,
    }[recipe.hardware_compatibility]
    config.builder_optimization_level = recipe.optimization_level
    # Without it an engine does not tell which kernels it has, and nothing could be audited.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if recipe.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)


def add_profiles(
    builder: build_api.Builder,
    config: build_api.IBuilderConfig,
    network: build_api.INetworkDefinition,
    recipe: BuildRecipe,
    where: str,
) -> None:
    """Adds a recipe's profiles.

    Raises:
        InvalidBundle: An open size has no profile, or TensorRT refuses one.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    sizes = next((tensor.name for tensor in inputs if tensor.is_shape_tensor), None)
    if sizes is not None:
        raise InvalidBundle(
            f"{quoted(where)}: input {quoted(sizes)} holds sizes, expected numbers alone",
            hint="export with static shapes",
        )
    moving = [tensor.name for tensor in inputs if any(size < 0 for size in tensor.shape)]
    if moving and not recipe.profiles:
        raise InvalidBundle(
            f"{quoted(where)}: no profile for the open sizes of {', '.join(moving)}",
            hint="add `profiles` to the recipe",
        )
    for index, shapes in enumerate(recipe.profiles):
        profile = builder.create_optimization_profile()
        try:
            for name, each in shapes.items():
                profile.set_shape(name, each.smallest, each.usual, each.largest)
        except ValueError as error:
            raise InvalidBundle(f"{quoted(where)}: profile {index}: {error}") from error
        if config.add_optimization_profile(profile) < 0:
            raise InvalidBundle(
                f"{quoted(where)}: TensorRT refuses profile {index} of {', '.join(shapes)}",
                hint="give shapes that the model's inputs can have",
            )


def _set_timing_cache(config: build_api.IBuilderConfig, saved: bytes) -> None:
    cache = config.create_timing_cache(saved)
    # Never the times of another device: they would choose kernels that are slow here.
    if cache is None or not config.set_timing_cache(cache, False):
        raise UsageError(
            f"the timing cache of {len(saved)} bytes is not for this TensorRT and this device",
            hint="build without it; a new one is written",
        )


def _check_version(trt: TensorRt, recipe: BuildRecipe) -> None:
    if version_of(trt.__version__) not in recipe.version_range:
        raise UsageError(
            f"TensorRT {trt.__version__} is installed, the recipe is for {recipe.version_range}",
            hint="install a version of that range, or export again for this one",
        )


def _build_hint(reason: str) -> str:
    memory = any(word in reason.lower() for word in ("memory", "alloc"))
    return _MEMORY if memory else _LINT
