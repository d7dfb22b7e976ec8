"""From a traced program to a MIL program: coremltools' converter with our weights and operators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from coremltools import TensorType
from coremltools.converters.mil.converter import _reset_conversion_state
from coremltools.converters.mil.frontend.torch import ops
from coremltools.converters.mil.frontend.torch.converter import TorchConverter
from coremltools.converters.mil.mil import Builder, Program

from qdx.backends.coreml.lower.converters import register_operators
from qdx.backends.coreml.lower.folding import constant_values
from qdx.backends.coreml.lower.origin import number_nodes
from qdx.backends.coreml.lower.stored_weights import as_array
from qdx.exporter.errors import QdxError, Refusal, TargetRefusal, first_line
from qdx.exporter.graph.analysis.places import module_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from qdx.exporter.graph.ir.graph import Graph, TensorSpec
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["decomposed", "translate"]

_TYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "int32": np.int32,
    "int64": np.int32,
    "bool": np.int32,
}


_UNKNOWN: Final = re.compile(r"Unsupported fx node (\w+),")
"""How the converter tells of a node of which it knows nothing."""


def decomposed(graph: Graph) -> Graph:
    """The graph as the converter takes it: functional, its composite operators whole."""
    program = graph.program.run_decompositions({})
    _part_outputs(program)
    number_nodes(program)
    return replace(graph, program=program)


def _part_outputs(program: ExportedProgram) -> None:
    """Gives each output a node of its own, in place: the converter names an output by naming what computes it.

    Inputs have names already.
    """
    end = program.graph.output_node()
    taken = {node for node in program.graph.nodes if node.op == "placeholder"}
    results: list[Any] = []
    for spec, result in zip(program.graph_signature.output_specs, end.args[0], strict=True):
        if result in taken:
            with program.graph.inserting_before(end):
                # Of what copies, this alone becomes an operation.
                copy = program.graph.call_function(torch.ops.aten.type_as.default, (result, result))
            copy.meta = dict(result.meta)
            spec.arg.name = copy.name
            result = copy  # noqa: PLW2901
        taken.add(result)
        results.append(result)
    end.args = (tuple(results),)


def translate(graph: Graph, specification: int) -> Program:
    """Translates a graph; large weights stay unread.

    Args:
        graph: Decomposed; its specs name and type the inputs and outputs.
        specification: Version of the specification, which decides the operators that there are.

    Returns:
        A `coremltools` program, typed float32.

    Raises:
        TargetRefusal: An operator has no translation.
    """
    register_operators()
    _reset_conversion_state()  # names are counted up for the life of a process
    met: list[str] = []
    try:
        converter = _Converter(
            graph.program,
            [_tensor_type(spec) for spec in graph.inputs],
            [_tensor_type(spec, output=True) for spec in graph.outputs],
            opset_version=specification,
        )
        converter.weights = {key: graph.weights[name] for key, name in graph.parameters.items()}
        converter.fold(constant_values(graph.program, graph.buffers))
        with _without_bars(met):
            return converter.convert()
    except QdxError:
        raise
    except Exception as error:  # converters of operators raise whatever they meet
        words = first_line(error, otherwise=type(error).__name__)
        nodes = {node.name: node for node in graph.program.graph.nodes}
        unknown = _UNKNOWN.match(words)
        node = nodes.get(unknown.group(1) if unknown else (met or [""])[-1])
        where = graph.where if node is None else module_of(node, graph.where)
        what = "an operator" if node is None else f"`{node.target}`"
        reason = f"{what} could not be translated to Core ML: {words}"
        raise TargetRefusal(
            f"`{where}`: {reason}",
            refusals=(Refusal(where, reason),),
            hint="leave the component out: name the others with --components, it then runs in PyTorch",
        ) from error


def _tensor_type(spec: TensorSpec, *, output: bool = False) -> TensorType:
    """The declaration of an input or output; an output's shape follows from the program."""
    return TensorType(
        name=spec.name, dtype=_TYPES[spec.dtype], **({} if output else {"shape": spec.shape})
    )


def _names(*arguments: Any) -> Iterator[str]:
    """The names among the arguments of an operation, however nested."""
    for argument in arguments:
        if isinstance(argument, str):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from _names(*argument)
        elif isinstance(argument, dict):
            yield from _names(*argument.values())


@contextmanager
def _without_bars(met: list[str]) -> Iterator[None]:
    """The converter without its progress bar, which it draws whatever its logger is told.

    Args:
        met: Takes the names of the nodes that it comes to, in order.
    """

    def noted(nodes: Iterable[Any], **_: Any) -> Iterator[Any]:
        for node in nodes:
            met.append(str(node.name))
            yield node

    bar = ops._tqdm  # noqa: SLF001  # no option turns it off
    ops._tqdm = noted  # noqa: SLF001
    try:
        yield
    finally:
        ops._tqdm = bar  # noqa: SLF001


class _Converter(TorchConverter):  # type: ignore[misc]
    """The converter of exported programs, with parameters that are fake in the program."""

    weights: Mapping[str, LazyWeight]

    def fold(self, values: Mapping[str, torch.Tensor]) -> None:
        """Puts values in the place of the operations that compute them."""
        nodes = [node for node in self.graph.nodes if node.name not in values]
        used = {name for node in nodes for name in _names(node.inputs, node.kwinputs or {})}
        used |= set(self.graph.outputs)
        self.graph.nodes = nodes
        self.graph.params |= {name: value for name, value in values.items() if name in used}

    def _add_const(self, name: str, val: Any) -> None:
        weight = self.weights.get(name)
        if weight is None:
            super()._add_const(name, val)
        else:
            self.context.add(Builder.const(val=as_array(weight), name=name))
