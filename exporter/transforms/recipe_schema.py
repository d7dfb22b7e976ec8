"""What a stored recipe may hold: the schema is closed, and every number is one that an export could write."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qdx.exporter.dtypes import DTYPES
from qdx.exporter.limits import RANGES_TENSORS_LIMIT, RANGES_TIMESTEPS_LIMIT
from qdx.exporter.plan.schema.scheme import BLOCK_FLOATS
from qdx.exporter.strict_json import dump_json

__all__ = ["FACTORS", "MEANS", "SCHEMA", "check_recipe"]

SCHEMA: Final = "qdx.recipe/1"
FACTORS: Final = "smoothing"
"""The tensor of smoothing factors, those of all sites in a row, in the order of their keys."""
MEANS: Final = "means"
"""The tensor of the means of input channels, likewise."""

Key = Annotated[str, Field(min_length=1, max_length=512)]
Positive = Annotated[float, Field(gt=0, le=torch.finfo(torch.float32).max)]
Bounds = Annotated[tuple[int, ...], Field(min_length=2, max_length=2)]
Sizes = dict[Key, Annotated[int, Field(ge=0, le=2**31)]]
WeightDtype = Literal[
    "int8",
    "uint8",
    "int4",
    "uint4",
    "float8_e4m3fn",
    "nvfp4",
    "mxfp8",
    "palette8",
    "palette6",
    "palette4",
    "palette3",
    "palette2",
    "palette1",
]
Argument = Annotated[str, Field(pattern=r"^[0-7]$")]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Groups(_Record):
    boundaries: Annotated[tuple[float, ...], Field(max_length=RANGES_TIMESTEPS_LIMIT)]
    ratios: tuple[Positive, ...]
    bounds: tuple[Bounds, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> _Groups:
        groups = len(self.boundaries) + 1
        if len(self.ratios) != groups or len(self.bounds) not in {0, groups}:
            raise ValueError(f"a ratio, and a pair of bounds if any, for each of {groups} groups")
        if not all(one > other for one, other in pairwise(self.boundaries)):
            raise ValueError("boundaries that fall")
        return self


class _Activation(_Record):
    dtype: Literal["int8", "uint8", "float8_e4m3fn", "nvfp4", "mxfp8"]
    scale: Positive
    zero_point: int
    bounds: Bounds | None = None
    groups: _Groups | None = None
    token: bool = False

    @model_validator(mode="after")
    def _check(self) -> _Activation:
        dtype = DTYPES[self.dtype]
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
        if self.token and (self.scale != 1 or self.groups is not None):
            raise ValueError("scale 1 and no groups where scales come from tokens")
        return self


class _Weight(_Record):
    dtype: WeightDtype
    granularity: Literal["tensor", "channel", "block", "grouped_channel"] = "channel"
    axis: Annotated[int, Field(ge=0, le=7)] = 0
    block: Annotated[int, Field(ge=0, le=2**20)] = 0
    symmetric: bool = True
    observer: Literal["minmax", "mse"] = "minmax"
    reduce_range: bool = False
    group: Annotated[int, Field(ge=0, le=2**20)] = 0
    lut_dtype: Literal["", "float32", "float16", "int8"] = ""

    @model_validator(mode="after")
    def _check(self) -> _Weight:
        palette = self.dtype.startswith("palette")
        block = BLOCK_FLOATS.get(self.dtype)
        if block is not None and (self.block, self.axis) != (block, 1):
            raise ValueError(f"blocks of {block} along axis 1 for {self.dtype}")
        if (self.granularity == "block") != (self.block > 0):
            raise ValueError("a block size where there are blocks, and only there")
        if (self.granularity == "grouped_channel") != (self.group > 0):
            raise ValueError("a group size where there are groups, and only there")
        if palette != (self.lut_dtype != "") or (palette and not self.symmetric):
            raise ValueError("a type of values for palettes, and no zero point")
        if palette and self.granularity in {"channel", "block"}:
            raise ValueError("a palette's table for the tensor or for groups of channels")
        if self.group and not palette:
            raise ValueError("groups of channels for palettes alone")
        return self


class _Site(_Record):
    key: Key
    inputs: dict[Argument, _Activation] = Field(default_factory=dict)
    weight: _Weight | None = None
    output: _Activation | None = None


class _Placement(_Record):
    where: Key
    sites: Annotated[tuple[_Site, ...], Field(max_length=RANGES_TENSORS_LIMIT)]

    @model_validator(mode="after")
    def _check(self) -> _Placement:
        if len({site.key for site in self.sites}) != len(self.sites):
            raise ValueError("each site once")
        return self

    @property
    def by_timestep(self) -> bool:
        quantizers = (each for site in self.sites for each in (*site.inputs.values(), site.output))
        return any(each is not None and each.groups is not None for each in quantizers)


class _TimeTable(_Record):
    input: Key
    timesteps: Annotated[tuple[float, ...], Field(min_length=1, max_length=RANGES_TIMESTEPS_LIMIT)]

    @model_validator(mode="after")
    def _check(self) -> _TimeTable:
        if not all(one < other for one, other in pairwise(self.timesteps)):
            raise ValueError("timesteps that rise")
        return self


class _Recipe(_Record):
    schema_version: Literal["qdx.recipe/1"] = Field(alias="schema")
    opened: Annotated[tuple[Key, ...], Field(max_length=RANGES_TENSORS_LIMIT)]
    placement: _Placement
    smoothing: Sizes = Field(default_factory=dict)
    means: Sizes = Field(default_factory=dict)
    time_table: _TimeTable | None = None
    timestep_input: Key | None = None

    @model_validator(mode="after")
    def _check(self) -> _Recipe:
        if self.placement.by_timestep != (self.timestep_input is not None):
            raise ValueError("a timestep_input where scales depend on the timestep, and only there")
        return self


def check_recipe(data: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses what no export writes.

    Args:
        data: The JSON of a recipe.
        tensors: Its tensors by name.

    Raises:
        ValueError: Naming the first fault.
    """
    try:
        # Lists become tuples only where the input counts as JSON.
        _Recipe.model_validate_json(dump_json(dict(data)))
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the recipe"
        words = first["msg"].replace("Value error, ", "expected ")
        raise ValueError(f"{place}: {words}") from None
    sizes = {name: sum(data.get(name, {}).values()) for name in (FACTORS, MEANS) if data.get(name)}
    if differing := sorted(sizes.keys() ^ tensors.keys()):
        which = "is missing" if differing[0] in sizes else "is not expected"
        raise ValueError(f"tensor {differing[0]} {which}")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != (sizes[name],):
            raise ValueError(
                f"tensor {name} is {tensor.dtype} {list(tensor.shape)}, expected float32 [{sizes[name]}]"
            )
        least = 0.0 if name == FACTORS else -float("inf")
        if not bool((torch.isfinite(tensor) & (tensor > least)).all()):
            raise ValueError(f"tensor {name} holds numbers that none can have")
