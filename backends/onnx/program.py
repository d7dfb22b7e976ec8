"""From a traced program to an ONNX model without weights: torch's exporter with our operator forms."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node

from qdx.backends.onnx.neutral import remove_neutral_arithmetic
from qdx.backends.onnx.origin import join_origins, trace_origins
from qdx.backends.onnx.registry import registry_built_once
from qdx.backends.onnx.translations import Forms, translation_table
from qdx.exporter.errors import Refusal, TargetRefusal, first_line
from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.analysis.places import module_of

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

_FOLDED_ELEMENTS = 1 << 20
"""Constants computed from shapes and literals are folded up to this size; weights never are."""


_NODE: Final = re.compile(r"translating node %(\w+) .*?target=(?:torch\.ops\.)?([\w.]+)\]")
"""How the exporter tells of the node that it could not translate."""


def translate(graph: Graph, forms: Forms) -> ir.Model:
    """Translates a graph; weights stay unbound, small real constants are in the model.

    Raises:
        TargetRefusal: torch's exporter has no translation for an operator.
    """
    with _quiet(), registry_built_once():
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
            raise _refusal(graph, error) from error
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


def _refusal(graph: Graph, error: BaseException) -> TargetRefusal:
    """What says which operator could not be translated, and where it stands, as far as the exporter tells."""
    words = ""
    cause: BaseException | None = error
    node = None
    while cause is not None:
        found = _NODE.search(str(cause))
        node = node or (_node_of(graph, *found.groups()) if found else None)
        words = first_line(cause, otherwise=type(cause).__name__)
        cause = cause.__cause__
    where, what = graph.where, "an operator"
    if node is not None:
        where, what = module_of(node, graph.where), f"`{node.target}`"
    reason = f"{what} could not be translated to ONNX: {words}"
    return TargetRefusal(
        f"`{where}`: {reason}",
        refusals=(Refusal(where, reason),),
        hint="leave the component out: name the others with --components, it then runs in PyTorch",
    )


def _node_of(graph: Graph, name: str, target: str) -> Node | None:
    """The graph's node of an operator, the one of that name first: the exporter numbers nodes again, and divides some."""
    nodes = list(graph.program.graph.nodes)
    own = target.split(".")[-2] if target.count(".") > 1 else target
    alike = [node for node in nodes if str(node.target) == target]
    alike = alike or [node for node in nodes if name_of(node).endswith(own)]
    return next((node for node in alike if node.name == name), alike[0] if alike else None)


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
