from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qdx.backends.layout import graph_in_layout
from qdx.exporter.graph.ir.graph import OpenSize, TensorSpec
from qdx.targets.profile import load_target


@dataclass(frozen=True)
class Face:
    component: str
    method: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_symbols: tuple[str, ...] = ()
    sizes: dict[str, OpenSize] = field(default_factory=dict)


@pytest.mark.parametrize("method", ["forward", "forward_2"])
@pytest.mark.parametrize(
    ("target", "timestep"),
    [
        ("onnxruntime", TensorSpec("timestep", "float32", ())),
        ("openvino", TensorSpec("timestep", "int64", (1,))),
    ],
)
def test_the_timestep_of_a_unet(target: str, timestep: TensorSpec, method: str) -> None:
    traced = Face(
        "unet",
        method,
        (TensorSpec("sample", "float32", (2, 4, 8, 8)), TensorSpec("timestep", "int64", ())),
        (TensorSpec("sample", "float32", (2, 4, 8, 8)),),
    )

    placed = graph_in_layout(traced, load_target(target).layout)  # type: ignore[arg-type, type-var]

    assert timestep == placed.inputs[1]
    assert placed.outputs[0].name == "out_sample"


def test_one_timestep_for_the_batch_is_open_where_the_graph_is_dynamic() -> None:
    traced = Face(
        "unet",
        "forward",
        (TensorSpec("sample", "float32", ("batch", 4)), TensorSpec("timestep", "int64", (1,))),
        (),
        ("batch",),
    )

    placed = graph_in_layout(traced, load_target("openvino").layout)  # type: ignore[arg-type, type-var]

    assert placed.inputs[1].shape == ("timestep_0",)


def test_as_many_timesteps_are_meant_as_the_batch_is_long():
    graph = Face(
        "unet",
        "forward",
        (
            TensorSpec("sample", "float32", ("batch", 4)),
            TensorSpec("timestep", "int64", ()),
        ),
        (),
        ("batch",),
        {"batch": OpenSize(1, 2, 4)},
    )
    placed = graph_in_layout(graph, load_target("tensorrt").layout)

    assert placed.sizes == {"batch": OpenSize(1, 2, 4), "timestep_0": OpenSize(1, 1, 4)}
