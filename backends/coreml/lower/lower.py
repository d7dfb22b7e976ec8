"""A graph to a Core ML package, by coremltools' converter, one large weight in memory at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import coremltools
from coremltools.converters.mil.backend.mil.load import load
from coremltools.converters.mil.mil import Program

from qdx.backends.contract import LoweredFiles
from qdx.backends.coreml.lower.canonical import WEIGHTS_FOLDER, name_constants, write_package
from qdx.backends.coreml.lower.frontend import decomposed, translate
from qdx.backends.coreml.lower.halves import cut_package
from qdx.backends.coreml.lower.operation_names import table_of
from qdx.backends.coreml.lower.package import quiet
from qdx.backends.coreml.lower.passes import run_passes
from qdx.backends.coreml.lower.precision import Precision
from qdx.backends.coreml.lower.refuse import check_halves, check_program
from qdx.backends.site_table import SITES
from qdx.exporter.errors import StorageError
from qdx.exporter.graph.analysis.sites import sites

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import FloatTypes
    from qdx.targets.profile import TargetProfile

__all__ = ["PACKAGE", "lower"]

PACKAGE: Final = "model.mlpackage"


def lower(
    graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
) -> LoweredFiles:
    """Writes the component into `folder`, as one package or as the two of the profile's layout.

    A float16 program has float16 weights, and float16 operations or, in mixed precision, products; what computes in
    float32 never runs on the Neural Engine.

    Raises:
        StorageError: The disk refused.
        TargetRefusal: The target cannot do what the graph asks.
    """
    package = folder / PACKAGE
    weights = package / WEIGHTS_FOLDER
    try:
        weights.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"`{PACKAGE}`: {error.strerror}") from error
    specification = specification_of(profile)
    with quiet():
        graph = decomposed(graph)
        program = translate(graph, specification)
        found = sites(graph)
        precision = None
        if float_types.storage == "float16":
            precision = Precision.of(graph, found, mixed=float_types.mixed)
        run_passes(program, precision)
        name_constants(program)
        check_program(program, graph, profile)
        model = _serialized(program, specification, weights)
        write_package(model, package, {SITES: table_of(found).text})
    if not profile.layout.halves:
        return LoweredFiles(package, _files(package))
    first, second = (folder / name for name in profile.layout.halves)
    cut = cut_package(package, (first, second))
    check_halves(cut.weights_bytes, graph, profile)
    return LoweredFiles(
        first, (*_files(first), *_files(second)), notes=(f"`{graph.where}`: {cut}",)
    )


def _files(package: Path) -> tuple[Path, ...]:
    return tuple(path for path in sorted(package.rglob("*")) if path.is_file())


def specification_of(profile: TargetProfile) -> int:
    """The version of the specification that a deployment target reads."""
    assert profile.deployment_target is not None
    return int(coremltools.target[profile.deployment_target].value)


def _serialized(program: Program, specification: int, weights: Path) -> Any:
    """The specification; its weights are written into a folder on the way."""
    try:
        return load(
            program,
            weights_dir=str(weights),
            specification_version=specification,
            convert_from="pytorch",
            convert_to="mlprogram",
        )
    except (OSError, RuntimeError) as error:  # the writer of weights raises the latter
        raise StorageError(f"`{PACKAGE}`: its weights could not be written: {error}") from error
