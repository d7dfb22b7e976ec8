"""Reports of made-up measurements, judged as those of real ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.contract import Proof
from qdx.exporter.plan import load_plan, resolve
from qdx.exporter.plan.schema.gates import ComponentGates
from qdx.targets import load_target
from qdx.verification.judge.evaluate import gates_of
from qdx.verification.measure.components import CallResult, MethodResult
from qdx.verification.measure.picture import OutputResult, PipelineResult
from qdx.verification.report.model import Report

if TYPE_CHECKING:
    from qdx.exporter.plan.schema.gates import Gates
    from qdx.verification.judge.gates import Gate

CONTRACT: Final = resolve(load_plan("float16"), ["unet"], load_target("openvino")).gates
GOOD_PICTURE: Final = PipelineResult(
    {"images": OutputResult("pictures", {"psnr_db": 60.0, "ssim": 0.99})}
)


def call_result(index: int, sqnr_db: float, error: str = "") -> CallResult:
    """A call with some SQNR."""
    values = {"sqnr_db": sqnr_db, "psnr_db": sqnr_db + 10, "cosine": 1.0, "max_abs_err": 0.001}
    return CallResult(index, values, error)


def report_of(
    methods: Iterable[MethodResult] = (), *, contract: Gates = CONTRACT, **more: Any
) -> Report:
    """A report, judged.

    Args:
        methods: Results at the first shape.
        contract: The plan's gates.
        more: Other attributes of the report.
    """
    given: dict[str, Any] = {
        "bundle": "shapes-openvino",
        "target": "openvino",
        "runtime": "openvino",
        "proof": Proof("artifact-verified", "an <interpreter>", "the device's kernels"),
        "plan": "float16",
        "seed": 0,
        "steps": 20,
        "call": {"prompt": "a red circle"},
        "other_methods": None,
        "pipeline": GOOD_PICTURE,
        "versions": {"torch": "2.13.0", "openvino": "2026.4"},
        **more,
    }
    report = Report(contract=contract, gates=(), methods=tuple(methods), **given)
    return replace(report, gates=gates_of(contract, report.stored))


def component_gates(methods: Iterable[MethodResult], least_db: float) -> tuple[Gate, ...]:
    """The gates on the components alone, of a plan that asks for some SQNR."""
    contract = CONTRACT.model_copy(update={"component": ComponentGates(sqnr_db_min=least_db)})
    gates = report_of(methods, contract=contract).gates
    return tuple(gate for gate in gates if not gate.name.startswith("pipeline."))


def pipeline_gates(pipeline: PipelineResult) -> tuple[Gate, ...]:
    """The gates on the finished pictures alone."""
    gates = report_of(pipeline=pipeline).gates
    return tuple(gate for gate in gates if gate.name.startswith("pipeline."))
