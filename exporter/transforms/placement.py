"""Where quantizers stand and with which numbers: what a target's rules make of a resolved plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from qdx.exporter.dtypes import number_type
from qdx.exporter.formats.quantization import WeightQuantization

__all__ = [
    "ActivationQuantization",
    "Placement",
    "SitePlacement",
    "TimestepGroups",
    "compact",
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

    Floats in blocks have scales of their own, computed at run time.

    Attributes:
        dtype: `int8`, `uint8`, `float8_e4m3fn`, `nvfp4` or `mxfp8`.
        scale: float32 value; 1 for `mxfp8`.
        zero_point: In the dtype's range.
        bounds: The least and greatest integer that may occur, for simulated dtypes of fewer bits; None
            for the dtype's own.
        groups: Scales by timestep; None for one scale.
        token: The scale is computed at run time for each token, max|x| / 127; `scale` is then 1.
        peak: With `token`: a token is divided by max|x| alone, and `scale` is 1 / 127. Sixteen bits hold max|x| exactly,
            and its 127th part not at all where it is small.
    """

    dtype: str
    scale: float
    zero_point: int
    bounds: tuple[int, int] | None = None
    groups: TimestepGroups | None = None
    token: bool = False
    peak: bool = False

    @property
    def block_floats(self) -> bool:
        """Whether it is a format of floats in blocks."""
        return bool(number_type(self.dtype).block)


@dataclass(frozen=True)
class SitePlacement:
    """The quantizers around one operation.

    Attributes:
        key: The site.
        inputs: Quantizer of inputs by argument index.
        weight: Quantizer of the weight.
        output: Quantizer of the result, for runtimes whose kernels want one; it stands right behind the
            operation, before timestep groups or tokens scale the result and the bias is added.
    """

    key: str
    inputs: Mapping[int, ActivationQuantization] = field(
        default_factory=lambda: MappingProxyType({})
    )
    weight: WeightQuantization | None = None
    output: ActivationQuantization | None = None

    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data, without what is left at its default."""
        data: dict[str, Any] = {"key": self.key}
        if self.inputs:
            data["inputs"] = {str(i): compact(each) for i, each in self.inputs.items()}
        for name, each in (("weight", self.weight), ("output", self.output)):
            if each is not None:
                data[name] = compact(each)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SitePlacement:
        """What `to_json` wrote."""
        return cls(
            key=str(data["key"]),
            inputs={int(i): _activation(each) for i, each in data.get("inputs", {}).items()},
            weight=WeightQuantization(**data["weight"]) if "weight" in data else None,
            output=_activation(data["output"]) if "output" in data else None,
        )


@dataclass(frozen=True)
class Placement:
    """The quantizers of one graph.

    Attributes:
        where: `unet.forward`.
        sites: In the graph's order; a site that is not listed stays float.
    """

    where: str
    sites: tuple[SitePlacement, ...]

    @property
    def by_timestep(self) -> bool:
        """Whether a scale depends on the timestep."""
        quantizers = (each for site in self.sites for each in (*site.inputs.values(), site.output))
        return any(each is not None and each.groups is not None for each in quantizers)


def compact(value: ActivationQuantization | WeightQuantization) -> dict[str, Any]:
    """A dataclass as JSON data without its defaults."""
    defaults = {f.name: f.default for f in fields(value)}
    found = {name: each for name, each in asdict(value).items() if each != defaults[name]}
    return {name: _listed(each) for name, each in found.items()}


def _listed(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {name: _listed(each) for name, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def _activation(data: Mapping[str, Any]) -> ActivationQuantization:
    groups = data.get("groups")
    bounds = data.get("bounds")
    return ActivationQuantization(
        dtype=str(data["dtype"]),
        scale=float(data["scale"]),
        zero_point=int(data["zero_point"]),
        bounds=None if bounds is None else (int(bounds[0]), int(bounds[1])),
        groups=None if groups is None else _groups(groups),
        token=bool(data.get("token", False)),
        peak=bool(data.get("peak", False)),
    )


def _groups(data: Mapping[str, Any]) -> TimestepGroups:
    return TimestepGroups(
        tuple(float(each) for each in data["boundaries"]),
        tuple(float(each) for each in data["ratios"]),
        tuple((int(low), int(high)) for low, high in data.get("bounds", ())),
    )
