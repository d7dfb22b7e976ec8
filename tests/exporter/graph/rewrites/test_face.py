"""A graph behind another face computes the same, bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.rewrites.face import Port, traced_output, with_face
from qdx.exporter.graph.rewrites.forms import apply, from_artifact, to_artifact
from tests.support.tracing import graph_of


class Mixed(nn.Module):
    """Takes one tensor of each form."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3, 5)

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        return x + t + self.project(tokens).mean(1) * pooled


INPUTS = {
    "x": torch.arange(10.0).reshape(2, 5),
    "t": torch.tensor([7]),
    "tokens": torch.arange(24.0).reshape(2, 4, 3),
    "pooled": torch.arange(10.0).reshape(2, 5) / 8,
}
FACE = {
    "x": Port("sample", "float16"),
    "t": Port("timestep", "float32", "each"),
    "tokens": Port("text", "float32", "bc1s"),
    "pooled": Port("pooled", "float32", "bc11"),
}
SHAPES = {"sample": (2, 5), "timestep": (2,), "text": (2, 3, 1, 4), "pooled": (2, 5, 1, 1)}


def test_names_types_and_forms_are_those_asked_and_the_numbers_stay() -> None:
    graph, module = graph_of(Mixed, INPUTS)

    faced = with_face(graph, FACE, {"y": Port("noise", "float16")})
    fed = {
        "sample": INPUTS["x"].half(),
        "timestep": torch.tensor([7.0, 7.0]),
        "text": INPUTS["tokens"].transpose(1, 2)[:, :, None],
        "pooled": INPUTS["pooled"][:, :, None, None],
    }

    assert {spec.name: spec.shape for spec in faced.inputs} == SHAPES
    assert [(spec.name, spec.dtype) for spec in faced.outputs] == [("noise", "float16")]
    assert torch.equal(run(faced, fed)["noise"], module(**INPUTS).half())


def test_the_graph_itself_stays_as_it_is() -> None:
    graph, module = graph_of(Mixed, INPUTS)
    with_face(graph, FACE, {"y": Port("noise", "float16")})

    assert torch.equal(run(graph, INPUTS)["y"], module(**INPUTS))


def test_a_tensor_that_has_no_such_form_is_a_defect() -> None:
    graph, _ = graph_of(Mixed, INPUTS)

    with pytest.raises(InternalError, match=r"form bc1s has no tensors of shape \[2, 5\]"):
        with_face(graph, {**FACE, "x": Port("sample", "float32", "bc1s")}, {})


@pytest.mark.parametrize(
    ("form", "traced"), [("bc1s", (2, 4, 3)), ("bc11", (2, 5)), ("each", ()), ("each", (1,))]
)
def test_what_goes_there_comes_back(form, traced) -> None:
    tensor = torch.randn(traced)

    there = apply(to_artifact(form, traced, 2), tensor)

    assert torch.equal(apply(from_artifact(form, traced), there), tensor)


def test_hidden_states_are_counted_from_the_end() -> None:
    class Faced:
        outputs = tuple(
            type("Spec", (), {"name": name}) for name in ("last", *(f"h.{i}" for i in range(13)))
        )

    assert traced_output(Faced, "h.-2") == "h.11"
    assert traced_output(Faced, "last") == "last"
    assert traced_output(Faced, "h.-14") is None
    assert traced_output(Faced, "other") is None
