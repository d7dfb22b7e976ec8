"""In which precisions a bundle's operations are, counted from what it records of every site."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdx.exporter.plan.resolve.feasibility import Support

if TYPE_CHECKING:
    from qdx.bundle.resolution import OutcomeRecord, ResolvedRecord

__all__ = ["Operations", "Precision", "operations_of"]


@dataclass(frozen=True)
class Precision:
    """The precision of some operations.

    Attributes:
        weights: Type of the weight; None where there is none.
        stored: The type that holds it in the artifact, where that is wider; else None.
        inputs: Types of the inputs, in the order of the timesteps where they depend on them; empty for floats.
        form: What the target makes of it.
    """

    weights: str | None
    stored: str | None
    inputs: tuple[str, ...]
    form: Support


@dataclass(frozen=True)
class Operations:
    """The operations of a component.

    Attributes:
        total: How many multiply or add, and could be in low precision; norms and the like are not among them.
        quantized: How many of each precision are quantized, the most frequent first.
    """

    total: int
    quantized: tuple[tuple[Precision, int], ...]


def operations_of(record: ResolvedRecord, component: str) -> Operations:
    """Returns how many operations of a component, in all its methods, are in which precision."""
    counts: Counter[Precision] = Counter()
    total = 0
    for where, sites in record.sites.items():
        if where.partition(".")[0] != component:
            continue
        for index in sites.values():
            outcome = record.outcomes[index]
            precision = _quantized(outcome)
            total += precision is not None or outcome.asked_inputs is not None
            if precision is not None:
                counts[precision] += 1
    return Operations(total, tuple(counts.most_common()))


def _quantized(outcome: OutcomeRecord) -> Precision | None:
    """The precision of an operation of which anything is quantized; None of another."""
    weights = outcome.weights
    narrow = weights is not None and weights.quantized
    inputs = tuple(dict.fromkeys(one.scheme.dtype for one in outcome.inputs))
    if outcome.form in {"float", "refused"} or not (narrow or inputs):
        return None
    stored = outcome.stored_dtype if narrow else ""
    return Precision(
        None if weights is None else weights.dtype,
        stored if stored and weights is not None and stored != weights.dtype else None,
        inputs,
        outcome.form,
    )
