"""The log that lies beside an engine: what it was compiled for, told without a device.

The log counts only with the files that it is about: the engine, the model, its weights and the recipe have the digests that
the record holds, and so has the log itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.backends.compiled import Attention, Compiled
from qdx.backends.tensorrt.engine.compiled import compiled_model
from qdx.backends.tensorrt.engine.layer_log import parse_layer_log
from qdx.backends.tensorrt.engine.record import (
    LAYERS_NAME,
    check_engine,
    read_layers,
    read_record,
)
from qdx.backends.tensorrt.lint import Finding, Severity
from qdx.backends.tensorrt.model_file import read_model
from qdx.backends.tensorrt.recipe import RECIPE_NAME, parse_recipe
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.files import read_bytes, safe_child
from qdx.exporter.limits import JSON_LIMIT_BYTES

if TYPE_CHECKING:
    from qdx.backends.tensorrt.engine.compiled import CompiledModel
    from qdx.backends.tensorrt.engine.record import EngineRecord

__all__ = ["compiled_engine", "compiled_words", "logged_faults", "stored_model"]

_RAW_SUM: Final = "raw-sum"
"""The rule of the same name looks for it in the file; this is the same fault, as the builder compiled it."""
_RAW_SUM_SAYS: Final = (
    "its engine keeps the sum of 8-bit products in float16 before it multiplies by the scales of the weight; the sum "
    "overflows beyond 65504"
)
_RAW_SUM_HINT: Final = "export again: the weight then has one scale, and what channels have of it multiplies the result"


def compiled_engine(folder: Path) -> Compiled:
    """What the engine of a component's folder was compiled for.

    Raises:
        InvalidBundle: The engine, the log, the model, its weights or the recipe is missing or another one than on record,
            or the log is malformed or does not account for an operation.
        StorageError: If reading fails.
    """
    record = read_record(folder)
    found = stored_model(folder, record)
    return Compiled(
        built_by=f"{record.recipe.builder.title} {record.tensorrt}",
        built_for=record.facts()["compute_capability"],
        size_bytes=record.size_bytes,
        executions=found.executions(),
        quantized=frozenset(key for one in found.products if one.quantized for key in one.sites),
        attentions=tuple(Attention(one.name, one.fused, one.kernel) for one in found.attentions),
        layers=found.kinds,
        weights_bytes=found.log.weights_bytes,
        activation_bytes=found.log.activation_bytes,
        scratch_bytes=found.log.scratch_bytes,
        overflowing=found.overflowing,
    )


def compiled_words(engines: Sequence[Compiled]) -> str:
    """What engines were compiled for, by what and for which devices; and how much of what is quantized, if not all.

    >>> compiled_words([engine])
    'compiled for int8 operands in 70 of 112 quantized operations by TensorRT-RTX 1.7.1.116 for 7.5, not run'
    """
    every = [one for engine in engines for one in engine.executions if one.compiled is not None]
    native = dict.fromkeys(one.precision for one in every if one.compiled == "native")
    types = native or dict.fromkeys(one.precision for one in every)
    built = dict.fromkeys(f"{one.built_by} for {one.built_for}" for one in engines)
    operands = f"for {' and '.join(types)} operands " if types else ""
    ways = [way for engine in engines for way in engine.ways.values()]
    kept = ways.count("native")
    part = f"in {kept} of {len(ways)} quantized operations " if 0 < kept < len(ways) else ""
    return f"compiled {operands}{part}by {' and '.join(built)}, not run"


def logged_faults(folder: Path, known: Iterable[Finding]) -> tuple[Finding, ...]:
    """What the log shows that no engine may do; raises like `compiled_engine`.

    Args:
        folder: With an engine.
        known: What the model file was found to break; it is not said twice.
    """
    said = {(one.rule, one.node) for one in known}
    return tuple(
        Finding(_RAW_SUM, Severity.ERROR, one.node, _RAW_SUM_SAYS, _RAW_SUM_HINT)
        for one in stored_model(folder, read_record(folder)).products
        if one.overflows and (_RAW_SUM, one.node) not in said
    )


def stored_model(folder: Path, record: EngineRecord) -> CompiledModel:
    """The model of a folder joined with the stored log of its build; raises like `compiled_engine`."""
    check_engine(folder, record)
    recipe = safe_child(folder, RECIPE_NAME, error=InvalidBundle)
    data = read_bytes(recipe, JSON_LIMIT_BYTES, error=InvalidBundle)
    if parse_recipe(data, source=str(recipe)) != record.recipe:
        raise InvalidBundle(
            f"{quoted(recipe)}: another recipe than the one on record",
            hint="build the engine again with `qdx build --force`",
        )
    source = str(folder / LAYERS_NAME)
    log = parse_layer_log(read_layers(folder, record), source=source)
    model = safe_child(folder, record.recipe.model, error=InvalidBundle)
    return compiled_model(read_model(model), log, source=source)
