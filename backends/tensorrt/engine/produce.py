"""Makes the engine of a component: the model checked, built by the recipe beside it, and recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import onnx_ir as ir

from qdx.backends.capabilities import Built
from qdx.backends.tensorrt.engine.build import BuiltEngine, build_engine
from qdx.backends.tensorrt.engine.package import (
    compute_capability,
    device_name,
    installed_version,
)
from qdx.backends.tensorrt.engine.record import ENGINE_NAME, LAYERS_NAME, RECORD_NAME, EngineRecord
from qdx.backends.tensorrt.lint import DeviceFacts, Finding, Severity, lint
from qdx.backends.tensorrt.model_file import read_model
from qdx.backends.tensorrt.recipe import RECIPE_NAME, BuildRecipe, parse_recipe, shape_faults
from qdx.backends.tensorrt.versions import Version, VersionRange
from qdx.exporter.errors import (
    InvalidBundle,
    Refusal,
    StorageError,
    TargetRefusal,
    quoted,
)
from qdx.exporter.files import read_bytes, safe_child, sha256_file
from qdx.exporter.graph.ir.graph import TensorSpec
from qdx.exporter.limits import JSON_LIMIT_BYTES

__all__ = ["check_model", "digests", "lint_file", "produce_engine", "read_recipe", "write_record"]

_CHUNK_BYTES: Final = 1 << 24


def read_recipe(folder: Path) -> BuildRecipe:
    """Reads the recipe in a component's folder.

    Raises:
        InvalidBundle: There is none, or it is malformed.
        StorageError: If reading fails.
    """
    path = safe_child(folder, RECIPE_NAME, error=InvalidBundle)
    data = read_bytes(path, JSON_LIMIT_BYTES, error=InvalidBundle)
    return parse_recipe(data, source=str(path))


def produce_engine(
    folder: Path, output: Path, *, timing_cache: bytes = b"", device: int = 0
) -> Built:
    """Builds the engine of a component for a device at hand, and records it.

    Args:
        folder: With the model, its weights and `build.json`.
        output: Where the engine and `engine.json` are written; exists, may be the same folder.
        timing_cache: Of an earlier build on this version and device; empty to measure anew.
        device: Number of the device.

    Returns:
        The record, the timing cache for the next build, and what TensorRT warned of, which may name what is on
        this machine and is therefore not recorded.

    Raises:
        InvalidBundle: The recipe is missing, malformed or does not fit the model.
        RuntimeMissing: TensorRT or the device is missing.
        StorageError: The disk refused.
        TargetRefusal: The model breaks a rule, or TensorRT refuses it.
        UsageError: The timing cache is for another version or device.
    """
    import torch

    recipe = read_recipe(folder)
    full, version = installed_version()
    capability, name = compute_capability(device), device_name(device)
    model = safe_child(folder, recipe.model, error=InvalidBundle)
    check_model(model, recipe, version, capability)
    sources = digests(folder)
    with torch.cuda.device(device):
        built = build_engine(model, recipe, timing_cache=timing_cache)
    size_bytes, digest = _write_plan(built, output / ENGINE_NAME)
    record = EngineRecord(
        size_bytes=size_bytes,
        sha256=digest,
        tensorrt=full,
        compute_capability=capability,
        device=name,
        sources=sources,
        recipe=recipe,
        timing_cache_sha256=hashlib.sha256(timing_cache).hexdigest() if timing_cache else None,
        build_s=round(built.build_s, 3),
    )
    write_record(output / RECORD_NAME, record)
    return Built(record, built.timing_cache, tuple(line.text for line in built.log))


def check_model(
    model: Path, recipe: BuildRecipe, version: Version, capability: tuple[int, int] | None
) -> None:
    """Checks a recipe against its model, and the model's rules for one version and one device, before a build spends minutes.

    Raises:
        InvalidBundle: A profile of the recipe does not fit the model's inputs, or the file is no ONNX model.
        TargetRefusal: With each rule that is broken; warnings are none.
    """
    facts = DeviceFacts(VersionRange(version), capability, recipe.refit == "any", recipe.builder)
    loaded = read_model(model)
    faults = shape_faults(recipe, [_spec(value) for value in loaded.graph.inputs])
    if faults:
        raise InvalidBundle(
            f"{quoted(model.with_name(RECIPE_NAME))}: {'; '.join(faults)}",
            hint="give each open input of the model, and no other, its shapes in every profile",
        )
    broken = [f for f in lint(loaded, facts) if f.severity is Severity.ERROR]
    if broken:
        raise TargetRefusal(
            f"{quoted(model.name)}: breaks {len(broken)} rules of {recipe.builder.title} {version}",
            refusals=tuple(Refusal(f.node, f"{f.rule}: {f.message}", f.hint) for f in broken),
            hint="export again for this version and device",
        )


def lint_file(model: Path, facts: DeviceFacts) -> tuple[Finding, ...]:
    """Checks a file against every rule; its weights are not read.

    Raises:
        InvalidBundle: It is missing, or no ONNX model.
    """
    return lint(read_model(model), facts)


def _spec(value: ir.Value) -> TensorSpec:
    """An input of a model; open sizes by their names."""
    if value.dtype is None or value.shape is None:
        raise InvalidBundle(
            f"input {quoted(value.name)} of the ONNX model has no type or shape",
            hint="export again",
        )
    sizes = (size if isinstance(size, int) else str(size.value) for size in value.shape)
    return TensorSpec(value.name or "", value.dtype.numpy().name, tuple(sizes))


def digests(folder: Path) -> dict[str, str]:
    """Digests of all that lies beside the recipe, but of engines."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return {
        name: sha256_file(safe_child(folder, name, error=InvalidBundle), error=InvalidBundle)
        for name in names
        if name not in {ENGINE_NAME, LAYERS_NAME, RECORD_NAME}
    }


def _write_plan(built: BuiltEngine, path: Path) -> tuple[int, str]:
    """Writes an engine piece by piece; returns its size and its digest."""
    plan = memoryview(built.plan).cast("B")
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for start in range(0, len(plan), _CHUNK_BYTES):
                piece = plan[start : start + _CHUNK_BYTES]
                digest.update(piece)
                file.write(piece)
    except OSError as bad:
        raise _refused(path, bad) from bad
    return len(plan), digest.hexdigest()


def write_record(path: Path, record: EngineRecord) -> None:
    """Writes the record of an engine.

    Raises:
        StorageError: The disk refused.
    """
    try:
        path.write_bytes(record.to_json())
    except OSError as bad:
        raise _refused(path, bad) from bad


def _refused(path: Path, bad: OSError) -> StorageError:
    return StorageError(
        f"{quoted(path)}: cannot be written, {bad.strerror or bad}",
        hint="free some space, or choose an output on another disk",
    )
