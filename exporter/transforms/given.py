"""Weights that another tool has quantized, as a transform of recipes: integers, scales and tables are taken as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from pydantic import Field

from qdx.exporter.errors import InternalError, UsageError, quoted
from qdx.exporter.formats.given import GivenWeight, check_parts, part_name, values_of
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from qdx.exporter.formats.rounding import NEAREST
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.transforms.stored_quantizers import StoredWeight
from qdx.exporter.transforms.transform import Choice, Given, Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["TakeGiven", "check_taken", "likeness_db"]

_HOW = ("dtype", "granularity", "axis", "block", "symmetric", "group", "lut_dtype")
"""What must be the same in the plan and in what is given; how a range is chosen does not matter any more."""


class _Stored(StoredRecord):
    tool: Annotated[str, Field(min_length=1, max_length=64)]
    weights: dict[Key, StoredWeight] = Field(min_length=1)

    def tensor_names(self) -> Iterable[str]:
        return (
            _name(weight, suffix)
            for weight, stored in self.weights.items()
            for suffix in _suffixes(stored.quantization())
        )


@dataclass(frozen=True)
class TakeGiven(Transform):
    """Gives weights the parts that another tool has made of them.

    Attributes:
        tool: Whose they are.
        weights: Quantizers by the weight's qualified name.
        parts: Stored parts, by `weight.part`.
    """

    kind: ClassVar[str] = "given"
    Stored: ClassVar[type[StoredRecord]] = _Stored

    tool: str
    weights: Mapping[str, WeightQuantization]
    parts: Tensors = field(default_factory=dict, repr=False)

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Takes what is given for the graph's weights.

        Raises:
            UsageError: The plan stores such a weight otherwise, the parts do not fit it, or they are of another model.
        """
        given = None if choice.given is None else choice.given.weights.get(graph.component)
        if not given:
            return None
        assert choice.given is not None
        assert choice.placement is not None
        asked = {placed.key: placed.weight for placed in choice.placement.sites}
        rounded = {
            one.key: one.quantized_weights.rounding
            for one in choice.resolved.quantized(graph.where)
            if one.quantized_weights is not None
        }
        found: dict[str, GivenWeight] = {}
        for site in find_sites(graph):
            if site.weight is None or site.weight not in given:
                continue
            one, quantization = given[site.weight], asked.get(site.key)
            where = f"{graph.component}.{site.key}"
            _check_asked(where, quantization, one.quantization)
            if rounded.get(site.key, NEAREST) != NEAREST:
                raise UsageError(
                    f"{quoted(where)}: the plan rounds it by {quoted(rounded[site.key])}, and it is given rounded",
                    hint="take the plan that was written with the file of weights",
                )
            try:
                check_parts(graph.weights[site.weight].shape, one.quantization, one.parts)
            except ValueError as bad:
                raise UsageError(f"{quoted(where)}: given weights do not fit: {bad}") from None
            _check_alike(where, likeness_db(one, graph.weights[site.weight]))
            found[site.weight] = one
        if not found:
            return None
        return cls(
            choice.given.tool,
            {name: one.quantization for name, one in found.items()},
            {
                _name(name, suffix): part
                for name, one in found.items()
                for suffix, part in one.parts.items()
            },
        )

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        editor = ProgramEditor(graph)
        for name, quantization in self.weights.items():
            if name not in graph.weights:
                raise InternalError(f"`{graph.where}`: no weight `{name}`")
            known = graph.weights[name]
            parts = {suffix: self.parts[_name(name, suffix)] for suffix in _suffixes(quantization)}
            check_parts(known.shape, quantization, parts)
            editor.set_parameter(name, replace(known, given=parts))
        return editor.finish()

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        weights = {
            name: {key: getattr(one, key) for key in _HOW} for name, one in self.weights.items()
        }
        return {"tool": self.tool, "weights": weights}

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Transform`."""
        return dict(self.parts)

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`; the parts are checked once the weights' shapes are known."""
        weights = {name: one.quantization() for name, one in stored.weights.items()}
        return cls(stored.tool, weights, tensors)


def likeness_db(one: GivenWeight, weight: LazyWeight) -> float:
    """Signal to noise of a given weight against the model's, in decibels.

    Zeros have 0 dB, and a weight of another model about -3: as much power again as the error of zeros.

    Args:
        one: The given weight.
        weight: The model's, of the same shape.
    """
    return sqnr_db(weight.read(torch.float32), values_of(one))


def check_taken(graph: Graph, given: Given | None) -> None:
    """Refuses weights that are given for a graph of which the plan quantizes nothing.

    Raises:
        UsageError: Names the first.
    """
    weights = {} if given is None else given.weights.get(graph.component, {})
    for site in find_sites(graph) if weights else ():
        if site.weight is not None and site.weight in weights:
            _check_asked(f"{graph.component}.{site.key}", None, weights[site.weight].quantization)


def _check_asked(where: str, asked: WeightQuantization | None, given: WeightQuantization) -> None:
    if asked is None:
        raise UsageError(
            f"{quoted(where)}: the plan stores it as floats, and it is given as {given.dtype}",
            hint="take the plan that was written with the file of weights",
        )
    for key in _HOW:
        one, other = getattr(asked, key), getattr(given, key)
        if one != other:
            raise UsageError(
                f"{quoted(where)}: the plan says {key} {quoted(one)}, and it is given with {quoted(other)}",
                hint="take the plan that was written with the file of weights",
            )


def _check_alike(where: str, found_db: float) -> None:
    if not found_db > 0:
        raise UsageError(
            f"{quoted(where)}: the given weight has {found_db:.1f} dB against the model's, and zeros would have 0",
            hint="it was made of another model; give what was made of this one",
        )


def _suffixes(quantization: WeightQuantization) -> tuple[str, ...]:
    return format_of(quantization.dtype).suffixes(quantization)


def _name(weight: str, suffix: str) -> str:
    return f"{weight}.{part_name(suffix)}"
