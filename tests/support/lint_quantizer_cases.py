"""Rules of quantizers themselves: zero points, scales, what shares one, and the formats."""

from __future__ import annotations

from qdx.backends.tensorrt.lint import DeviceFacts
from qdx.backends.tensorrt.versions import VersionRange
from tests.support.lint_models import constant, linear, model_of, quantized

S, Z = constant("float", 0.1), constant("int8", 0)


def blocks(*, sizes=(4, 32), scales=(4, 2), opset=21, kind="int4", block=16, axis=1):
    """A weight in blocks, dequantized."""
    shape = ",".join(map(str, sizes))
    return model_of(
        "float[1] x",
        f"float[{shape}] y",
        f"y = DequantizeLinear<axis = {axis}, block_size = {block}>(w, s, z)",
        opset=opset,
        w=constant(kind, 1, sizes),
        s=constant("float", 0.1, scales),
        z=constant(kind, 0, scales),
    )


def two_levels():
    """FP4 in blocks whose scales are FP8 in turn."""
    return model_of(
        "float[1] x",
        "float[4,32] y",
        "ws = DequantizeLinear(bs, g)\ny = DequantizeLinear<axis = 1, block_size = 16>(w, ws)",
        opset=23,
        w=constant("fp4", 1, (4, 32)),
        bs=constant("fp8", 1, (4, 2)),
        g=constant("float", 0.01),
    )


def half(opset, *, cast, scale=1e-9):
    """Numbers in float16 with a scale in float32, cast in the model or not."""
    body = (
        "h = Cast<to = 10>(s)\nq = QuantizeLinear(x, h, z)"
        if cast
        else "q = QuantizeLinear(x, s, z)"
    )
    return model_of("float16[4] x", "int8[4] q", body, opset=opset, s=constant("float", scale), z=Z)


def plain(body, *, opset=21, **constants):
    return model_of("float[2,32] x", "float[2,32] y", body, opset=opset, **constants)


ROUND_TRIP = "q = QuantizeLinear(x, s, z)\ny = DequantizeLinear(q, s, z)"
OLD = DeviceFacts(VersionRange.parse(">=10.7,<11"))
ADA, AMPERE = DeviceFacts(compute_capability=(8, 9)), DeviceFacts(compute_capability=(8, 6))

CASES = {
    "zero-point-absent": (
        quantized(),
        [
            (plain("q = QuantizeLinear(x, s)\ny = DequantizeLinear(q, s, z)", s=S, z=Z), "no zero point"),
            (plain("q = QuantizeLinear(x, s, z)\ny = DequantizeLinear(q, s)", s=S, z=Z), "no zero point"),
        ],
    ),
    "zero-point-computed": (
        quantized(),
        [(plain("c = Identity(z)\nq = QuantizeLinear(x, s, c)\ny = DequantizeLinear(q, s, z)", s=S, z=Z), "computed")],
    ),
    "zero-point-not-zero": (
        quantized(),
        [(plain(ROUND_TRIP, s=S, z=constant("int8", 3)), "zero point 3, expected 0")],
    ),
    "zero-point-size": (
        linear(),
        [(linear(wz=Z), r"zero point of shape \[\] for a scale of shape \[64\]")],
    ),
    "quantized-type": (
        quantized("fp8"),
        [
            (quantized("uint8"), "quantized to UINT8, expected one of FLOAT4E2M1, FLOAT8E4M3FN, INT4, INT8"),
            (plain("q = QuantizeLinear<output_dtype = 3>(x, s, z)\ny = DequantizeLinear(q, s)", s=S, z=constant("fp8", 0)), "zero point in FLOAT8E4M3FN of numbers in INT8"),
        ],
    ),
    "scale-computed": (
        two_levels(),
        [(plain("c = Abs(s)\nq = QuantizeLinear(x, c, z)\ny = DequantizeLinear(q, s, z)", s=S, z=Z), "computed")],
    ),
    "scale-not-positive": (
        linear(),
        [
            (quantized(scale=0), "scale from 0 to 0"),
            (quantized(scale=-1), "scale from -1"),
            (quantized(scale=float("nan")), "scale from nan"),
            (linear(ws=constant("float", [0.1] * 63 + [0.0])), "scale from 0 to 0.1"),
        ],
    ),
    "scale-type": (
        quantized(),
        [(half(21, cast=False), "scale in FLOAT of numbers in FLOAT16"), (plain("y = DequantizeLinear(w, s, z)", w=constant("int8", 1, (2, 32)), s=constant("fp8", 1), z=Z), "scale in FLOAT8E4M3FN, expected FLOAT")],
    ),
    "scale-underflow": (
        half(21, cast=True, scale=1e-3),
        [(half(21, cast=True), "becomes 0 in float16"), (half(17, cast=False), "becomes 0 in float16")],
    ),
    "activation-by-channel": (
        linear(),
        [
            (
                plain("q = QuantizeLinear<axis = 1>(x, s, z)\ny = DequantizeLinear<axis = 1>(q, s, z)",
                      s=constant("float", 0.1, (32,)), z=constant("int8", 0, (32,))),
                "32 scales of an activation, expected 1",
            )
        ],
    ),
    "axis-size": (
        linear(),
        [
            (linear(weight_scale=constant("float", 0.1, (32,))), "32 scales along axis 1 of 64"),
            (plain(ROUND_TRIP, s=constant("float", 0.1, (1,)), z=constant("int8", 0, (1,))), "1 scales along axis 1 of 32"),
        ],
    ),
    "block-shape": (
        blocks(),
        [
            (blocks(sizes=(4, 4, 32), scales=(2, 4, 32), axis=0), "axis 0 of 3, expected one of the last two"),
            (blocks(sizes=(4, 32), scales=(2, 2)), r"axes \[0, 1\]"),
            (blocks(sizes=(4, 34), scales=(4, 4)), "4 scales for 34 numbers"),
            (blocks(sizes=(4, 32), scales=(2,)), "a scale of 1 dimensions for data of 2"),
        ],
    ),
    "int4-block": (
        blocks(sizes=(4, 128), block=64),
        [(blocks(sizes=(4, 64), block=32), "blocks of 32, documented are 64 and 128")],
    ),
    "odd-count": (
        blocks(),
        [(blocks(sizes=(3, 15), scales=(3, 1), block=15), "45 numbers of four bits")],
    ),
    "format-opset": (
        quantized("fp8"),
        [
            (quantized("fp8", opset=17), "FLOAT8E4M3FN in operator set 17, expected 19"),
            (blocks(opset=19), "INT4 in operator set 19, expected 21"),
            (blocks(opset=19, kind="int8"), "blocks in operator set 19, expected 21"),
            (quantized("fp4", opset=21), "FLOAT4E2M1 in operator set 21, expected 23"),
            (
                model_of("bfloat16[1,4,8,8] x", "bfloat16[1,4,8,8] y", "y = Conv(x, w)", w=constant("bfloat16", 1, (4, 4, 1, 1))),
                "convolutions in BFLOAT16 in operator set 21, expected 22",
            ),
        ],
    ),
    "format-version": (
        quantized("fp4", opset=23),
        [(quantized("fp4", opset=23), "FLOAT4E2M1 in TensorRT 10.7, expected 10.8", OLD)],
    ),
    "float8-device": (
        quantized("fp8"),
        [(quantized("fp8"), "on compute capability 8.6, expected 8.9", AMPERE)],
        ADA,
    ),
    "float4-device": (
        quantized("fp8"),
        [(quantized("fp4", opset=23), "on compute capability 8.9, expected 10.0", ADA)],
        ADA,
    ),
}  # fmt: skip
"""By rule: what it accepts, what it rejects with which message, and the device of both."""
