"""Makes the engine of a component with TensorRT-RTX, for devices that need not be here, and records it.

The builder runs in a process of its own: where it crashes, that is a refusal, and what it takes of memory it gives back.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from qdx.backends.capabilities import Built
from qdx.backends.tensorrt.engine.produce import digests, read_recipe, write_record
from qdx.backends.tensorrt.engine.record import ENGINE_NAME, LAYERS_NAME, RECORD_NAME, EngineRecord
from qdx.backends.tensorrt.flavour import Flavour
from qdx.backends.tensorrt.model_file import read_model
from qdx.backends.tensorrt.recipe import BuildRecipe
from qdx.backends.tensorrt.versions import Version, version_of
from qdx.exporter.child import ChildEnded, KeptChild
from qdx.exporter.errors import InvalidBundle, Refusal, TargetRefusal, quoted
from qdx.exporter.files import safe_child

__all__ = ["BUILDER", "builder_version", "produce_ahead"]

BUILDER: Final = KeptChild("qdx.backends.tensorrt.engine.ahead_worker")
"""The process that compiles engines."""
_LARGE_BYTES: Final = 1 << 28
"""Behind an engine of this size the process ends: what its libraries keep of such a build is worth more than a start."""


def builder_version(flavour: Flavour) -> tuple[str, Version]:
    """The version of the builder, in full and in short.

    Raises:
        RuntimeMissing: It is not installed, or not of a supported version.
        TargetRefusal: It ends as it is imported.
    """
    try:
        full = str(BUILDER.ask({"flavour": flavour.name})["version"])
    except ChildEnded as ended:
        raise TargetRefusal(
            f"{flavour.title} {ended} while it was imported",
            hint=f'pip install --force-reinstall "{flavour.distribution}{flavour.supported}"',
        ) from ended
    return full, version_of(full)


def produce_ahead(folder: Path) -> Built:
    """Compiles the engine of a component by its recipe and writes it, its record and the log of its layers beside it.

    Args:
        folder: With the model, its weights and `build.json`.

    Returns:
        The record, no timing cache, and what the builder warned of.

    Raises:
        InvalidBundle: The recipe is missing, malformed or does not fit the model.
        RuntimeMissing: TensorRT-RTX is not installed.
        StorageError: The disk refused.
        TargetRefusal: TensorRT-RTX refuses the model, or ended while it built the engine.
    """
    recipe = read_recipe(folder)
    model = safe_child(folder, recipe.model, error=InvalidBundle)
    sources = digests(folder)
    with _removed_on_failure(folder):
        made = _compiled(folder, model, recipe)
        record = EngineRecord(
            size_bytes=made["size_bytes"],
            sha256=made["sha256"],
            flavour=recipe.flavour,
            tensorrt=made["version"],
            compute_capabilities=recipe.compute_capabilities,
            layers_sha256=made["layers_sha256"],
            sources=sources,
            recipe=recipe,
        )
        # Without the time, so that the same model gives the same files.
        write_record(folder / RECORD_NAME, record)
    if record.size_bytes > _LARGE_BYTES:
        BUILDER.close()
    timed = record.model_copy(update={"build_s": round(made["build_s"], 3)})
    return Built(timed, b"", tuple(made["warnings"]))


def _compiled(folder: Path, model: Path, recipe: BuildRecipe) -> dict[str, Any]:
    """What the process answers; a refusal names operations."""
    title = recipe.builder.title
    try:
        return BUILDER.ask(
            {
                "model": str(model.resolve()),
                "recipe": recipe.to_json().decode(),
                "engine": str((folder / ENGINE_NAME).resolve()),
                "layers": str((folder / LAYERS_NAME).resolve()),
            }
        )
    except ChildEnded as ended:
        out_of_memory = ended.signal == getattr(signal, "SIGKILL", None)
        reason = f"{title} {ended} while it built the engine"
        raise TargetRefusal(
            f"{quoted(folder.name)}: {reason}",
            refusals=(Refusal(folder.name, reason),),
            hint="most likely memory ran out: free some, or build on a machine with more"
            if out_of_memory
            else "leave the component out: name the others with --components, it then runs in PyTorch",
        ) from ended
    except TargetRefusal as refused:
        from qdx.backends.tensorrt.engine.blame import blame

        found = blame(refused.refusals, read_model(model), folder.name, recipe.builder)
        raise TargetRefusal(
            f"{quoted(folder.name)}: {refused.message}",
            refusals=found.refusals,
            hint=found.hint
            or refused.hint
            or "choose another plan for the operation, or another target",
        ) from refused


@contextlib.contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """Takes away what a build that failed, or was interrupted, has written."""
    try:
        yield
    except BaseException:
        for name in (ENGINE_NAME, LAYERS_NAME, RECORD_NAME):
            (folder / name).unlink(missing_ok=True)
        raise
