"""Compiles an engine with TensorRT-RTX ahead of time, for devices that need not be here.

The engine goes to its file as the builder hands it over, so that it is never whole in memory a second time, and its
digest is made of the bytes on their way. What the builder logs of the engine's layers and memory is kept: it is the only
account of what was compiled that the package gives without a device.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from qdx.backends.tensorrt.engine.ahead_api import AheadBuilderConfig, IStreamWriter, TensorRtRtx
from qdx.backends.tensorrt.engine.build import add_profiles, parsed
from qdx.backends.tensorrt.engine.layer_log import HEADING, MEMORY_LINE
from qdx.backends.tensorrt.engine.log import Log, started
from qdx.backends.tensorrt.engine.package import tensorrt
from qdx.backends.tensorrt.recipe import BuildRecipe
from qdx.backends.tensorrt.versions import version_of
from qdx.exporter.errors import (
    InternalError,
    Refusal,
    StorageError,
    TargetRefusal,
    UsageError,
    quoted,
)

__all__ = ["Compiled", "compile_engine", "kept_messages"]

_LAYERS: Final = f"{HEADING}\n"
"""How the message begins that lists them."""
_PIECE_BYTES: Final = 1 << 24


@dataclass(frozen=True)
class Compiled:
    """What compiling gave, beside the two files.

    Attributes:
        version: Of the builder, all numbers of it.
        size_bytes: The engine's size.
        sha256: Its digest.
        layers_sha256: Digest of what the builder logged of it.
        warnings: What the builder warned of, each once, with how often it did.
        build_s: How long it took, in seconds.
    """

    version: str
    size_bytes: int
    sha256: str
    layers_sha256: str
    warnings: tuple[str, ...]
    build_s: float


def compile_engine(model: Path, recipe: BuildRecipe, engine: Path, layers: Path) -> Compiled:
    """Compiles a model by a recipe.

    Args:
        model: The ONNX file, its weights beside it.
        recipe: Of TensorRT-RTX.
        engine: Where the engine is written; there is no such file.
        layers: Where the log of its layers is written; likewise.

    Raises:
        InvalidBundle: The recipe's profiles do not fit the model.
        RuntimeMissing: TensorRT-RTX is not installed, or not of a supported version.
        StorageError: The disk refused.
        TargetRefusal: TensorRT-RTX refuses the model, with the nodes where it names them.
        UsageError: The installed version is not one of the recipe's.
    """
    flavour = recipe.builder
    trt = cast("TensorRtRtx", tensorrt(flavour))
    if version_of(trt.__version__) not in recipe.version_range:
        raise UsageError(
            f"{flavour.title} {trt.__version__} is installed, the recipe is for {recipe.version_range}",
            hint="install a version of that range, or export again for this one",
        )
    kept: list[str] = []
    log = Log(flavour.title, listener=lambda text: kept.append(text) if _is_kept(text) else None)
    logger = log.logger(trt)
    builder = started(trt.Builder, logger, log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    # The parser's memory holds the weights that the network refers to: it lives until the build is done.
    parser = parsed(trt, network, logger, model, flavour.title)
    config = builder.create_builder_config()
    _configure(trt, config, recipe)
    add_profiles(builder, config, network, recipe, model.name)
    start = time.monotonic()
    sink = _Sink(_created(engine))
    try:
        built = builder.build_serialized_network_to_stream(network, config, _writer(trt, sink))
    finally:
        sink.close()
    del parser
    if sink.fault is not None:
        raise _unwritten(engine, sink.fault) from sink.fault
    if not built:
        reason = log.reason()
        raise TargetRefusal(
            f"{quoted(model.name)}: {flavour.title} built no engine: {reason}",
            refusals=tuple(Refusal(model.name, text) for text in log.errors),
        )
    return Compiled(
        trt.__version__,
        sink.size_bytes,
        sink.digest.hexdigest(),
        _write_layers(layers, kept, flavour.title),
        _counted(log),
        time.monotonic() - start,
    )


def kept_messages(messages: list[str]) -> bytes:
    """The text that is stored of a log: the messages about layers and memory as they were logged, a line feed behind each."""
    return "".join(f"{text}\n" for text in messages if _is_kept(text)).encode()


def _is_kept(text: str) -> bool:
    return text.startswith(_LAYERS) or MEMORY_LINE.fullmatch(text) is not None


def _configure(trt: TensorRtRtx, config: AheadBuilderConfig, recipe: BuildRecipe) -> None:
    """Sets every option that a recipe of TensorRT-RTX may have; TF32 is off where it does not ask for it."""
    if recipe.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if recipe.weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    # Without it the log does not tell which layers were compiled, and nothing could be audited.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = len(recipe.compute_capabilities)
    for index, text in enumerate(recipe.compute_capabilities):
        name = f"SM{text.replace('.', '')}"
        member = trt.ComputeCapability.__members__.get(name)
        if member is None or not config.set_compute_capability(member, index):
            raise UsageError(
                f"TensorRT-RTX {trt.__version__} compiles no engines for compute capability {text}",
                hint="install a later version",
            )


class _Sink:
    """Takes an engine: bytes go to the file and into the digest.

    Attributes:
        digest: Of what was written.
        size_bytes: How much was written.
        fault: Why the disk refused; None where it did not.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self.fault: OSError | None = None

    def take(self, data: bytes) -> int:
        """Returns how many bytes were written; none where the disk refuses, which the builder takes for a failure."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), _PIECE_BYTES):
                self._file.write(view[start : start + _PIECE_BYTES])
        except OSError as bad:
            self.fault = bad
            return 0
        self.digest.update(view)
        self.size_bytes += len(view)
        return len(view)

    def close(self) -> None:
        """Writes what was not yet written."""
        try:
            self._file.close()
        except OSError as bad:
            self.fault = self.fault or bad


def _writer(trt: TensorRtRtx, sink: _Sink) -> IStreamWriter:
    """A writer for the builder."""

    def write(own: Any, data: bytes) -> int:
        del own
        return sink.take(data)

    # The base class exists only once the package is imported.
    made: IStreamWriter = type("EngineWriter", (trt.IStreamWriter,), {"write": write})()
    return made


def _created(path: Path) -> BinaryIO:
    """A file that was not there."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as bad:
        raise _unwritten(path, bad) from bad


def _write_layers(path: Path, kept: list[str], title: str) -> str:
    """Writes what is kept of the log; returns its digest."""
    if not any(text.startswith(_LAYERS) for text in kept):
        raise InternalError(f"{title} logged no layers of the engine that it built")
    data = kept_messages(kept)
    try:
        with _created(path) as file:
            file.write(data)
    except OSError as bad:
        raise _unwritten(path, bad) from bad
    return hashlib.sha256(data).hexdigest()


def _counted(log: Log) -> tuple[str, ...]:
    """Warnings, each once, in order."""
    counts: dict[str, int] = {}
    for line in log.lines:
        text = line.text.strip()
        counts[text] = counts.get(text, 0) + 1
    return tuple(
        text if count == 1 else f"{text} ({count} times)" for text, count in counts.items()
    )


def _unwritten(path: Path, bad: OSError) -> StorageError:
    return StorageError(
        f"{quoted(path)}: cannot be written, {bad.strerror or bad}",
        hint="free some space, or choose an output on another disk",
    )
