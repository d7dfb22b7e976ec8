"""A graph to an explicitly quantized, fully typed ONNX file for TensorRT, with its weights beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qdx.backends.contract import LoweredFiles
from qdx.backends.onnx.carried_types import carry_types
from qdx.backends.onnx.four_bits import widen_four_bits
from qdx.backends.onnx.lowering import model_from_graph, write_model
from qdx.backends.onnx.translations import Forms
from qdx.backends.tensorrt.flavour import ENTERPRISE, Flavour
from qdx.backends.tensorrt.lint import DeviceFacts, Finding, Severity, lint
from qdx.backends.tensorrt.lower.float32_products import products_to_convolutions
from qdx.backends.tensorrt.lower.narrow_doubles import narrow_doubles
from qdx.backends.tensorrt.lower.profiles import profiles
from qdx.backends.tensorrt.lower.shared_scales import share_scales, write_ratios_last
from qdx.backends.tensorrt.lower.sixteen_bit_casts import type_model
from qdx.backends.tensorrt.lower.zero_points import write_zero_points
from qdx.backends.tensorrt.operators import TRANSLATIONS, complete_types, has_float4
from qdx.backends.tensorrt.recipe import RECIPE_NAME, BuildRecipe
from qdx.exporter.errors import InternalError, Refusal, TargetRefusal, quoted
from qdx.exporter.graph.analysis.precision import float32_nodes
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.transforms.time_embedding import has_time_table
from qdx.targets.compute_capabilities import lacks_float32_products

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.targets.profile import TargetProfile

__all__ = ["lower", "typed_model"]

FORMS: Final = Forms(opset=21, group_norm_operator=True, translations=TRANSLATIONS)
"""Opset 21 has four-bit integers, blocks and scales in sixteen bits; its group norm is read from TensorRT 10.9 on."""
_FLOAT4_OPSET: Final = 23
_BFLOAT16_OPSET: Final = 22
"""Its convolutions have bfloat16."""

_HALVES: Final = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


def lower(
    graph: Graph,
    compute_dtype: str,
    profile: TargetProfile,
    folder: Path,
    flavour: Flavour = ENTERPRISE,
) -> LoweredFiles:
    """Writes the component into `folder`, with the recipe by which its engine is built, and checks what it wrote.

    Args:
        graph: Float or quantized.
        compute_dtype: Type of what is not quantized: float32, float16 or bfloat16.
        profile: The target.
        folder: Exists.
        flavour: What builds the engine.

    Raises:
        StorageError: The disk refused.
        TargetRefusal: The model breaks a rule of the target, an operator has no form in ONNX, or a weight does not
            fit the type.
    """
    model = typed_model(graph, compute_dtype)
    if lacks_float32_products(profile.compile_for):
        products_to_convolutions(model)
    names = profile.layout
    recipe = BuildRecipe(
        model=names.model_file,
        context=names.context_file,
        flavour=flavour.name,
        versions=str(profile.runtime_versions),
        compute_capabilities=profile.compile_for,
        profiles=profiles(graph),
    )
    facts = DeviceFacts(recipe.version_range, profile.compute_capability, flavour=flavour)
    path, data = folder / names.model_file, names.external_data_file
    assert data is not None, "its targets name it"
    write_model(model, path, external_data=data)
    # What was written is checked: its scales are read from the file, where the model would quantize each weight again.
    notes = _notes(_checked(ir.load(path), graph.where, facts), graph.where)
    (folder / RECIPE_NAME).write_bytes(recipe.to_json())
    others = [folder / RECIPE_NAME]
    if (folder / data).exists():
        others.append(folder / data)
    return LoweredFiles(path, tuple(others), notes)


def typed_model(graph: Graph, compute_dtype: str) -> ir.Model:
    """The model before it is checked and written, its weights lazy."""
    opset = _BFLOAT16_OPSET if compute_dtype == "bfloat16" else FORMS.opset
    forms = replace(FORMS, opset=_FLOAT4_OPSET if has_float4(graph.program) else opset)
    if compute_dtype not in {"float32", *_HALVES}:
        raise InternalError(f"`{graph.where}`: no form in {compute_dtype}")
    kept: AbstractSet[str] = frozenset()
    if compute_dtype in _HALVES:
        kept = float32_nodes(graph, sites(graph), time_table=has_time_table(graph)).keys()

    def share(model: ir.Model) -> None:
        if compute_dtype == "float16":
            share_scales(model, kept)

    # Scales that are shared have one zero point, and four bits meet quantized inputs in eight.
    passes = (complete_types, widen_four_bits, share, write_zero_points)
    model = model_from_graph(
        graph, forms, passes=(carry_types,), bound_passes=passes, listed=lambda _: True
    )
    write_ratios_last(model)
    narrow_doubles(model)
    if compute_dtype in _HALVES:
        type_model(model, _HALVES[compute_dtype], kept)
    return model


def _checked(model: ir.Model, where: str, facts: DeviceFacts) -> tuple[Finding, ...]:
    """The warnings about a model; refuses one that breaks a rule."""
    found = lint(model, facts)
    broken = [one for one in found if one.severity is Severity.ERROR]
    if broken:
        raise TargetRefusal(
            f"`{where}`: breaks {len(broken)} rules of {facts.flavour.title} {facts.versions}",
            refusals=tuple(
                Refusal(f"{where}: {one.node}", f"{one.rule}: {one.message}", one.hint)
                for one in broken
            ),
        )
    return found


def _notes(warnings: tuple[Finding, ...], where: str) -> tuple[str, ...]:
    """A line for each rule; `qdx inspect --lint` lists every breach."""
    by_rule: dict[str, list[Finding]] = defaultdict(list)
    for one in warnings:
        by_rule[one.rule].append(one)
    return tuple(
        f"`{where}`: {rule}, {len(found)} of it, at {quoted(found[0].node)} for one: {found[0].message}"
        for rule, found in by_rule.items()
    )
