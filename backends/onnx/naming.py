"""Names: nodes after the torch module they come from, so that plans, reports and LoRA loaders find them."""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

from qdx.backends.lockstep import quantizer_of
from qdx.backends.onnx.origin import SCOPES

_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"  # of weights and buffers, not of literals
_WRAPPER = "module"  # the tracing wrapper's attribute that holds the component


def name_nodes(model: ir.Model) -> None:
    """Names every node and value; requires the exporter's metadata, so it runs before that is stripped.

    Before: `node_linear_7 = MatMul(...)` with scopes `["", "module.mid", "module.mid.to_q", "linear_7"]`.
    After: `mid.to_q/MatMul`; a second MatMul of that module is `mid.to_q/MatMul_1`. A value is named
    after its node, with `:1` and so on for further outputs. Inputs, outputs and initializers keep theirs.
    An activation's quantizer is named after the graph's nodes, `mid.to_q/quantize_tensor_3` and
    `mid.to_q/dequantize_tensor_3`, so that the two can be compared quantizer by quantizer.
    """
    kept = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    taken = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    taken.update(model.graph.initializers)
    used: Counter[str] = Counter()
    for node in model.graph:
        wanted = f"{_module_path(node)}/{_kind(node)}".removeprefix("/")
        if SCOPES not in node.metadata_props and node.name:  # made by our own passes, named there
            wanted = node.name
        name = _unique(wanted, used, taken)
        node.name = name
        for index, value in enumerate(node.outputs):
            if id(value) not in kept:
                value.name = name if index == 0 else f"{name}:{index}"


def name_constants(model: ir.Model) -> None:
    """Numbers the constants that translation and folding made: `constant_0`, `constant_1`, in order of use."""
    found: dict[str, ir.Value] = {}
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.is_initializer() and _is_generated(value):
                found.setdefault(str(value.name), value)
    for name in found:
        del model.graph.initializers[name]
    for index, value in enumerate(found.values()):
        value.name = f"constant_{index}"
        assert value.const_value is not None
        value.const_value.name = value.name
        model.graph.initializers[value.name] = value


def order_initializers(model: ir.Model) -> None:
    """Orders initializers by first use: a runtime that pages the weights in reads the file forward."""
    found: dict[str, ir.Value] = {}
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.is_initializer():
                found.setdefault(str(value.name), value)
    for value in list(model.graph.initializers.values()):
        del model.graph.initializers[str(value.name)]
    for name, value in found.items():
        model.graph.initializers[name] = value


def _is_generated(value: ir.Value) -> bool:
    return not isinstance(value.const_value, ir.LazyTensor) and _KIND not in value.metadata_props


def _unique(name: str, used: Counter[str], taken: set[str | None]) -> str:
    while True:
        count = used[name]
        used[name] += 1
        candidate = f"{name}_{count}" if count else name
        if candidate not in taken:
            taken.add(candidate)
            return candidate


def _kind(node: ir.Node) -> str:
    if "uantize" in node.op_type and SCOPES in node.metadata_props:
        name = str(ast.literal_eval(node.metadata_props[SCOPES])[-1])
        if quantizer_of(name) is not None:
            return name
    return node.op_type


def _module_path(node: ir.Node) -> str:
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "['']"))
    path = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    return "" if path == _WRAPPER else str(path).removeprefix(f"{_WRAPPER}.")


def strip_metadata(model: ir.Model) -> None:
    """Removes every metadata property and doc string: they hold stack traces with paths of this machine."""
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name = "qdx"
    model.producer_version = None
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None
