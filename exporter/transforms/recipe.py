"""A recipe: the transforms that turn one float graph into its quantized one, as a value that can be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from qdx.exporter.strict_json import dump_json
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.low_rank import SplitLowRank
from qdx.exporter.transforms.placement import Placement
from qdx.exporter.transforms.registry import TRANSFORMS
from qdx.exporter.transforms.transform import Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    import torch

    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["SCHEMA", "Recipe", "branched", "prepared", "quantized_graph", "unbranched"]

SCHEMA: Final = "qdx.recipe/2"
_KIND: Final = "transform"
"""The key of a stored transform that tells its kind."""

_T = TypeVar("_T", bound=Transform)


class _Stored(StoredRecord):
    schema_version: Literal["qdx.recipe/2"] = Field(alias="schema")
    where: Key
    transforms: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=64)]


@dataclass(frozen=True)
class Recipe:
    """How one graph is quantized; it needs neither the plan nor the ranges any more.

    Attributes:
        where: The graph, `unet.forward`.
        transforms: In the order in which they are applied, one of each kind at most: first those that prepare the
            float graph for quantizers, then those that quantize.
    """

    where: str
    transforms: tuple[Transform, ...]

    def find(self, kind: type[_T]) -> _T | None:
        """The transform of a kind; None without one."""
        return next((one for one in self.transforms if isinstance(one, kind)), None)

    @property
    def placement(self) -> Placement:
        """The quantizers; without sites where the graph stays float."""
        inserted = self.find(InsertQuantizers)
        return Placement(self.where, () if inserted is None else inserted.sites)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON data, without its tensors."""
        return {
            "schema": SCHEMA,
            "where": self.where,
            "transforms": [{_KIND: one.kind, **one.to_json()} for one in self.transforms],
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors under the names by which `from_json` knows them."""
        return {
            _tensor_name(one.kind, name): tensor
            for one in self.transforms
            for name, tensor in one.tensors().items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], tensors: Tensors) -> Recipe:
        """The recipe that `to_json` and `tensors` stored.

        Raises:
            ValueError: They did not, or a value is one that no export writes.
        """
        stored = _checked(_Stored, data, "")
        kinds = {kind.kind: kind for kind in TRANSFORMS}
        found: dict[str, tuple[type[Transform], StoredRecord]] = {}
        for index, part in enumerate(stored.transforms):
            place = f"transforms.{index}"
            kind = part.get(_KIND)
            if not isinstance(kind, str) or kind not in kinds or kind in found:
                raise ValueError(
                    f"{place}.{_KIND}: expected each of {', '.join(kinds)} at most once"
                )
            rest = {key: value for key, value in part.items() if key != _KIND}
            found[kind] = kinds[kind], _checked(kinds[kind].Stored, rest, place)
        if [kind for kind in kinds if kind in found] != list(found):
            raise ValueError(f"transforms: expected the order {', '.join(kinds)}")
        wanted = {
            _tensor_name(kind, name)
            for kind, (_, one) in found.items()
            for name in one.tensor_names()
        }
        if differing := sorted(wanted ^ tensors.keys()):
            which = "is missing" if differing[0] in wanted else "is not expected"
            raise ValueError(f"tensor {differing[0]} {which}")
        transforms = tuple(
            kind.from_stored(
                one, {name: tensors[_tensor_name(kind.kind, name)] for name in one.tensor_names()}
            )
            for kind, one in found.values()
        )
        return cls(stored.where, transforms)


def prepared(graph: Graph, recipe: Recipe) -> Graph:
    """The float graph in the form that is quantized."""
    for transform in recipe.transforms:
        if transform.prepares:
            graph = transform.apply(graph)
    return graph


def unbranched(recipe: Recipe) -> Recipe:
    """The recipe without low-rank branches, whose float graph computes the same."""
    transforms = (one for one in recipe.transforms if not isinstance(one, SplitLowRank))
    return Recipe(recipe.where, tuple(transforms))


def branched(graph: Graph, recipe: Recipe) -> Graph:
    """The float graph in the form that is quantized, of one that is prepared but for low-rank branches."""
    split = recipe.find(SplitLowRank)
    return graph if split is None else split.apply(graph)


def quantized_graph(graph: Graph, recipe: Recipe) -> Graph:
    """The quantized graph of a float one.

    Args:
        graph: As `prepared` makes it of a traced one by the same recipe.
        recipe: How it is quantized.

    Raises:
        InternalError: The recipe is that of another graph.
    """
    for transform in recipe.transforms:
        if not transform.prepares:
            graph = transform.apply(graph)
    return graph


def _tensor_name(kind: str, name: str) -> str:
    """Under which a transform's tensor is stored: files of tensors have no `#`, and no module's name has a `+`."""
    return f"{kind}.{name.replace('#', '+')}"


_Record = TypeVar("_Record", bound=StoredRecord)


def _checked(kind: type[_Record], data: Mapping[str, Any], place: str) -> _Record:
    """JSON data as a record, or a refusal that names the first fault."""
    try:
        # Lists become tuples only where the input counts as JSON.
        return kind.model_validate_json(dump_json(dict(data)))
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        words = first["msg"].replace("Value error, ", "expected ")
        at = ".".join(filter(None, [place, where])) or "the recipe"
        raise ValueError(f"{at}: {words}") from None
