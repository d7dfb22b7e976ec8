"""From a traced program to an ONNX model without weights: torch's exporter with our operator forms."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch._subclasses.fake_tensor import FakeTensor

from qdx.backends.onnx.neutral import remove_neutral_arithmetic
from qdx.backends.onnx.origin import join_origins, trace_origins
from qdx.backends.onnx.translations import Forms, translation_table
from qdx.exporter.errors import Refusal, TargetRefusal, first_line

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

_FOLDED_ELEMENTS = 1 << 20
"""Constants computed from shapes and literals are folded up to this size; weights never are."""


def translate(graph: Graph, forms: Forms) -> ir.Model:
    """Translates a graph; weights stay unbound, small real constants are in the model.

    Raises:
        TargetRefusal: torch's exporter has no translation for an operator.
    """
    with _quiet():
        try:
            exported = torch.onnx.export(
                graph.program,
                dynamo=True,
                opset_version=forms.opset,
                optimize=False,  # would read the weights' bytes
                verbose=False,
                custom_translation_table=translation_table(forms),
            )
        except Exception as error:
            root = _root(error)
            words = first_line(root, otherwise=type(root).__name__)
            reason = f"an operator could not be translated to ONNX: {words}"
            raise TargetRefusal(
                f"`{graph.where}`: {reason}",
                refusals=(Refusal(graph.where, reason),),
                hint="leave the component out: name the others with --components, it then runs in PyTorch",
            ) from error
    assert exported is not None
    assert exported.exported_program is not None
    model = exported.model
    trace_origins(model, graph.program, exported.exported_program)
    for value in model.graph.initializers.values():
        if isinstance(getattr(value.const_value, "raw", None), FakeTensor):
            value.const_value = None
    return model


def simplify(model: ir.Model) -> None:
    """Removes what costs time or hides structure: identities, computed constants, unused nodes."""
    with _quiet():
        common.IdentityEliminationPass()(model)
        # Shapes are literals or symbols by now: shape arithmetic becomes literals.
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_FOLDED_ELEMENTS,
            output_size_limit=_FOLDED_ELEMENTS,
        )
        remove_neutral_arithmetic(model)
        _merge_duplicates(model)
        ir.passes.Sequential(
            common.IdentityEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.DeduplicateInitializersPass(),
            common.TopologicalSortPass(),
        )(model)


def _merge_duplicates(model: ir.Model) -> None:
    """Computes once what nodes compute alike, in place; the node that stays has the origins of all."""
    # A witness reads what a node makes, and later what took its place.
    witnesses = [(node, ir.node("Identity", node.outputs[:1])) for node in model.graph]
    common.CommonSubexpressionEliminationPass()(model)
    for node, witness in witnesses:
        value = witness.inputs[0]
        kept = None if value is None else value.producer()
        if kept is not None and kept is not node:
            join_origins(kept, node)
        witness.replace_input_with(0, None)


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's notes on optional packages and its internal deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
