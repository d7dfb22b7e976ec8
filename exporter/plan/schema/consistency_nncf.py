"""Contradictions between a plan and NNCF, which takes settings and no rules for single operations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.exporter.plan.schema.fault import Fault, KeyPath
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import SITE_KEYS
from qdx.exporter.plan.schema.settings import Nncf

__all__ = ["nncf_faults"]

_ACTIVATION_KEYS: Final = ("preset", "model_type", "smooth_quant_alpha", "fast_bias_correction")
_WEIGHT_KEYS: Final = ("weights", "group_size", "ratio")


def nncf_faults(plan: Plan) -> Iterator[Fault]:
    """Yields what cannot be handed to NNCF, and settings of NNCF that nothing reads."""
    if plan.quantizer == "qdx":
        if plan.nncf is not None:
            yield Fault(("nncf",), "`nncf` without quantizer `nncf`",
                        'add `"quantizer": "nncf"`, or leave `nncf` out')  # fmt: skip
        return
    if plan.nncf is None:
        yield Fault(("quantizer",), "quantizer `nncf` without `nncf`",
                    'say what it does, such as `"nncf": {"mode": "ptq"}`')  # fmt: skip
    else:
        yield from _settings(plan.nncf)
    yield from _rules(plan)
    if plan.calibration.branches != "both":
        yield Fault(("calibration", "branches"),
                    f"the {plan.calibration.branches} branch alone with quantizer `nncf`",
                    "NNCF takes whole calls, in which both branches can be one batch")  # fmt: skip
    if plan.gates.lowering is not None:
        yield Fault(("gates", "lowering"), "`lowering` with quantizer `nncf`",
                    "it needs the quantized model in PyTorch, and NNCF quantizes the artifact")  # fmt: skip
    for key in ("smoothing", "bias_correction"):
        if getattr(plan.options, key):
            yield Fault(("options", key), f"`{key}` with quantizer `nncf`",
                        "NNCF has settings of its own: `nncf.smooth_quant_alpha`, "
                        "`nncf.fast_bias_correction`")  # fmt: skip


def _settings(nncf: Nncf) -> Iterator[Fault]:
    given = nncf.model_fields_set
    unread = {"ptq": _WEIGHT_KEYS, "weights": _ACTIVATION_KEYS, "hybrid": ()}[nncf.mode]
    for key in unread:
        if key in given:
            yield Fault(("nncf", key), f"`{key}` means nothing in mode `{nncf.mode}`",
                        "leave it out, or take mode `hybrid`, which reads all of them")  # fmt: skip
    if nncf.weights.startswith("int8"):
        for key in ("group_size", "ratio"):
            if key in given and key not in unread:
                yield Fault(("nncf", key), f"`{key}` means nothing for {nncf.weights}",
                            "it belongs to 4-bit weights")  # fmt: skip


def _rules(plan: Plan) -> Iterator[Fault]:
    for index, rule in enumerate(plan.rules):
        path: KeyPath = ("rules", index)
        hint = "NNCF chooses operations itself; rules give float storage of components"
        for key in (*SITE_KEYS, "timesteps"):
            if getattr(rule.select, key) is not None:
                yield Fault((*path, "select", key), f"`{key}` with quantizer `nncf`", hint)
        for part in ("weights", "inputs"):
            scheme = getattr(rule, part)
            if scheme is not None and scheme.quantized:
                yield Fault((*path, part), f"quantized {part} with quantizer `nncf`", hint)
