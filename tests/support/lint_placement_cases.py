"""Rules of placement: where quantizers stand, what shares a scale, and which kernels there are."""

from __future__ import annotations

from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.lint import DeviceFacts
from tests.support.lint_models import constant, linear, model_of, quantized

ON_ADA = DeviceFacts(RTX.supported, (8, 9), flavour=RTX)
"""TensorRT-RTX."""
ROUND_TRIP = "{1} = QuantizeLinear({0}, s, z)\n{2} = DequantizeLinear({1}, s, z)\n"


def one_sided(kind="int8", *, weight=True):
    """A product with one quantized operand."""
    body = (
        "k = DequantizeLinear<axis = 1>(w, ws, wz)\ny = MatMul(x, k)"
        if weight
        else ROUND_TRIP.format("x", "q", "d") + "y = MatMul(d, f)"
    )
    return model_of(
        "float[4,32] x", "float[4,64] y", body,
        s=constant("float", 0.1), z=constant("int8", 0),
        w=constant(kind, 1, (32, 64)), f=constant("float", 1, (32, 64)),
        ws=constant("float", 0.1, (64,)), wz=constant(kind, 0, (64,)),
    )  # fmt: skip


def before(operator):
    """A quantizer before an operator."""
    return quantized(body=f"y = {operator}", b=constant("float", 1, (32,)))


def skip(*, quantizes_skip, follows=True, ratios=False):
    """A quantized product and a skip connection, whose sum is quantized."""
    body = (
        ROUND_TRIP.format("x", "q", "d")
        + "k = DequantizeLinear<axis = 1>(w, ws, wz)\np = MatMul(d, k)\nh = Relu(x)\n"
    )
    body += ROUND_TRIP.format("h", "hq", "hd") if quantizes_skip else "hd = Identity(h)\n"
    body += "m = Mul(p, r)\nb = Add(m, r)\na = Add(b, hd)\n" if ratios else "a = Add(p, hd)\n"
    body += ROUND_TRIP.format("a", "aq", "y") if follows else "y = Neg(a)"
    return model_of(
        "float[4,32] x", "float[4,32] y", body,
        s=constant("float", 0.1), z=constant("int8", 0),
        w=constant("int8", 1, (32, 32)), ws=constant("float", 0.1, (32,)), wz=constant("int8", 0, (32,)),
        r=constant("float", 0.5, (32,)),
    )  # fmt: skip


def half_product(kind="int8", *, node="MatMul(d, k)", scales=(), data="float16", inputs="int8"):
    """A product in sixteen bits of an input and a weight, both quantized."""
    body = (
        ROUND_TRIP.format("x", "q", "d") + f"k = DequantizeLinear<axis = 1>(w, ws, wz)\ny = {node}"
    )
    return model_of(
        f"{data}[4,32] x", f"{data}[4,32] y", body,
        s=constant(data, 0.1), z=constant(inputs, 0),
        w=constant(kind, 1, (32, 32)), ws=constant(data, 0.1, scales), wz=constant(kind, 0, scales),
    )  # fmt: skip


def two_scales(body, second):
    """Two quantizers, the second with a scale of its own."""
    return model_of(
        "float[4,32] x", "float[4,32] y", body,
        s=constant("float", 0.1), t=constant("float", second), z=constant("int8", 0),
    )  # fmt: skip


AGAIN = (
    ROUND_TRIP.format("x", "q", "d") + "r = QuantizeLinear(d, t, z)\ny = DequantizeLinear(r, t, z)"
)
FORK = (
    ROUND_TRIP.format("x", "q", "d")
    + "r = QuantizeLinear(x, t, z)\ne = DequantizeLinear(r, t, z)\ny = {}"
)
JOIN = FORK.replace("QuantizeLinear(x, t", "QuantizeLinear(n, t").replace(
    "y = {}", "y = Concat<axis = 0>(d, e)"
)
JOIN = "n = Neg(x)\n" + JOIN


def convolution(kind="fp8", *, sizes=(32, 32, 3, 3), group=1, constant_kernel=True):
    """A quantized convolution."""
    shape = ",".join(map(str, sizes))
    channels = sizes[1] * group
    constants = {"w": constant(kind, 1, sizes)} if constant_kernel else {}
    body = (
        ROUND_TRIP.format("x", "q", "d")
        + ("" if constant_kernel else "w = QuantizeLinear(v, s, z)\n")
        + f"k = DequantizeLinear(w, s, z)\ny = Conv<group = {group}>(d, k)"
    )
    inputs = f"float[1,{channels},16,16] x" + ("" if constant_kernel else f", float[{shape}] v")
    return model_of(
        inputs, "float[1,o,h,v1] y", body,
        s=constant("float", 0.1), z=constant(kind, 0), **constants,
    )  # fmt: skip


def attention(
    kind="int8", *, tokens="128", head=64, factor="", probability_scale=1 / 127, number="float"
):
    """Products of attention with quantizers, the factor before or behind the first product."""
    cast = {"float": 1, "float16": 10}[number]
    body = (
        ROUND_TRIP.format("q", "qq", "qd") + ROUND_TRIP.format("k", "kq", "kd") + ROUND_TRIP.format("v", "vq", "vd")
        + f"a = MatMul(qd, kd)\n{factor or 'b = Identity(a)'}\np = Softmax<axis = -1>({'b' if factor else 'a'})\n"
        + f"c = Cast<to = {cast}>(p)\npq = QuantizeLinear(c, ps, z)\npd = DequantizeLinear(pq, ps, z)\ny = MatMul(pd, vd)"
    )  # fmt: skip
    return model_of(
        f"{number}[1,2,{tokens},{head}] q, {number}[1,2,{head},{tokens}] k, {number}[1,2,{tokens},{head}] v",
        f"{number}[1,2,{tokens},{head}] y", body if factor else body.replace("b = Identity(a)\n", ""),
        s=constant(number, 0.1), z=constant(kind, 0), ps=constant(number, probability_scale), f=constant(number, 0.125),
    )  # fmt: skip


CASES = {
    "raw-sum": (
        half_product(),
        [
            (half_product(scales=(32,)), "its weight has 32 scales, which multiply sums of INT8 products"),
            (half_product("fp8", scales=(32,), inputs="fp8"), "sums of FLOAT8E4M3FN products that float16 holds up to 65504"),
            (half_product(scales=(32,), node="Gemm(d, k)"), "32 scales"),
        ],
    ),
    "one-operand": (
        one_sided("int4"),
        [
            (one_sided(), "only its weight is quantized"),
            (one_sided(weight=False), "only its input is quantized"),
        ],
    ),
    "weight-path": (
        linear(),
        [
            (linear(sizes=(32, 32), between="Transpose<perm = [1, 0]>"), "Transpose behind"),
            (linear(between="Cast<to = 1>"), "Cast behind"),
        ],
    ),
    "lonely-quantizer": (
        linear(),
        [
            (before("Softmax(d)"), "Softmax computes in float"),
            (before("LayerNormalization(d, b)"), "LayerNormalization computes in float"),
        ],
    ),
    "residual": (
        skip(quantizes_skip=True),
        [(skip(quantizes_skip=False), "expected the other branch quantized too")],
    ),
    "requantized": (
        two_scales(AGAIN, 0.1),
        [(two_scales(AGAIN, 0.2), "scale 0.2 of what has just been dequantized by 0.1")],
    ),
    "refit": (
        linear(),
        [(linear(), "3 quantizers in an engine with exchangeable weights", DeviceFacts(refit=True))],
    ),
    "shared-scale": (
        two_scales(FORK.format("Add(d, e)"), 0.1),
        [(two_scales(FORK.format("Add(d, e)"), 0.2), r"2 scales \(0.1, 0.2\)")],
    ),
    "concat-scales": (
        two_scales(JOIN, 0.1),
        [(two_scales(JOIN, 0.2), "scales 0.1, 0.2, expected one")],
    ),
    "small-product": (
        linear(),
        [
            (linear(sizes=(8, 64)), "8 inputs and 64 outputs in INT8"),
            (linear(rows="1"), "one row in INT8"),
            (convolution("int8", sizes=(320, 4, 3, 3)), "4 inputs and 320 outputs"),
        ],
    ),
    "computed-kernel": (
        convolution(),
        [(convolution(constant_kernel=False), "its kernel is computed")],
    ),
    "float8-convolution": (
        convolution(),
        [
            (convolution(sizes=(32, 32, 7, 7)), "a kernel of 49 numbers"),
            (convolution(sizes=(32, 16, 3, 3)), "16 channels, expected more than 16"),
            (convolution(sizes=(64, 32, 3, 3), group=2), "in groups"),
            (convolution(sizes=(32, 32, 7, 7)), "a kernel of 49 numbers", ON_ADA),
        ],
    ),
    "int8-attention": (
        attention(),
        [
            (attention(tokens="4096"), "attention over 4096 tokens"),
            (attention(tokens="n"), "an open number of tokens"),
            (attention(head=40), "heads of 40 in int8, expected 16, 32, 64"),
            (attention(tokens="513"), "attention over 513 tokens", ON_ADA),
        ],
    ),
    "float8-attention": (
        attention("fp8", tokens="4096"),
        [
            (attention("fp8", head=40), "heads of 40 in FP8"),
            (attention("fp8", factor="b = Mul(a, f)"), "scaled behind the product"),
            (attention("fp8", number="float16"), "adds up in FLOAT16, expected FLOAT"),
            (attention("fp8", head=272), "heads of 272 in FP8, expected at most 256", ON_ADA),
            (attention("fp8", tokens="31"), "attention over 31 keys in FP8, expected at least 32", ON_ADA),
        ],
    ),
    "softmax-scale": (
        attention("fp8", probability_scale=1 / 448),
        [
            (attention("fp8"), "scale 0.00787402 of probabilities in FLOAT8E4M3FN, expected 0.00223214"),
            (attention("int8", probability_scale=1 / 448), "expected 0.00787402"),
        ],
    ),
}  # fmt: skip
"""By rule: what it accepts, what it rejects with which message, and the device of what it accepts."""
