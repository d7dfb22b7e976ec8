from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
import pytest

from qdx.backends.onnx.interface import apply_interface
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.ir.graph import TensorSpec

BEFORE = """
<ir_version: 10, opset_import: ["": 21]>
g (float[2,4] tensors_x, int64 tensors_t) => (float[2,4] add)
{
    f = Cast<to = 1>(tensors_t)
    add = Add(tensors_x, f)
}
"""


@dataclass(frozen=True)
class Face:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    where: str = "unet.forward"


def lines(model: ir.Model) -> list[str]:
    return [
        f"{n.outputs[0].name} = {n.op_type}({', '.join(str(i.name) for i in n.inputs if i)})"
        for n in model.graph
    ]


def applied(timestep: TensorSpec) -> ir.Model:
    model = ir.from_onnx_text(BEFORE)
    face = Face(
        (TensorSpec("x", "float32", (2, 4)), timestep), (TensorSpec("y", "float32", (2, 4)),)
    )
    apply_interface(model, face)  # type: ignore[arg-type]  # a graph's face is all it reads
    return model


def test_same_types_are_renamed_only() -> None:
    model = applied(TensorSpec("t", "int64", ()))

    assert lines(model) == ["f = Cast(t)", "y = Add(x, f)"]


def test_float_scalar_is_cast() -> None:
    model = applied(TensorSpec("t", "float32", ()))

    assert lines(model) == ["t/Cast = Cast(t)", "f = Cast(t/Cast)", "y = Add(x, f)"]
    assert model.graph.inputs[1].dtype == ir.DataType.FLOAT


def test_one_dimension_is_taken_off() -> None:
    model = applied(TensorSpec("t", "float32", (1,)))

    assert lines(model) == [
        "t/Cast = Cast(t)",
        "t/Reshape = Reshape(t/Cast, t/traced_shape)",
        "f = Cast(t/Reshape)",
        "y = Add(x, f)",
    ]


def test_equal_names_are_a_defect() -> None:
    with pytest.raises(InternalError, match="not unique: x, y, y"):
        applied(TensorSpec("y", "int64", ()))
