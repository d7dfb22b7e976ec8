"""Kernels of a target as data: which precisions an operation runs in, and how."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field, Strict, model_validator

from qdx.exporter.formats.registry import weight_dtypes
from qdx.exporter.plan.resolve.feasibility import Offer, Request
from qdx.exporter.plan.schema.model import OneOf
from qdx.exporter.plan.schema.scheme import FloatDtype, InputsDtype, TableDtype
from qdx.exporter.strict_model import StrictModel

__all__ = ["Kernel", "offer_of", "reached"]

# TOML has lists only; they are taken as tuples.
_Loose = Strict(strict=False)
Operations = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], ...], _Loose, Field(min_length=1)
]
WeightsDtypes = Annotated[
    tuple[Annotated[str, OneOf(lambda: (*weight_dtypes(), "none"))], ...],
    _Loose,
    Field(min_length=1),
]
WeightsGranularities = Annotated[
    tuple[Literal["tensor", "channel", "block", "grouped_channel"], ...],
    _Loose,
    Field(min_length=1),
]
TableDtypes = Annotated[tuple[TableDtype, ...], _Loose, Field(min_length=1)]
InputsDtypes = Annotated[tuple[InputsDtype, ...], _Loose, Field(min_length=1)]
InputsGranularities = Annotated[
    tuple[Literal["tensor", "token", "block", "timestep"], ...], _Loose, Field(min_length=1)
]


class Kernel(StrictModel):
    """One row of the table. A column that is left out holds for everything.

    Attributes:
        op: Operations.
        weights: Types of the weight; `none` for operations without one, float types for one that
            is not quantized.
        weight_granularity: What shares a scale or the table of the weight.
        weight_symmetric: Whether the weight is symmetric.
        weight_tables: Types of the values of palettes.
        whole_blocks: Blocks must divide the dimension that the operation reduces.
        inputs: Types of the inputs; `float32` where they are not quantized.
        input_granularity: What shares a scale of the inputs; `timestep` for groups of timesteps.
        input_symmetric: Whether the inputs are symmetric.
        whole_channels: Blocks are as long as a channel of the weight, so that there is one scale for each.
        kernel_limit: The most numbers that a convolution reads of each channel.
        head_multiple: What must divide the channels of attention's heads.
        head_limit: The most channels of a head.
        heads: Channels of a head, one by one.
        keys_least: The fewest keys that each query meets.
        keys_limit: The most keys.
        storage: Types of the component's float weights.
        stored: Type that holds the weight, where it is wider than the asked one.
        scales: Type that holds scales of weights: `float32`, or `storage` for that of the component's float
            weights.
        form: What the target makes of it.
        why: The reason in words.
        slower: Why it is no faster than the float operation, as measured; None where it is faster.
        slower_below_macs: What `slower` says holds below this number of multiply-accumulates alone.
    """

    op: Operations
    weights: WeightsDtypes | None = None
    weight_granularity: WeightsGranularities | None = None
    weight_symmetric: bool | None = None
    weight_tables: TableDtypes | None = None
    whole_blocks: bool = False
    whole_channels: bool = False
    kernel_limit: Annotated[int, Field(ge=1)] | None = None
    inputs: InputsDtypes | None = None
    input_granularity: InputsGranularities | None = None
    input_symmetric: bool | None = None
    head_multiple: Annotated[int, Field(ge=1)] = 1
    head_limit: Annotated[int, Field(ge=1)] | None = None
    heads: (
        Annotated[tuple[Annotated[int, Field(ge=1)], ...], _Loose, Field(min_length=1)] | None
    ) = None
    keys_least: Annotated[int, Field(ge=0)] = 0
    keys_limit: Annotated[int, Field(ge=1)] | None = None
    storage: Annotated[tuple[FloatDtype, ...], _Loose, Field(min_length=1)] | None = None
    stored: Literal["int8", "uint8"] | None = None
    scales: Literal["float32", "storage"] = "float32"
    form: Literal["native", "decomposed", "simulated", "stored", "refused"]
    why: Annotated[str, Field(min_length=1)]
    slower: Annotated[str, Field(min_length=1)] | None = None
    slower_below_macs: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _limit_has_a_reason(self) -> Kernel:
        if self.slower_below_macs is not None and self.slower is None:
            raise ValueError("`slower_below_macs` without `slower`, the reason")
        return self

    def offer(self, request: Request) -> Offer:
        """What the row says of a request that it carries."""
        limit = self.slower_below_macs
        slower = self.slower if limit is None or request.macs < limit else None
        return Offer(self.form, self.why, self.stored, slower, self.scales)

    def carries(self, request: Request) -> bool:
        """Whether the row speaks of a request."""
        return (
            request.op in self.op
            and self._carries_attention(request)
            and _within(request.kernel, self.kernel_limit)
            and _holds(self.storage, request.storage)
            and self._carries_weights(request)
            and self._carries_inputs(request)
        )

    def covers(self, other: Kernel) -> bool:
        """Whether the row speaks of every request of which another one does, so that the other, after it, decides nothing."""
        return (
            set(other.op) <= set(self.op)
            and other.head_multiple % self.head_multiple == 0
            and _reaches(self.head_limit, other.head_limit)
            and (self.heads is None or set(other.heads or (0,)) <= set(self.heads))
            and other.keys_least >= self.keys_least
            and _reaches(self.keys_limit, other.keys_limit)
            and _reaches(self.kernel_limit, other.kernel_limit)
            and (not self.whole_blocks or other.whole_blocks)
            and (not self.whole_channels or other.whole_channels)
            and self.weight_symmetric in {None, other.weight_symmetric}
            and self.input_symmetric in {None, other.input_symmetric}
            and all(_includes(getattr(self, column), getattr(other, column)) for column in _COLUMNS)
        )

    def _carries_attention(self, request: Request) -> bool:
        return (
            request.head % self.head_multiple == 0
            and _within(request.head, self.head_limit)
            and (self.heads is None or request.head in self.heads)
            and request.keys >= self.keys_least
            and _within(request.keys, self.keys_limit)
        )

    def _carries_weights(self, request: Request) -> bool:
        scheme = request.weights
        if scheme is None or not scheme.quantized:
            dtype = "none" if scheme is None else scheme.dtype
            # What is not quantized has no scale that a column could speak of.
            unscaled = self.weight_granularity is None and self.weight_tables is None
            return _holds(self.weights, dtype) and unscaled
        if self.whole_blocks and scheme.block and request.reduced % scheme.block:
            return False
        if self.whole_channels and not request.has_whole_channels:
            return False
        return (
            _holds(self.weights, scheme.dtype)
            and _holds(self.weight_granularity, scheme.granularity)
            and (self.weight_tables is None or scheme.lut_dtype in self.weight_tables)
            and self.weight_symmetric in {None, scheme.symmetric}
        )

    def _carries_inputs(self, request: Request) -> bool:
        scheme = request.inputs
        if scheme is None:
            return _holds(self.inputs, "float32") and self.input_granularity is None
        granularity = "timestep" if request.by_timestep else scheme.granularity
        return (
            _holds(self.inputs, scheme.dtype)
            and _holds(self.input_granularity, granularity)
            and self.input_symmetric in {None, scheme.symmetric}
        )


def offer_of(kernels: Iterable[Kernel], request: Request) -> Offer:
    """Returns what the first row says that speaks of a request; a refusal where none does."""
    rows = tuple(kernels)
    for kernel in rows:
        if kernel.carries(request):
            return kernel.offer(request)
    return Offer("refused", _missing(rows, request))


def reached(kernels: Iterable[Kernel]) -> dict[int, Kernel]:
    """Returns the rows that decide something, by their numbers from 1: not those that one before them covers."""
    found: dict[int, Kernel] = {}
    for number, kernel in enumerate(kernels, 1):
        if not any(before.covers(kernel) for before in found.values()):
            found[number] = kernel
    return found


def _missing(kernels: tuple[Kernel, ...], request: Request) -> str:
    """Why no row speaks of a request."""
    weights = request.weights
    if weights is not None and weights.block and request.reduced % weights.block:
        return f"blocks of {weights.block} do not divide its {request.reduced} inputs"
    known = sorted({op for kernel in kernels for op in kernel.op})
    if request.op not in known:
        return f"only {', '.join(known)} run in low precision" if known else "nothing runs so"
    return "no kernel computes or stores this combination"


_COLUMNS: Final = (
    "weights",
    "weight_granularity",
    "weight_tables",
    "inputs",
    "input_granularity",
    "storage",
)


def _includes(column: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    return column is None or (other is not None and set(other) <= set(column))


def _within(value: int, limit: int | None) -> bool:
    return limit is None or value <= limit


def _reaches(limit: int | None, other: int | None) -> bool:
    """Whether all that is within another limit is within this one."""
    return limit is None or limit >= (other or math.inf)


def _holds(column: tuple[str, ...] | None, value: str) -> bool:
    return column is None or value in column
