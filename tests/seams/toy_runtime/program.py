"""Programs of the toy: a list of calls of PyTorch's operators, their arguments written out, and the weights beside it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.fx import Node

from qdx.exporter.errors import InvalidBundle, Refusal, TargetRefusal
from qdx.exporter.files import dump_json, parse_json, read_bytes
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph, dtype_name

PROGRAM, WEIGHTS = "program.json", "weights.safetensors"
_LIMIT_BYTES = 1 << 24
_EXACT = 2**53 - 1
"""The greatest integer that every reader of JSON takes as it is; PyTorch's "to the end" is a greater one."""
_KINDS = {
    torch.dtype: "dtype",
    torch.device: "device",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
}


def write(graph: Graph, folder: Path) -> None:
    """Writes a graph; the sites that its nodes compute are named in it."""
    stored = {**{p: graph.weights[n].read() for p, n in graph.parameters.items()}, **graph.buffers}
    calls, results = [], []
    for node in graph.program.graph.nodes:
        if node.op == "call_function":
            calls.append(
                {
                    "name": node.name,
                    "operator": _operator_name(graph, node),
                    "args": [_written(one) for one in node.args],
                    "kwargs": {name: _written(one) for name, one in node.kwargs.items()},
                }
            )
        elif node.op == "output":
            results = [_written(one) for one in node.args[0]]
    program = {
        "inputs": [
            {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "node": node}
            for spec, node in zip(graph.inputs, graph.placeholders.values(), strict=True)
        ],
        "outputs": [
            {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "value": value}
            for spec, value in zip(graph.outputs, results, strict=True)
        ],
        "calls": calls,
        "sites": {site.key: [site.node, sorted(site.ports.values())] for site in sites(graph)},
    }
    (folder / PROGRAM).write_bytes(dump_json(program))
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in stored.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Reads what `write` wrote.

    Raises:
        InvalidBundle: It is something else.
    """
    source = str(folder / PROGRAM)
    data = read_bytes(folder / PROGRAM, _LIMIT_BYTES, error=InvalidBundle)
    program = parse_json(data.decode(errors="replace"), source=source, error=InvalidBundle)
    if not isinstance(program, dict) or program.keys() != {"inputs", "outputs", "calls", "sites"}:
        raise InvalidBundle(f"`{source}`: no program of the toy")
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        for call in program["calls"]:
            call["function"] = _operator(call["operator"])
    except Exception as error:  # of the file, or of a program that no lowering wrote
        raise InvalidBundle(f"`{source}`: cannot be opened, {error}") from error
    return program, weights


def execute(
    program: Mapping[str, Any], weights: Mapping[str, torch.Tensor], inputs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Runs a program, node by node."""
    values = {**weights, **{one["node"]: inputs[one["name"]] for one in program["inputs"]}}
    with torch.no_grad():
        for call in program["calls"]:
            args = [_value(one, values) for one in call["args"]]
            kwargs = {name: _value(one, values) for name, one in call["kwargs"].items()}
            values[call["name"]] = call["function"](*args, **kwargs)
    return {one["name"]: _value(one["value"], values) for one in program["outputs"]}


def _operator_name(graph: Graph, node: Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    name = str(node.target)
    if not isinstance(node.target, torch._ops.OpOverload):
        reason = f"the toy calls operators of PyTorch alone, not `{name}`"
        raise TargetRefusal(
            f"`{graph.where}`: {reason}", refusals=(Refusal(f"{graph.where}.{node.name}", reason),)
        )
    return name


def _operator(name: str) -> Any:
    """The operator of a name; nothing else can be named."""
    if name == "getitem":
        return operator.getitem
    namespace, operation, overload = name.split(".")
    if namespace not in {"aten", "qdx"}:
        raise ValueError(f"{name!r} is no operator of the toy")
    return getattr(getattr(getattr(torch.ops, namespace), operation), overload)


def _written(value: Any) -> Any:
    """An argument as JSON: what has no form of its own is an object with one key."""
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_written(one) for one in value]
    if type(value) is int and abs(value) > _EXACT:
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": repr(value)}
    for kind, key in _KINDS.items():
        if isinstance(value, kind):
            return {key: dtype_name(value) if kind is torch.dtype else str(value)}
    return value


def _value(written: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(written, list):
        return [_value(one, values) for one in written]
    if not isinstance(written, dict):
        return written
    ((key, text),) = written.items()
    match key:
        case "node":
            return values[text]
        case "int":
            return int(text)
        case "float":
            return float(text)
        case "device":
            return torch.device(text)
        case _:
            return getattr(torch, text.removeprefix("torch."))
