"""What JSON may hold of quantizers: the schema is closed, and every number is one that an export could write."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from qdx.exporter.dtypes import QUANTIZER_DTYPES, number_type
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of, quantized_dtypes
from qdx.exporter.limits import RANGES_TIMESTEPS_LIMIT
from qdx.exporter.plan.schema.model import OneOf
from qdx.exporter.transforms.transform import Key, StoredRecord

__all__ = ["StoredActivation", "StoredSite", "StoredWeight"]

Positive = Annotated[float, Field(gt=0, le=number_type("float32").maximum)]
Bounds = Annotated[tuple[int, ...], Field(min_length=2, max_length=2)]
WeightDtype = Annotated[str, OneOf(quantized_dtypes)]
ActivationDtype = Annotated[str, OneOf(lambda: QUANTIZER_DTYPES)]
Argument = Annotated[str, Field(pattern=r"^[0-7]$")]


class StoredGroups(StoredRecord):
    """Scales by timestep."""

    boundaries: Annotated[tuple[float, ...], Field(max_length=RANGES_TIMESTEPS_LIMIT)]
    ratios: tuple[Positive, ...]
    bounds: tuple[Bounds, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> StoredGroups:
        groups = len(self.boundaries) + 1
        if len(self.ratios) != groups or len(self.bounds) not in {0, groups}:
            raise ValueError(f"a ratio, and a pair of bounds if any, for each of {groups} groups")
        if not all(one > other for one, other in pairwise(self.boundaries)):
            raise ValueError("boundaries that fall")
        return self


class StoredActivation(StoredRecord):
    """The quantizer of one activation."""

    dtype: ActivationDtype
    scale: Positive
    zero_point: int
    bounds: Bounds | None = None
    groups: StoredGroups | None = None
    token: bool = False
    peak: bool = False

    @model_validator(mode="after")
    def _check(self) -> StoredActivation:
        dtype = number_type(self.dtype)
        if not dtype.minimum <= self.zero_point <= dtype.maximum:
            raise ValueError(f"a zero point of {dtype.minimum} to {dtype.maximum}")
        pairs = () if self.groups is None else self.groups.bounds
        for low, high in (*pairs, *([self.bounds] if self.bounds else [])):
            if not dtype.minimum <= low <= high <= dtype.maximum:
                raise ValueError(f"rising bounds within {dtype.minimum} to {dtype.maximum}")
        if dtype.is_float and (self.zero_point or self.bounds or self.groups or self.token):
            raise ValueError(f"a scale alone for {self.dtype}")
        if self.dtype == "mxfp8" and self.scale != 1:
            raise ValueError("scale 1 where scales come from blocks alone")
        if self.token and ((self.scale != 1 and not self.peak) or self.groups is not None):
            raise ValueError("scale 1 and no groups where scales come from tokens")
        if self.peak and (not self.token or self.scale >= 1):
            raise ValueError(
                "a scale below 1 for tokens that are divided by their largest magnitude"
            )
        return self


class StoredWeight(StoredRecord):
    """The quantizer of one weight."""

    dtype: WeightDtype
    granularity: Literal["tensor", "channel", "block", "grouped_channel"] = "channel"
    axis: Annotated[int, Field(ge=0, le=7)] = 0
    block: Annotated[int, Field(ge=0, le=2**20)] = 0
    symmetric: bool = True
    observer: Literal["minmax", "mse"] = "minmax"
    reduce_range: bool = False
    group: Annotated[int, Field(ge=0, le=2**20)] = 0
    lut_dtype: Literal["", "float32", "float16", "int8"] = ""
    range_factor: Annotated[float, Field(ge=0.25, le=4, allow_inf_nan=False)] = 1.0

    def quantization(self) -> WeightQuantization:
        """The quantizer that was stored."""
        return WeightQuantization(**self.model_dump())

    @model_validator(mode="after")
    def _check(self) -> StoredWeight:
        if (self.granularity == "block") != (self.block > 0):
            raise ValueError("a block size where there are blocks, and only there")
        if (self.granularity == "grouped_channel") != (self.group > 0):
            raise ValueError("a group size where there are groups, and only there")
        format_of(self.dtype).check(self.quantization())
        return self


class StoredSite(StoredRecord):
    """The quantizers around one operation."""

    key: Key
    inputs: dict[Argument, StoredActivation] = Field(default_factory=dict)
    weight: StoredWeight | None = None
    output: StoredActivation | None = None

    @property
    def by_timestep(self) -> bool:
        """Whether a scale depends on the timestep."""
        quantizers = (*self.inputs.values(), self.output)
        return any(each is not None and each.groups is not None for each in quantizers)
