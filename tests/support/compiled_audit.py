"""An audit of an engine that was built and not run, made by hand."""

from __future__ import annotations

from typing import Any

from qdx.backends.compiled import Attention, Compiled
from qdx.backends.contract import KernelExecution, Proof, Way
from qdx.verification.measure.audit import AuditPart, AuditResult, Downgrade
from qdx.verification.report.model import Report
from tests.support.full_report import full_report

PROOF = Proof(
    "engine-built",
    "ONNX Runtime 1.32.0",
    "what the engines compute, whose kernels are chosen on the device",
    compiled="compiled for int8 operands by TensorRT-RTX 1.7.1.116 for 8.9, not run",
)


def engine(ways: dict[str, Way], *, overflowing: tuple[str, ...] = ()) -> Compiled:
    """An engine whose quantized sites were compiled in some ways."""
    executions = tuple(
        KernelExecution(f"{key}_myl0", "gemm", "int8" if way == "native" else "float16", (key,),
                        compiled=way)
        for key, way in ways.items()
    )  # fmt: skip
    return Compiled(
        "TensorRT-RTX 1.7.1.116",
        "8.9",
        3 << 20,
        executions,
        frozenset(ways),
        (Attention("attn1", fused=True, kernel="kgen gemm_mha_v2"),
         Attention("attn2", fused=False, kernel="kgen MaxrSubExpSumDivMul")),
        {"gemm": 43, "kgen": 200},
        2 << 20,
        1 << 20,
        1 << 19,
        overflowing,
    )  # fmt: skip


def compiled_report(**more: Any) -> Report:
    """A full report of a bundle for TensorRT-RTX that was verified without a device."""
    parts = {
        ("down.0", "conv"): AuditPart(80, 80, 0, {"native": 80}),
        ("down.0", "attn.q"): AuditPart(15, 15, 0, {"native": 10, "weights_in_memory": 5}),
        ("mid", "time_embed"): AuditPart(4, 0, 0, {"weights_in_product": 4}),
        ("mid", "first"): AuditPart(1, 0, 0),
    }
    slow = (
        Downgrade(
            "unet.forward", "down.0.to_q", 5, "compiled as `gemm` in float16: dequantized to memory"
        ),
    )
    built = engine(
        {
            "conv": "native",
            "down.0.to_k": "native",
            "down.0.to_q": "weights_in_memory",
            "time": "weights_in_product",
        }
    )
    audit = AuditResult(
        "unet", 100, 95, 0, 0, None, slow, parts=parts, engines={"unet.forward": built},
        compiled_macs=90,
        way_macs={"native": 90, "weights_in_product": 4, "weights_in_memory": 5, "float": 0},
    )  # fmt: skip
    given = {"proof": PROOF, "audits": (audit,), "target": "rtx-ada", "runtime": "tensorrt-rtx"}
    return full_report(**{**given, **more})
