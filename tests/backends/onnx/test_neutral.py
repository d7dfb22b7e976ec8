from __future__ import annotations

import onnx_ir as ir

from qdx.backends.onnx.neutral import remove_neutral_arithmetic

BEFORE = """
<ir_version: 10, opset_import: ["": 21]>
g (float[2] x, float[1] b) => (float[2] y)
<float one = {1.0}, float zero = {0.0}, float two = {2.0}> {
    a = Div(x, one)
    c = Add(a, zero)
    d = Mul(c, two)
    e = Sub(zero, d)
    y = Add(e, b)
}
"""

EXPECTED = ["Mul(x, two)", "Sub(zero, d)", "Add(e, b)"]


def test_only_what_changes_nothing_goes() -> None:
    model = ir.from_onnx_text(BEFORE)

    remove_neutral_arithmetic(model)

    assert [
        f"{n.op_type}({', '.join(str(i.name) for i in n.inputs if i)})" for n in model.graph
    ] == EXPECTED
