"""The acceptance test: which gates a plan's contract makes of the measurements."""

from __future__ import annotations

from collections.abc import Iterable

from qdx.exporter.plan.schema import Gates
from qdx.verify.components import MethodResult
from qdx.verify.gates import Gate, at_least
from qdx.verify.metrics import worst_of
from qdx.verify.picture import PipelineResult

__all__ = ["component_gates", "gates_of", "pipeline_gates"]


def gates_of(
    contract: Gates,
    methods: tuple[MethodResult, ...],
    other_methods: tuple[MethodResult, ...] | None,
    pipeline: PipelineResult,
) -> tuple[Gate, ...]:
    """Every gate, in order: the components, the same at the second shape, the finished pictures.

    Args:
        contract: The plan's bounds.
        methods: Results at the first shape.
        other_methods: Results at the second shape; None for an artifact of static shapes.
        pipeline: The finished pictures.
    """
    bound = contract.component.sqnr_db_min
    gates = list(component_gates("", methods, bound))
    if other_methods is not None:
        gates += component_gates("other_shape.", other_methods, bound)
    return (*gates, *pipeline_gates(contract, pipeline))


def component_gates(prefix: str, methods: Iterable[MethodResult], bound: float) -> tuple[Gate, ...]:
    """One gate for each component, on its worst call; it needs a measurement of every method."""
    components: dict[str, list[MethodResult]] = {}
    for result in methods:
        components.setdefault(result.component, []).append(result)
    if not components:
        return (at_least(f"{prefix}components.sqnr_db", None, bound, note="nothing was compared"),)
    return tuple(
        _component_gate(f"{prefix}{name}.sqnr_db", results, bound)
        for name, results in components.items()
    )


def _component_gate(name: str, results: list[MethodResult], bound: float) -> Gate:
    unmeasured = next((result.error for result in results if not result.calls), None)
    if unmeasured is not None:
        return at_least(name, None, bound, note=unmeasured)
    calls = [(result, call) for result in results for call in result.calls]
    value = worst_of(call.sqnr_db for _, call in calls)
    note = next((f"{r.method}, call {c.index}: {c.error}" for r, c in calls if c.error), "")
    return at_least(name, value, bound, note=note)


def pipeline_gates(contract: Gates, pipeline: PipelineResult) -> tuple[Gate, ...]:
    """Gates on what the pipeline makes. Structural similarity is asked of pictures only."""
    bounds, error = contract.pipeline, pipeline.error
    gates = [at_least("pipeline.psnr_db", pipeline.psnr_db, bounds.psnr_db_min, note=error)]
    if pipeline.ssim is not None:
        gates.append(at_least("pipeline.ssim", pipeline.ssim, bounds.ssim_min, note=error))
    return tuple(gates)
