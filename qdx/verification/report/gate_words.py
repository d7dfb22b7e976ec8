"""What gates measure, in words, and where the page shows it: one name for one measure, on every page and in every table."""

from __future__ import annotations

from typing import Final

from qdx.verification.stored.measurements import MetricHead
from qdx.verification.stored.report import StoredGate

__all__ = [
    "AGAINST_FLOAT",
    "AGAINST_GRAPH",
    "AGAINST_PREVIOUS",
    "LOWERING",
    "gate_words",
    "scale_end",
    "section_of",
]

AGAINST_FLOAT: Final = "against PyTorch"
"""A call's outputs against those of float PyTorch, of the same inputs: all errors so far."""
AGAINST_GRAPH: Final = "against the quantized graph"
"""A call's outputs against those of the quantized graph, of the same inputs. Roundings that fall to the other side travel
on through every layer behind, so that it is far below `LOWERING`."""
AGAINST_PREVIOUS: Final = "against the rung before"
"""The same against the rung before."""
LOWERING: Final = "lowering"
"""Quantizer by quantizer: each part of the artifact is fed the quantized graph's own values. The gate of that name."""

_BASELINE: Final = "baseline."
_LAST: Final = {
    "audit.executed_share": ("share of what is planned in low precision that runs so", "audit"),
    "audit.compiled_share": (
        "share of what is planned in low precision that was compiled so, and not run",
        "audit",
    ),
    "coverage.timesteps_share": ("share of the denoising steps that calibration saw", "made"),
    "coverage.branches": (
        "calibration saw the branches of guidance that the plan asks for",
        "made",
    ),
    "conditioning.ratio_min": ("least strength of guidance, artifact over reference", "guidance"),
    "conditioning.ratio_max": (
        "greatest strength of guidance, artifact over reference",
        "guidance",
    ),
    "pipeline.score_drop": ("mean loss of the score", "runs"),
}


def gate_words(gate: StoredGate, metrics: dict[str, MetricHead]) -> str:
    """What a gate measures.

    >>> gate_words(lowering_gate, metrics)
    'unet.forward: SQNR of lowering, quantizer by quantizer, worst place of the worst call'
    """
    name = gate.name.removeprefix(_BASELINE)
    words = _measure_words(name, metrics)
    return words if name == gate.name else f"{words}: no worse than in the baseline"


def _measure_words(name: str, metrics: dict[str, MetricHead]) -> str:
    name, other = _without_shape(name)
    where, last = _split(name)
    if last in _LAST:
        return f"{where}: {_LAST[last][0]}" if where else _LAST[last][0]
    *_, metric = last.split(".")
    label = metric
    if metric in metrics:
        unit = metrics[metric].own_unit
        label = f"{metrics[metric].label} in {unit}" if unit else metrics[metric].label
    if ".lowering." in f".{name}" and where:
        words = f"{label} of lowering, quantizer by quantizer, worst place of the worst call"
    elif where == "pipeline":
        where, words = "finished picture", f"{label} {AGAINST_FLOAT}, worst run"
    else:
        words = f"{label} {AGAINST_FLOAT}, worst call"
    return f"{where}: {words}{', at the second shape' if other else ''}"


def section_of(gate: StoredGate) -> str:
    """The part of the page that shows what a gate measures."""
    name, other = _without_shape(gate.name.removeprefix(_BASELINE))
    where, last = _split(name)
    if last in _LAST:
        return _LAST[last][1]
    if other:
        return "other-shape"
    if where == "pipeline":
        return "pictures"
    return "lowering" if "lowering" in last else "components"


def scale_end(gate: StoredGate) -> float | None:
    """Where a gate's scale ends by itself; None where it has no end."""
    last = gate.name.rpartition(".")[2]
    return 1.0 if last.endswith("share") or last in {"ssim", "cosine", "branches"} else None


def _without_shape(name: str) -> tuple[str, bool]:
    prefix = "other_shape."
    return name.removeprefix(prefix), name.startswith(prefix)


def _split(name: str) -> tuple[str, str]:
    """`unet.forward` and `lowering.sqnr_db`; `pipeline` and `psnr_db`."""
    for last in _LAST:
        if name == last or name.endswith(f".{last}"):
            return name.removesuffix(last).removesuffix("."), last
    parts = name.split(".")
    if "lowering" in parts:
        place = parts.index("lowering")
        return ".".join(parts[:place]), ".".join(parts[place:])
    return ".".join(parts[:-1]), parts[-1]
