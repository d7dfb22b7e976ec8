"""A report that has everything a report may have, of made-up measurements."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qdx.exporter.plan import load_plan, resolve
from qdx.exporter.plan.schema.gates import Gates
from qdx.targets import load_target
from qdx.verification.measure.audit import AuditPart, AuditResult, Downgrade
from qdx.verification.measure.components import CallResult, MethodResult
from qdx.verification.measure.conditioning import Conditioning, StepConditioning
from qdx.verification.measure.coverage import Coverage
from qdx.verification.measure.localize import Localization, SiteError
from qdx.verification.measure.lockstep import LockstepCall
from qdx.verification.measure.lockstep_runs import LockstepResult
from qdx.verification.measure.picture import compare_products
from qdx.verification.measure.rungs import ARTIFACT, QUANTIZED, UNOPTIMIZED, RungResult
from qdx.verification.measure.samples import RunResult, RunSpec, Samples
from qdx.verification.report.images import small_sheets
from qdx.verification.report.model import Report
from qdx.verification.stored.facts import StoredFacts, StoredSize, StoredTime
from tests.support.judging import report_of

STEPS: Final = 12
_UNET: Final = "unet.forward"
_LONG: Final = (
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0.a_module_with_a_long_name"
)
_PLAN: Final = load_plan("w8a8")


def contract(least_db: float) -> Gates:
    """The gates of a quantizing plan, with a bound for components."""
    gates = resolve(_PLAN, ["unet", "vae"], load_target("onnxruntime")).gates
    return gates.model_copy(
        update={"component": gates.component.model_copy(update={"sqnr_db_min": least_db})}
    )


def full_report(*, least_db: float = 20.0, worst_db: float = 25.8, **more: Any) -> Report:
    """The report.

    Args:
        least_db: The bound of the component gates.
        worst_db: The least SQNR of a call of the first run.
        more: Other attributes of the report.
    """
    noise = np.random.default_rng(0).random((1, 24, 32, 3))
    pipeline = compare_products({"images": noise}, {"images": (noise + 0.01).clip(0, 1)})
    methods = (_unet(worst_db), _vae())
    runs = tuple(
        RunResult(
            RunSpec({"prompt": "a red circle left of a blue square"}, seed),
            methods if not seed else (_unet(worst_db - 1), _vae()),
            pipeline,
            30.0 + seed,
            pictures=small_sheets(pipeline) if seed else {},
        )
        for seed in range(2)
    )
    given: dict[str, Any] = {
        "bundle": "shapes-w8a8",
        "target": "onnxruntime",
        "runtime": "onnxruntime",
        "plan": "w8a8",
        "steps": STEPS,
        "pipeline": pipeline,
        "samples": Samples(runs),
        "other_methods": methods,
        "audits": (_audit(),),
        "coverage": Coverage(1.0, "both", guided=True),
        "localization": _localization(),
        "quantized": frozenset({_UNET}),
        "lockstep": tuple(_lockstep(index) for index in (0, 5, STEPS - 1)),
        "facts": facts(),
        "bundle_plan": _PLAN.to_json(),
        "versions": {"python": "3.11.7", "qdx": "0.1.0", "torch": "2.13.0"},
        **more,
    }
    return report_of(methods, contract=contract(least_db), **given)


def facts(date: str = "2026-03-04T05:06:07Z") -> StoredFacts:
    """Facts of a verification."""
    return StoredFacts(
        date=date,
        duration_s=93.4,
        bundle_bytes=10_485_760,
        sizes={
            "unet": StoredSize(parameters=4_280_000, artifact_bytes=5_966_397),
            "vae": StoredSize(parameters=978_103, artifact_bytes=2_527_068),
            "text_encoder": StoredSize(artifact_bytes=1_950_351),
        },
        times={
            _UNET: StoredTime(reference_s=0.0348, artifact_s=0.0314, artifact_total_s=0.628),
            "vae.decode": StoredTime(artifact_s=0.0368, artifact_total_s=0.0368),
        },
    )


def _unet(worst_db: float) -> MethodResult:
    calls = []
    for index in range(STEPS):
        sqnr_db = worst_db + 1.5 * (STEPS - 1 - index)
        rungs = [
            RungResult(QUANTIZED, sqnr_db + 0.4, sqnr_db + 0.4),
            RungResult(ARTIFACT, sqnr_db, sqnr_db + 12, sqnr_db + 12),
        ]
        if index % 5 == 0:
            rungs.insert(1, RungResult(UNOPTIMIZED, sqnr_db + 0.2, sqnr_db + 13, sqnr_db + 13))
        values = {
            "sqnr_db": sqnr_db,
            "psnr_db": sqnr_db + 10,
            "cosine": 0.99871,
            "max_abs_err": 0.136,
        }
        calls.append(CallResult(index, values, "", tuple(rungs)))
    steps = tuple(StepConditioning(index, 1.0, 0.97 + 0.005 * index) for index in range(STEPS))
    return MethodResult("unet", "forward", STEPS, tuple(calls), conditioning=Conditioning(steps))


def _vae() -> MethodResult:
    values = {"sqnr_db": 134.6, "psnr_db": 136.0, "cosine": 0.9999999, "max_abs_err": 1.1e-6}
    return MethodResult("vae", "decode", 1, (CallResult(0, values),))


def _lockstep(index: int) -> LockstepCall:
    places = {"mid_block.resnets.0.conv1": {"sqnr_db": 87.4 + index}, _LONG: {"sqnr_db": 99.0}}
    return LockstepCall(_UNET, index, LockstepResult.at(places))


def _audit() -> AuditResult:
    parts = {
        ("", "first"): AuditPart(1_000_000, 0, 0),
        ("down.0", "conv"): AuditPart(60_000_000, 60_000_000, 60_000_000),
        ("down.0", "attn.q"): AuditPart(9_000_000, 9_000_000, 5_000_000),
        ("mid", "conv"): AuditPart(20_000_000, 20_000_000, 20_000_000),
        ("up.0", "ff.out"): AuditPart(8_000_000, 8_000_000, 8_000_000),
        ("up.0", "shortcut"): AuditPart(2_000_000, 0, 0),
    }
    slow = (
        Downgrade(
            _UNET, "down_blocks.0.attentions.0.to_q", 4_000_000, "`Gemm` computed it in float32"
        ),
    )
    return AuditResult("unet", 100_000_000, 97_000_000, 0, 93_000_000, 0.71, slow, parts=parts)


def _localization() -> Localization:
    sites = (
        SiteError("down_blocks.0.conv1", "conv2d", "conv", "down.0", 31.0, 31.0),
        SiteError("down_blocks.0.ff", "linear", "ff.out", "down.0", 25.2, 24.8, 33.6, 0.883),
        SiteError(_LONG, "linear", "attn.out", "up.1", 29.0, 26.0, 48.4, 0.117),
        SiteError("mid_block.conv", "conv2d", "conv", "mid", 55.0, 28.0),
    )
    return Localization(_UNET, STEPS - 1, "quantization", sites, 25.8)
