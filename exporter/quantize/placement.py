"""Where quantizers stand and with which numbers: what a target's rules make of a resolved plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = [
    "ActivationQuantization",
    "Placement",
    "SitePlacement",
    "TimestepGroups",
    "WeightQuantization",
]


@dataclass(frozen=True)
class TimestepGroups:
    """Scales that depend on the timestep, in one graph with constant quantizers.

    The activation is divided by its group's ratio before the constant quantizer, and the operation's
    result is multiplied by it before the bias is added.

    Attributes:
        boundaries: Timesteps in falling order; group i holds those in (boundaries[i], boundaries[i - 1]].
            One fewer than there are groups.
        ratios: Each group's scale over the reference scale.
        bounds: For each group the least and greatest integer that may occur, for fewer bits than the
            dtype has; empty for the dtype's own.
    """

    boundaries: tuple[float, ...]
    ratios: tuple[float, ...]
    bounds: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ActivationQuantization:
    """The quantizer of one activation, one scale for the whole tensor.

    Attributes:
        dtype: `int8` or `uint8`.
        scale: float32 value.
        zero_point: In the dtype's range.
        bounds: The least and greatest integer that may occur, for simulated dtypes of fewer bits; None
            for the dtype's own.
        groups: Scales by timestep; None for one scale.
        token: The scale is computed at run time for each token, max|x| / 127; `scale` is then 1.
    """

    dtype: str
    scale: float
    zero_point: int
    bounds: tuple[int, int] | None = None
    groups: TimestepGroups | None = None
    token: bool = False


@dataclass(frozen=True)
class WeightQuantization:
    """The quantizer of one weight.

    Attributes:
        dtype: `int8`, `uint8`, `int4`, `uint4` or `float8_e4m3fn`.
        granularity: `tensor`, `channel` or `block`.
        axis: Dimension of output channels (`channel`) or the one that blocks divide (`block`).
        block: Elements of a block along `axis`; 0 for the others.
        symmetric: The zero point is zero (the middle for unsigned dtypes).
        observer: `minmax` or `mse`.
        reduce_range: Seven bits instead of eight, for processors whose pair sums saturate.
    """

    dtype: str
    granularity: str = "channel"
    axis: int = 0
    block: int = 0
    symmetric: bool = True
    observer: str = "minmax"
    reduce_range: bool = False


@dataclass(frozen=True)
class SitePlacement:
    """The quantizers around one operation.

    Attributes:
        key: The site.
        inputs: Quantizer of inputs by argument index.
        weight: Quantizer of the weight.
        output: Quantizer of the result, for runtimes whose kernels want one.
        smoothing: Factors by which each input channel of the weight is multiplied and the activation
            divided; empty for none.
    """

    key: str
    inputs: Mapping[int, ActivationQuantization] = field(
        default_factory=lambda: MappingProxyType({})
    )
    weight: WeightQuantization | None = None
    output: ActivationQuantization | None = None
    smoothing: tuple[float, ...] = ()


@dataclass(frozen=True)
class Placement:
    """The quantizers of one graph.

    Attributes:
        where: `unet.forward`.
        sites: In the graph's order; a site that is not listed stays float.
    """

    where: str
    sites: tuple[SitePlacement, ...]
