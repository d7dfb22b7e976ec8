"""Editing a graph: the original stays, and the result runs, lowers and can be edited again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeight
from tests.support.tracing import Block, block_inputs, graph_of

aten = torch.ops.aten


@pytest.fixture(scope="module")
def block() -> tuple[Graph, nn.Module]:
    return graph_of(Block, block_inputs())


def lazy(name: str, tensor: torch.Tensor) -> LazyWeight:
    return LazyWeight(name, tuple(tensor.shape), tensor.dtype, lambda: tensor)


def shifted(graph: Graph) -> Graph:
    """The graph whose result is multiplied by a parameter, after which a constant is added."""
    editor = ProgramEditor(graph)
    last = editor.node("conv2d_1")
    factor = editor.add_parameter(lazy("extra.factor", torch.full((4, 1, 1), 2.0)))
    shift = editor.add_constant("extra.shift", torch.full((1,), 0.5))
    product = editor.call(aten.mul.Tensor, (last, factor), after=last)
    total = editor.call(aten.add.Tensor, (product, shift), after=product)
    editor.insert_behind(last, total)
    return editor.finish()


def test_an_edit_leaves_the_original_alone(block: tuple[Graph, nn.Module]) -> None:
    graph, module = block
    before = graph.program.graph_module.code
    shifted(graph)
    inputs = block_inputs()
    with torch.no_grad():
        assert graph.program.graph_module.code == before
        assert torch.equal(run(graph, inputs)["y"], module(**inputs))


def test_parameters_and_constants_join_the_program(block: tuple[Graph, nn.Module]) -> None:
    graph = shifted(block[0])
    inputs = block_inputs()
    assert "extra.factor" in graph.parameters.values()
    assert torch.equal(run(graph, inputs)["y"], run(block[0], inputs)["y"] * 2 + 0.5)
    kinds = [spec.kind.name for spec in graph.program.graph_signature.input_specs]
    assert kinds == sorted(kinds, key=["PARAMETER", "CONSTANT_TENSOR", "USER_INPUT"].index)
    added = next(n for n in graph.program.graph.nodes if n.target is aten.add.Tensor and n.users)
    assert tuple(added.meta["val"].shape) == (2, 32, 8, 8)
    assert added.meta["nn_module_stack"]


def test_an_edited_graph_can_be_edited(block: tuple[Graph, nn.Module]) -> None:
    editor = ProgramEditor(shifted(block[0]))
    output = editor.nodes.output_node().all_input_nodes[0]
    editor.insert_behind(output, editor.call(aten.neg.default, (output,), after=output))
    inputs = block_inputs()
    expected = -(run(block[0], inputs)["y"] * 2 + 0.5)
    assert torch.equal(run(editor.finish(), inputs)["y"], expected)


def test_an_edited_graph_lowers_and_runs(block: tuple[Graph, nn.Module], tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from qdx.backends.onnxruntime.lower import lower

    graph = shifted(block[0])
    lower(graph, "float32", tmp_path)
    session = onnxruntime.InferenceSession(next(tmp_path.glob("*.onnx")))
    inputs = block_inputs()
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, {name: inputs[name].numpy() for name in names})
    np.testing.assert_allclose(found, run(graph, inputs)["y"].numpy(), rtol=1e-4, atol=1e-5)


def test_a_parameter_changes_its_dtype_in_place(block: tuple[Graph, nn.Module]) -> None:
    graph, _ = block
    weight = graph.weights["to_q.weight"]
    stored = (weight.read() * 64).to(torch.int8)
    editor = ProgramEditor(graph)
    node = editor.set_parameter("to_q.weight", lazy("to_q.weight", stored))
    wide = editor.call(aten.to.dtype, (node, torch.float32), after=node)
    scaled = editor.call(aten.mul.Tensor, (wide, 1 / 64), after=wide)
    editor.insert_behind(node, scaled)
    edited = editor.finish()
    assert edited.weights["to_q.weight"].dtype == torch.int8
    assert graph.weights["to_q.weight"].dtype == torch.float32
    assert torch.allclose(
        run(edited, block_inputs())["y"], run(graph, block_inputs())["y"], rtol=0.1, atol=0.1
    )


def test_tied_parameters_are_found_by_either_name(block: tuple[Graph, nn.Module]) -> None:
    editor = ProgramEditor(block[0])
    assert editor.parameter("ff.weight") is editor.parameter("tied.weight")
    assert editor.name_of(editor.parameter("ff.weight")) == "tied.weight"
    doubled = block[0].weights["ff.weight"].read() * 2
    editor.set_parameter("ff.weight", lazy("ff.weight", doubled))
    edited = editor.finish()
    assert not edited.weights.aliases
    assert torch.equal(edited.weights["tied.weight"].read(), doubled)
    assert "ff.weight" not in edited.parameters.values()


def test_what_nothing_uses_is_dropped(block: tuple[Graph, nn.Module]) -> None:
    editor = ProgramEditor(block[0])
    editor.add_constant("unused", torch.zeros(3))
    linear = editor.node("linear_4")
    linear.replace_all_uses_with(editor.node("layer_norm"))
    edited = editor.finish()
    left = set(edited.parameters.values())
    assert "to_out.weight" not in left
    assert "to_q.weight" not in left
    assert "proj.weight" in left
    assert not edited.buffers
    assert not [n for n in edited.program.graph.nodes if "attention" in n.name]


def test_names_must_be_new_and_known(block: tuple[Graph, nn.Module]) -> None:
    editor = ProgramEditor(block[0])
    with pytest.raises(InternalError, match=r"`to_q\.weight` is there already"):
        editor.add_parameter(lazy("to_q.weight", torch.zeros(2)))
    editor.add_constant("table", torch.zeros(2))
    with pytest.raises(InternalError, match="`table` is there already"):
        editor.add_constant("table", torch.zeros(2))
    with pytest.raises(InternalError, match="no node `nothing`"):
        editor.node("nothing")
    with pytest.raises(InternalError, match=r"no parameter `nothing\.weight`"):
        editor.parameter("nothing.weight")


def test_dynamic_dimensions_stay() -> None:
    size = torch.export.Dim.AUTO
    moving: dict[str, Any] = {"x": {0: size, 2: size, 3: size}, "t": None, "context": {0: size}}
    graph, _ = graph_of(Block, block_inputs(batch=3), dynamic=moving)
    edited = shifted(graph)
    for batch in (2, 4):
        inputs = block_inputs(batch=batch)
        assert torch.equal(run(edited, inputs)["y"], run(graph, inputs)["y"] * 2 + 0.5)
    assert dataclasses.replace(edited).dynamic_symbols == graph.dynamic_symbols
