"""A recipe with what tuning learned: integers and scales that are given, and scales of inputs in the place of calibrated ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.formats.given import part_name
from qdx.exporter.formats.registry import format_of
from qdx.exporter.transforms.activations import in_sixteen_bits
from qdx.exporter.transforms.given import TakeGiven
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.recipe import Recipe
from qdx.exporter.transforms.registry import TRANSFORMS

if TYPE_CHECKING:
    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.transforms.placement import ActivationQuantization, SitePlacement
    from qdx.exporter.transforms.transform import Transform
    from qdx.tune.student import Student

__all__ = ["learned_tensors", "tuned_recipe"]

_TOOL: Final = "qdx"

Tensors = Mapping[str, torch.Tensor]


def learned_tensors(student: Student, placed: Collection[SitePlacement]) -> dict[str, torch.Tensor]:
    """What a student has learned: stored parts as `weight.NAME.PART`, scales or ratios as `input.SITE.ARGUMENT`."""
    found: dict[str, torch.Tensor] = {}
    for name, weight in student.weights.items():
        for suffix, part in weight.given().parts.items():
            found[f"weight.{name}.{part_name(suffix)}"] = part
    for one in placed:
        for index in one.inputs:
            scales = student.scales_of(one, index)
            if scales is not None:
                found[f"input.{one.key}.{index}"] = scales
    return found


def tuned_recipe(
    recipe: Recipe,
    sites: Mapping[str, Site],
    aliases: Mapping[str, str],
    tuned: Collection[str],
    learned: Tensors,
    *,
    half: torch.dtype | None,
) -> Recipe:
    """The recipe that stores what was learned.

    Args:
        recipe: Without it.
        sites: Of the graph that it quantizes, by key.
        aliases: The name under which each tied parameter is stored, by its other names.
        tuned: Keys of the sites that learned.
        learned: As `learned_tensors` gives it.
        half: The type of scales where the component is stored in sixteen bits.

    Raises:
        InvalidInput: A learned scale is none that the type of sixteen bits holds.
    """
    weights: dict[str, WeightQuantization] = {}
    parts: dict[str, torch.Tensor] = {}
    placed = []
    for one in recipe.placement.sites:
        weight = sites[one.key].weight
        if one.key in tuned and one.weight is not None and weight is not None:
            weights[weight] = one.weight
            owner = aliases.get(weight, weight)
            for suffix in format_of(one.weight.dtype).suffixes(one.weight):
                part = part_name(suffix)
                parts[f"{weight}.{part}"] = learned[f"weight.{owner}.{part}"]
        inputs = {
            index: _scaled(quantization, learned.get(f"input.{one.key}.{index}"), half, one.key)
            for index, quantization in one.inputs.items()
        }
        placed.append(replace(one, inputs=inputs))
    changed: dict[str, Transform] = {found.kind: found for found in recipe.transforms}
    if weights:
        changed[TakeGiven.kind] = TakeGiven(_TOOL, weights, parts)
    inserted = recipe.find(InsertQuantizers)
    assert inserted is not None
    changed[InsertQuantizers.kind] = replace(inserted, sites=tuple(placed))
    ordered = (changed[kind.kind] for kind in TRANSFORMS if kind.kind in changed)
    return Recipe(recipe.where, tuple(ordered))


def _scaled(
    quantization: ActivationQuantization,
    learned: torch.Tensor | None,
    half: torch.dtype | None,
    key: str,
) -> ActivationQuantization:
    if learned is None:
        return quantization
    if quantization.groups is not None:
        ratios = tuple(float(one) for one in learned)
        return replace(quantization, groups=replace(quantization.groups, ratios=ratios))
    found = replace(quantization, scale=float(learned))
    return found if half is None else in_sixteen_bits(found, half, f"`{key}`")
