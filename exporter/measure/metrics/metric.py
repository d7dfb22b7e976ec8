"""What a metric is: one number for how far an output is from its reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from qdx.exporter.measure.metrics.summaries import worst_of
from qdx.exporter.measure.metrics.tensors import are_comparable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OUTPUT_KINDS", "Level", "Metric", "OutputKind", "measure"]

Level = Literal["component", "lowering", "pipeline"]
"""Where outputs are held against a reference: a component's on the reference's own inputs; the artifact's quantizer by
quantizer against the quantized graph; the finished pictures."""
OutputKind = Literal["pictures", "sound", "values"]
"""Of a pipeline's outputs. Pictures are [batch, height, width, channels] in [0, 1], sound is in [-1, 1]."""
OUTPUT_KINDS: Final[frozenset[OutputKind]] = frozenset({"pictures", "sound", "values"})


@dataclass(frozen=True)
class Metric:
    """A distance between a reference and an output.

    Attributes:
        name: Its key in reports, such as `sqnr_db`.
        label: How tables call it.
        unit: Of its values; empty for none.
        better: Whether `more` or `less` of it is better.
        compute: Takes the reference and the output, of one shape and finite; gives a number, NaN for what is not defined.
        levels: Where it is computed.
        meaning: What it is, for the schema of plans: the rest of "Least ...".
        gate_range: Least and greatest bound that a plan may ask for; None for no greatest.
        kinds: The outputs of pipelines for which it is defined.
        scaled: Whether `compute` also takes `peak`, the width of the range of values; None stands for the reference's
            largest magnitude.
        twice: From a value to that of twice the error; None where nobody needs it.
    """

    name: str
    label: str
    unit: str
    better: Literal["more", "less"]
    compute: Callable[..., float]
    levels: frozenset[Level]
    meaning: str
    gate_range: tuple[float, float | None] = (0.0, None)
    kinds: frozenset[OutputKind] = OUTPUT_KINDS
    scaled: bool = False
    twice: Callable[[float], float] | None = None

    @property
    def end(self) -> Literal["min", "max"]:
        """The bad end of the scale: `min` where more is better."""
        return "min" if self.better == "more" else "max"

    @property
    def gate(self) -> str:
        """The key of its bound in a plan, such as `sqnr_db_min`."""
        return f"{self.name}_{self.end}"

    def worst(self, values: Iterable[float]) -> float:
        """The worst of several values; NaN if one of them is NaN or if there are none."""
        return worst_of(values, min if self.better == "more" else max)


def measure(
    metrics: Iterable[Metric], reference: Tensor, output: Tensor, *, peak: float | None = None
) -> dict[str, float]:
    """The values of several metrics by name, NaN for bad data whatever a metric makes of it.

    Args:
        metrics: Which.
        reference: Any shape; any dtype but complex.
        output: The same shape.
        peak: Width of the range of values; None where nobody declares one.
    """
    comparable = are_comparable(reference, output)
    found = {}
    for metric in metrics:
        more = {"peak": peak} if metric.scaled else {}
        value = float(metric.compute(reference, output, **more)) if comparable else math.nan
        found[metric.name] = value if math.isfinite(value) else math.nan
    return found
