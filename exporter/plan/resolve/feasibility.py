"""What resolving asks of a target, and what a target answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from qdx.exporter.formats.rounding import NEAREST
from qdx.exporter.plan.schema.choices import Choices
from qdx.exporter.plan.schema.scheme import Inputs, Weights

__all__ = ["Offer", "PlanTarget", "Request", "Support", "computed_in"]

Support = Literal["float", "native", "decomposed", "simulated", "stored", "refused"]
"""What a target makes of a site.

`float`: computed in the target's float type. `native`: the target's own low-precision kernel.
`decomposed`: low precision, from several of its operations. `simulated`: the values are those of
the low precision, computed in a wider type. `stored`: weights are stored in low precision and
computed as floats. `refused`: the target cannot.
"""


@dataclass(frozen=True)
class Request:
    """One operation in low precision.

    Attributes:
        op: `conv2d`, `linear`, `qk`, `pv` and the like.
        weights: Scheme of its weight; None where it has none.
        inputs: Scheme of its inputs; None where they stay float.
        by_timestep: The inputs have scales that depend on the timestep.
        reduced: Size of the dimension that blocks of weights divide; 0 without a weight.
        macs: Multiply-accumulates of one call, the same for both products of an attention.
        head: Channels of a head of attention; 0 for other operations.
        storage: Type of the component's float weights.
        keys: Keys that each query of an attention meets; 0 for other operations.
        kernel: Numbers that a convolution reads of each channel; 0 for other operations.
    """

    op: str
    weights: Weights | None
    inputs: Inputs | None
    by_timestep: bool = False
    reduced: int = 0
    macs: int = 0
    head: int = 0
    storage: str = "float32"
    keys: int = 0
    kernel: int = 0

    @property
    def has_whole_channels(self) -> bool:
        """Whether a block of its weight holds all that an output channel reads."""
        return (
            self.weights is not None
            and self.weights.block is not None
            and self.weights.block == self.reduced
        )

    def __str__(self) -> str:
        """`linear with int4 weights (block 32) and int8 inputs (token)`."""
        parts = []
        if self.weights is not None:
            scheme = self.weights
            extra = f" ({_detail(scheme)})" if scheme.quantized else ""
            parts.append(f"{scheme.dtype} weights{extra}")
        if self.inputs is None:
            parts.append("float inputs")
        else:
            detail = "timestep groups" if self.by_timestep else self.inputs.granularity
            asymmetric = "" if self.inputs.symmetric else ", asymmetric"
            parts.append(f"{self.inputs.dtype} inputs ({detail}{asymmetric})")
        return f"{self.op} with {' and '.join(parts)}"


def _detail(scheme: Weights) -> str:
    """What shares a scale or table, and what is uncommon about it."""
    shared = f"groups of {scheme.group} channels" if scheme.group else scheme.granularity
    marks = (
        f"block {scheme.block}" if scheme.block else shared,
        f"{scheme.lut_dtype} values" if scheme.lut_dtype else "",
        "" if scheme.symmetric else "asymmetric",
        "" if scheme.rounding == NEAREST else f"rounding {scheme.rounding}",
        "" if scheme.low_rank is None else f"low rank {scheme.low_rank.rank}",
        "" if scheme.rotate is None else f"rotated by {scheme.rotate.block}",
    )
    return ", ".join(filter(None, marks))


@dataclass(frozen=True)
class Offer:
    """What a target makes of a request.

    Attributes:
        form: How it is carried out; `refused` where it is not.
        why: The reason in words.
        stored: Type that holds the weights, where it is wider than the asked one.
        slower: Why it is no faster than the float operation; None where it is faster.
        scales: Type that holds scales of weights: `float32`, or `storage` for that of the component's float
            weights.
    """

    form: Support
    why: str
    stored: str | None = None
    slower: str | None = None
    scales: Literal["float32", "storage"] = "float32"


class PlanTarget(Protocol):
    """What resolving needs to know of a target."""

    @property
    def name(self) -> str:
        """The target's name."""

    @property
    def storage_dtypes(self) -> tuple[str, ...]:
        """Float types in which weights can be stored."""

    @property
    def compute_dtype(self) -> str:
        """Type in which operations run that are not quantized; `storage` for that of a component's weights."""

    @property
    def refused(self) -> Mapping[str, str]:
        """For types that cannot be stored, the reason."""

    @property
    def refused_options(self) -> Mapping[str, str]:
        """For options of a plan that it cannot carry out, the reason."""

    @property
    def quantizers(self) -> tuple[str, ...]:
        """Quantizers that can make its artifacts."""

    @property
    def choices(self) -> Choices:
        """What it chooses of all that plans leave unsaid."""

    def offer(self, request: Request) -> Offer:
        """Says what the target makes of an operation in low precision."""


def computed_in(target: PlanTarget, storage_dtype: str) -> str:
    """The type in which a target runs what is not quantized of a component with these float weights."""
    return storage_dtype if target.compute_dtype == "storage" else target.compute_dtype
