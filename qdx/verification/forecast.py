"""What a verification of a quantized bundle is about to take, said before the long part begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from qdx.backends.capabilities import CompilesLate
from qdx.backends.registry import get_backend
from qdx.exporter.errors import QdxError
from qdx.verification.measure.outlook import (
    UNKNOWN,
    MethodWork,
    Outlook,
    is_large,
    memory_bytes,
)
from qdx.verification.measure.quantized import has_unoptimized
from qdx.verification.measure.rungs import ARTIFACT

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.exporter.progress import Progress
    from qdx.verification.measure.audit import AuditResult
    from qdx.verification.measure.quantized import QuantizedModel
    from qdx.verification.measure.reference_runs import Reference
    from qdx.verification.measure.samples import RunSpec

__all__ = ["outlook_of"]


def outlook_of(
    bundle: Bundle,
    quantized: QuantizedModel,
    audits: Sequence[AuditResult],
    reference: Reference,
    specs: Sequence[RunSpec],
    progress: Progress,
) -> Outlook:
    """What a verification of a quantized bundle is about to take; says it.

    Raises:
        InsufficientMemory: There is not as much.
    """
    macs = quantized.macs
    if not is_large(macs):
        return UNKNOWN
    try:
        steps_of = reference.steps_of(specs[0])
    except QdxError as error:  # the run itself may do better, or say it
        progress.say(f"verifying: takes a time that cannot be estimated: {error.message}")
        return UNKNOWN
    fresh = sum(reference.kept(spec) is None for spec in specs)
    works = {
        where: MethodWork(
            macs=macs[where],
            steps=steps,
            runs=len(specs),
            recorded=sum(steps) * fresh,
            quantized=where in quantized.quantized,
            unoptimized=where in quantized.quantized and has_unoptimized(bundle, where),
        )
        for where, steps in steps_of.items()
        if where in macs
    }
    backend = get_backend(bundle.manifest.target.runtime)
    held_bytes = memory_bytes(
        quantized.graphs,
        quantized.quantized,
        _artifacts_bytes(bundle),
        compiled_ratio=backend.compiled_ratio if isinstance(backend, CompilesLate) else None,
        weights_bytes=reference.converted_bytes if fresh else 0,
        shapes=2 if bundle.manifest.shapes == "dynamic" else 1,
    )
    outlook = Outlook(works, held_bytes, progress)
    outlook.begin()
    for audit in audits:
        for where, call_s in audit.call_s.items():
            outlook.measured(ARTIFACT, where, call_s)
    return outlook


def _artifacts_bytes(bundle: Bundle) -> dict[str, int]:
    """Of the files of each artifact, weights and all, by `component.method`."""
    return {
        f"{name}.{method}": sum(
            file.size_bytes
            for file in bundle.manifest.files
            if PurePosixPath(file.path).is_relative_to(entry.opened)
        )
        for name, component in bundle.manifest.components.items()
        for method, entry in component.methods.items()
    }
