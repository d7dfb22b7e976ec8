"""Tracing: one recorded call becomes a graph in ATen, with named tensors and without weights."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from qdx.exporter.capture.calls import CallRecord, substitute
from qdx.exporter.capture.concrete import Concrete
from qdx.exporter.capture.copies import copy_of
from qdx.exporter.capture.distributions import flatten_output
from qdx.exporter.capture.float16_code import Float16Code, kept_parameters, remove_traces
from qdx.exporter.capture.skeleton import Skeleton
from qdx.exporter.capture.symbols import dimension_names, guard_of, shape_of
from qdx.exporter.capture.traceable import Traceable
from qdx.exporter.errors import Refusal, TargetRefusal, first_line
from qdx.exporter.graph.ir.graph import Graph, TensorSpec, dtype_name
from qdx.exporter.graph.ir.weights import LazyWeights
from qdx.exporter.graph.rewrites.checks import without_checks
from qdx.exporter.graph.rewrites.computed import with_constants_computed
from qdx.exporter.graph.rewrites.inlined import without_regions
from qdx.exporter.graph.rewrites.masked_rows import without_masked_rows
from qdx.exporter.graph.rewrites.real_pairs import without_complex
from qdx.exporter.graph.rewrites.resampled import without_smoothed_corners

Moving = dict[str, tuple[int, ...]]

_READS_RESULTS: Final = (
    "its Python goes by values that it computes, such as which expert takes which token; a graph computes the same "
    "operations whatever the values are"
)


class _Traced(nn.Module):
    """A recorded call as a module: named tensors in, named tensors out, everything else baked in."""

    def __init__(self, module: nn.Module, record: CallRecord, *, float16: bool) -> None:
        super().__init__()
        self.module = module
        self._float16 = float16
        self._method = record.method
        self._arguments = dict(record.arguments)
        self._recorded = dict(record.arguments)
        if "return_dict" in inspect.signature(getattr(module, record.method)).parameters:
            self._arguments["return_dict"] = True  # the fields' names become the outputs' names

    def forward(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with Traceable(), Float16Code(self.module) if self._float16 else nullcontext():
            method = getattr(self.module, self._method)
            named = flatten_output(method(**substitute(self._arguments, tensors)))
            # Models of several models take their answers apart, and find names where the fields have them.
            return named or flatten_output(method(**substitute(self._recorded, tensors)))


def trace(
    skeleton: Skeleton,
    record: CallRecord,
    weights: LazyWeights,
    *,
    moving: Moving | None = None,
    float16: bool = False,
) -> Graph:
    """Traces one recorded call.

    Args:
        skeleton: The pipeline whose component is traced.
        record: The call; its tensors give the example shapes.
        weights: The component's lazy weights.
        moving: Dimensions that become dynamic, per tensor name; None or empty makes a static graph.
        float16: Whether it will be computed in float16: what the component's own code does then is in the graph, which
            computes in float32 as others do.

    Raises:
        TargetRefusal: The component cannot be traced, or a dimension cannot be dynamic.
    """
    module = copy_of(record.module or skeleton.modules[record.component], name=record.component)
    examples = {
        name: torch.zeros(tuple(tensor.shape), dtype=tensor.dtype)
        for name, tensor in record.tensors().items()
    }
    dynamic = None
    if moving:
        dynamic = (
            {
                name: {d: Dim.AUTO for d in moving.get(name, ()) if d < value.dim()}
                for name, value in examples.items()
            },
        )
    try:
        with torch.no_grad(), Concrete(record.fixed.values()):
            program = torch.export.export(
                _Traced(module, record, float16=float16),
                (examples,),
                dynamic_shapes=dynamic,
                strict=False,
            )
    except Exception as error:  # tracing runs the model's own Python
        reason = f"{type(error).__name__}: {first_line(error)[:300]}"
        if record.reads_results:
            reason = f"{_READS_RESULTS} ({reason})"
        raise TargetRefusal(
            f"`{record.where}`: cannot be traced into a graph: {reason}",
            refusals=(Refusal(record.where, reason, None),),
            hint="try --shapes static" if moving else "leave this component out with --components",
        ) from error
    _forget_provenance(program)
    if float16:
        remove_traces(program)
    graph = graph_from_program(program, record, list(examples), weights)
    for rewrite in (
        without_regions,
        without_checks,
        without_complex,
        without_smoothed_corners,
        without_masked_rows,
        with_constants_computed,
    ):
        graph = rewrite(graph)
    if float16:
        graph = replace(graph, float16=True, wide=kept_parameters(module))
    if moving:
        _check_dynamic(graph, record, moving)
    return graph


def graph_from_program(
    program: ExportedProgram, record: CallRecord, names: list[str], weights: LazyWeights
) -> Graph:
    """The graph around an exported program whose inputs have these names, in order.

    Inputs that the computation does not use stay: the caller passes them.
    """
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    signature = program.graph_signature
    inputs = [spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    structure: Any = program.call_spec.out_spec
    input_values = {name: values[key] for name, key in zip(names, inputs, strict=True)}
    output_values = {
        name: values[key]
        for name, key in zip(structure.context, signature.user_outputs, strict=True)
    }
    names_of_dimensions = dimension_names(input_values)

    def specs(named: dict[str, torch.Tensor]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, dtype_name(value.dtype), shape_of(value, names_of_dimensions))
            for name, value in named.items()
        )

    return Graph(
        record.component,
        record.key,
        program,
        specs(input_values),
        specs(output_values),
        weights,
        constants=record.constants(),
        state=record.state,
        fixed=record.fixed,
    )


def _forget_provenance(program: ExportedProgram) -> None:
    """Drops what each node tells about its making, except its module: it takes more memory than the graph."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "from_node", "source_fn_stack", "torch_fn", "custom"):
            node.meta.pop(key, None)


def _check_dynamic(graph: Graph, record: CallRecord, moving: Moving) -> None:
    """Refuses where a dimension that moves between calls was baked into the graph."""
    values = {
        node.name: node.meta["val"]
        for node in graph.program.graph.nodes
        if node.op == "placeholder"
    }
    refusals = [
        Refusal(
            f"{record.where}: {spec.name}, dimension {dimension}",
            f"fixed to {spec.shape[dimension]} by {guard_of(values[placeholder].shape[dimension])}",
        )
        for spec, placeholder in zip(
            graph.inputs, graph.program.graph_signature.user_inputs, strict=True
        )
        for dimension in moving.get(spec.name, ())
        if dimension < len(spec.shape) and isinstance(spec.shape[dimension], int)
    ]
    if refusals:
        raise TargetRefusal(
            f"`{refusals[0].site}`: cannot be dynamic, {refusals[0].reason}",
            refusals=tuple(refusals),
            hint="export with --shapes static for the sizes that you need",
        )
