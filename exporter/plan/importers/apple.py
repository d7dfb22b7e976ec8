"""Recipes of Apple's mixed-bit palettization (ml-stable-diffusion): bits of the palette of each module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.importers.draft import WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter

__all__ = ["Apple"]

_BITS: Final = (1, 2, 3, 4, 6, 8)
_FLOAT: Final = 16
_OTHERS: Final = ("model_version", "single_layer", "cumulative", "baselines")


class Apple(PlanImporter):
    """Reads `{"recipes": {"recipe_4.04_bit_mixedpalette": {"module": 4}}}`."""

    tool = "apple"
    title = "Apple's mixed-bit palettization"
    reads = "the JSON of an analysis (`recipes` in it), or one recipe"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        return "recipes" in data and "model_version" in data

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        recipe = root
        if root.find("recipes") is not None:
            draft.refuse_others(root, ("recipes",), harmless=_OTHERS)
            recipe = _chosen(root.need("recipes"), draft)
        by_bits: dict[int, list[str]] = {}
        for name, number in recipe.members():
            by_bits.setdefault(number.integer(1), []).append(name)
        for bits, names in sorted(by_bits.items()):
            if bits == _FLOAT:
                draft.rule("float16", op=WEIGHTED, modules=names, weights={"dtype": "float16"})
                draft.exact(recipe, f"{len(names)} modules in float16")
            elif bits in _BITS:
                draft.rule(
                    f"palette{bits}",
                    op=WEIGHTED,
                    modules=names,
                    weights={"dtype": f"palette{bits}", "granularity": "tensor"},
                )
                draft.exact(recipe, f"{len(names)} modules with a table of {1 << bits} values")
            else:
                draft.refuse(recipe, f"{len(names)} modules with {bits} bits; palettes have {_BITS}, the first {quoted(names[0])}")  # fmt: skip


def _chosen(recipes: Foreign, draft: Draft) -> Foreign:
    """The recipe that was asked for, or the only one.

    Raises:
        InvalidInput: There are several.
    """
    found = dict(recipes.members())
    name = draft.entry
    if name is None and len(found) == 1:
        name = next(iter(found))
    if name is None or name not in found:
        raise InvalidInput(
            f"{quoted(recipes.source)}: {len(found)} recipes, expected the name of one",
            hint=f"give --entry: {choices(tuple(found)[:20])}" if found else None,
        )
    return found[name]
