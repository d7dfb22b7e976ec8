"""The acceptance test that a plan carries. A bound that it leaves unsaid has a default, or is None and the target's choice.

Defaults are those of the preset `w8a8`. A level that is left out is judged where every plan has it (components and finished
pictures); the others are absent.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from qdx.exporter.measure.metrics.metric import Level
from qdx.exporter.plan.schema.metric_gates import MetricGates
from qdx.exporter.plan.schema.model import Decibels, PlanModel, Ratio

__all__ = [
    "AskedComponentGates",
    "AskedGates",
    "AskedLoweringGates",
    "AuditGates",
    "ComponentGates",
    "ConditioningGates",
    "CoverageGates",
    "Gates",
    "LoweringGates",
    "PipelineGates",
]


class AskedComponentGates(MetricGates):
    """Bounds for each component, on the inputs that the reference pipeline gives it.

    Attributes:
        sqnr_db_min: Least signal-to-quantization-noise ratio of every output of every call against
            the float32 reference, in decibels:
            10 log10(sum(reference^2) / sum((output - reference)^2)). None leaves it to the target.
    """

    level: ClassVar[Level] = "component"

    sqnr_db_min: Decibels | None = None


class ComponentGates(AskedComponentGates):
    """The same with everything said."""

    sqnr_db_min: Decibels


class PipelineGates(MetricGates):
    """Bounds for the finished pictures, same seed and same prompt.

    Attributes:
        psnr_db_min: Least peak signal-to-noise ratio against the reference picture, in decibels; 20 where left out.
        ssim_min: Least structural similarity against the reference picture, from 0 to 1; 0.7 where left out.
        score_drop_max: Greatest mean loss of the score that the user's own function gives pictures, from
            0 to 1, where 0.01 is one point of a hundred; None for no such gate.
    """

    level: ClassVar[Level] = "pipeline"
    psnr_db_min: Decibels = 20
    ssim_min: Ratio = 0.7
    score_drop_max: Ratio | None = None


class AskedLoweringGates(MetricGates):
    """Bounds for the artifact against the quantized model itself, computed in PyTorch.

    Attributes:
        sqnr_db_min: Least signal-to-noise ratio of every output, in decibels. None leaves it to the target.
    """

    level: ClassVar[Level] = "lowering"

    sqnr_db_min: Decibels | None = None


class LoweringGates(AskedLoweringGates):
    """The same with everything said."""

    sqnr_db_min: Decibels


class ConditioningGates(PlanModel):
    """Bounds for what the prompt does: norm of (conditional - unconditional), artifact over reference.

    Attributes:
        ratio_min: Least ratio; 0.9 where left out.
        ratio_max: Greatest ratio; 1.1 where left out.
    """

    ratio_min: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.9
    ratio_max: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 1.1


class AuditGates(PlanModel):
    """Bounds for what the runtime really executes.

    Attributes:
        executed_share_min: Least share of the multiply-accumulates planned in low precision that run
            in low-precision kernels, from 0 to 1; 0.95 where left out. Where an engine was built and nothing here
            runs it, of those that were compiled for low precision.
    """

    executed_share_min: Ratio = 0.95


class CoverageGates(PlanModel):
    """What the calibration must have seen.

    Attributes:
        timesteps_share_min: Least share of the calibration's timestep groups with samples, from 0 to 1; 1 where
            left out.
        branches: `both` asks for conditional and unconditional calls where the pipeline makes both (where left out);
            `any` asks for nothing.
    """

    timesteps_share_min: Ratio = 1
    branches: Literal["both", "any"] = "both"


class AskedGates(PlanModel):
    """The acceptance test that a plan asks for.

    Attributes:
        component: Bounds for each component; left out, the target's.
        pipeline: Bounds for the finished pictures; left out, their defaults.
        lowering: Bounds for the artifact against the quantized model; None for no such gate.
        conditioning: Bounds for the effect of the prompt; None for no such gate.
        audit: Bounds for what the runtime executes; None for no such gate.
        coverage: What the calibration must have seen; None for no such gate.
    """

    component: AskedComponentGates = AskedComponentGates()
    pipeline: PipelineGates = PipelineGates()
    lowering: AskedLoweringGates | None = None
    conditioning: ConditioningGates | None = None
    audit: AuditGates | None = None
    coverage: CoverageGates | None = None


class Gates(AskedGates):
    """The acceptance test that an artifact carries: `AskedGates` with every bound said."""

    component: ComponentGates
    lowering: LoweringGates | None = None
