"""What packages do not owe to the addresses of objects: the numbers of constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from qdx.backends.coreml.lower.canonical import name_constants
from qdx.backends.coreml.lower.lower import lower
from qdx.backends.coreml.lower.package import quiet
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package
from qdx.exporter.graph.rewrites.face import Port, with_face
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import load_target
from tests.support.tracing import graph_of


def test_constants_without_names_are_numbered_in_the_order_of_the_program() -> None:
    with quiet():
        from coremltools.converters.mil.mil import Builder, Function, Program

        program = Program()
        x = Builder.placeholder(shape=(2, 3))
        with Function({"x": x}) as function:
            last = Builder.const(val=np.float32(2), name="const_7")
            first = Builder.const(val=np.float32(3), name="const_3_to_fp16")
            named = Builder.const(val=np.float32(4), name="constant_0")
            total = Builder.add(x=Builder.add(x=last, y=first), y=named)
            function.set_outputs([Builder.add(x=function.inputs["x"], y=total)])
        program.add_function("main", function)

        name_constants(program)

    assert (last.name, first.name, named.name) == ("constant_1", "constant_2", "constant_0")


class Words(nn.Module):
    """As CLIP looks words up, and finds the end of a text by the greatest index."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(49408, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self.embedding(ids)
        return found + found[torch.arange(1), ids.argmax(dim=-1)][:, None]


def test_indices_that_arrive_as_floats_stay_exact_beyond_16_bits(tmp_path: Path) -> None:
    ids = torch.tensor([[49406, 320, 32768, 32769, 49405, 49407]])
    graph, module = graph_of(Words, {"ids": ids})
    adapted = with_face(graph, {"ids": Port("ids", "float32")}, {"y": Port("y", "float32")})

    package = lower(adapted, FloatTypes("float16"), load_target("coreml"), tmp_path).model
    program = read_package(package)
    results = Interpreter(program).run({"ids": ids.float().numpy()})

    assert [(spec.dtype, spec.shape) for spec in program.inputs] == [("float32", (1, 6))]
    assert np.abs(results["y"] - module(ids).detach().numpy()).max() < 4e-3
