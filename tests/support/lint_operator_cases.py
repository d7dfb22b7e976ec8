"""Rules of operators, element types and files of weights."""

from __future__ import annotations

import onnx_ir as ir

from qdx.backends.tensorrt.lint import DeviceFacts
from qdx.backends.tensorrt.versions import VersionRange
from tests.support.lint_models import constant, model_of, quantized

NEW, OLD = DeviceFacts(VersionRange.parse(">=11.2")), DeviceFacts(VersionRange.parse(">=10.8,<12"))


def image(body, **constants):
    return model_of("float[1,4,8,8] x", "float[1,4,8,8] y", body, **constants)


def pair(left, right, kind="Add"):
    """An operator on two values of these types."""
    return model_of(f"{left}[4,4] a, {right}[4,4] b", f"{left}[4,4] y", f"y = {kind}(a, b)")


def external(name, *, length=16):
    """A weight in a file."""
    model = image("y = Add(x, w)", w=constant("float", 1, (4, 1, 1)))
    model.graph.initializers["w"].const_value = ir.ExternalTensor(
        name, 0, length, ir.DataType.FLOAT, shape=ir.Shape([4, 1, 1]), name="w", base_dir="."
    )
    return model


def functional():
    """A model that calls a function of its own."""
    model = image("y = Neg(x)")
    x, y = ir.val("x"), ir.val("y")
    body = ir.Graph([x], [y], nodes=[ir.node("Neg", [x], outputs=[y])], opset_imports={"": 21})
    model.functions["own", "Negative", ""] = ir.Function(
        "own", "Negative", "", graph=body, attributes=[]
    )
    node = next(iter(model.graph))
    node.domain, node.op_type = "own", "Negative"
    return model


RESIZE = "y = Resize<{}>(x, , , n)"
SIZES = ("float", constant("float", [1, 4, 8, 8])[1].astype("int64"))
TWO = ("int64", SIZES[1][:1] * 2)

CASES = {
    "integer-operator": (
        quantized(),
        [
            (
                model_of("int8[4,4] a, int8[4,4] b", "int32[4,4] y", "y = MatMulInteger(a, b)"),
                "MatMulInteger is not read by TensorRT",
            )
        ],
    ),
    "operator-version": (
        functional(),
        [
            (image("y = Bernoulli(x)"), "Bernoulli is not an operator that"),
            (image("y = own.Gelu(x)"), "own::Gelu is not an operator that"),
            (image("y = GroupNormalization<num_groups = 2>(x, s, s)", s=constant("float", 1, (4,))), "GroupNormalization in TensorRT 10.8, expected 10.9", OLD),
            (image("y = trt.TRT_MXFP8DynamicQuantize(x)"), "trt::TRT_MXFP8DynamicQuantize in TensorRT 10.8, expected 10.12", OLD),
        ],
    ),
    "operator-form": (
        image(RESIZE.format('mode = "linear"'), n=SIZES),
        [
            (image(RESIZE.format('mode = "cubic"'), n=SIZES), "mode cubic"),
            (image(RESIZE.format('mode = "linear", antialias = 1'), n=SIZES), "antialiased"),
            (image("a, b = Split<axis = 1, num_outputs = 2>(x, n)\ny = Concat<axis = 1>(a, b)", n=SIZES), "both sizes and `num_outputs`"),
            (image('y = ScatterND<reduction = "add">(x, i, x)', i=SIZES), "reduction add, expected none"),
            (image('y = ScatterElements<reduction = "add">(x, i, x)', i=SIZES), "becomes a plugin"),
            (image("y, m = LayerNormalization(x, s)\nu = Neg(m)", s=constant("float", 1, (8,))), "uses 1 outputs beside the first"),
            (image("y = Attention<softcap = 2.0>(x, x, x)"), "has `softcap`"),
            (model_of("float[4,8] x", "float[4,8] y", "y = Attention(x, x, x)"), "2 dimensions, expected 4"),
            (model_of("float[4,8] x, int64[1] a", "float[4,1] y", "y = ReduceMean(x, a)"), "axes are computed"),
            (image("y = MaxPool<kernel_shape = [2, 2], dilations = [2, 2]>(x)"), r"dilations \[2, 2\]"),
            (model_of("float[4,8] x", "float[4,2] y", "y, i = TopK<sorted = 0>(x, k)", k=TWO), "unsorted"),
        ],
    ),
    "opset": (
        model_of("float[4] x", "float[4] y", "y = Neg(x)", opset=25),
        [
            (model_of("float[4] x", "float[4] y", "y = Neg(x)", opset=26), "operator set 26 in TensorRT 11.2, expected 9 to 25", NEW),
            (model_of("float[4] x", "float[4] y", "y = Neg(x)", opset=8), "operator set 8 .* expected 9"),
        ],
        NEW,
    ),
    "mixed-types": (
        pair("float16", "float16"),
        [
            (pair("float16", "float"), "FLOAT16 and FLOAT, expected one type"),
            (pair("bfloat16", "float16", "MatMul"), "BFLOAT16 and FLOAT16"),
            (
                model_of("float16[2,8] x", "float16[2,8] y", "y = LayerNormalization(x, s)", s=constant("float", 1, (8,))),
                "FLOAT16 and FLOAT",
            ),
        ],
    ),
    "cast-float8": (
        quantized("fp8"),
        [
            (image("c = Cast<to = 17>(x)\ny = Cast<to = 1>(c)"), "casts FLOAT8E4M3FN"),
            (image("c = Cast<to = 19>(x)\ny = Cast<to = 1>(c)"), "casts FLOAT8E5M2"),
        ],
    ),
    "integer-bias": (
        quantized(),
        [(model_of("float[1] x", "float[8] y", "y = DequantizeLinear(b, s)", b=constant("int32", 5, (8,)), s=constant("float", 1)), "dequantizes int32")],
    ),
    "double": (
        pair("float", "float"),
        [(pair("double", "double"), "in DOUBLE")],
    ),
    "external-data": (
        external("pyproject.toml"),
        [
            (external("absent.data"), "`absent.data` is missing"),
            (external("pyproject.toml", length=1 << 30), "bytes, expected 1073741824 or more"),
        ],
    ),
    "unknown-type": (
        pair("float", "float"),
        [(image("u = own.Unknown(x)\ny = Add(u, x)"), "1 values without a type")],
    ),
}  # fmt: skip
"""By rule: what it accepts, what it rejects with which message, and the device of what it accepts."""
