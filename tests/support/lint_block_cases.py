"""Rules of floats in blocks."""

from __future__ import annotations

from qdx.backends.tensorrt.lint import DeviceFacts
from tests.support.lint_models import constant, model_of

ADA, BLACKWELL = DeviceFacts(compute_capability=(8, 9)), DeviceFacts(compute_capability=(10, 0))
SCALE = constant("float", 0.01)


def nvfp4(*, shape="4,32", axis=-1, block=16, s=SCALE, scale="s", right="fp4", **more):
    """A product in NVFP4: its activation quantized at run time, its weight stored."""
    along = "" if axis is None else f"axis = {axis}, "
    body = (
        f"e, b = trt.TRT_FP4DynamicQuantize<{along}block_size = {block}, scale_type = 17>(x, {scale})\n"
        "d = DequantizeLinear(b, s)\nk = DequantizeLinear<axis = -1, block_size = 16>(e, d)\n"
        + (
            "v = DequantizeLinear(wb, s)\nm = DequantizeLinear<axis = 0, block_size = 16>(w, v)\n"
            if right == "fp4"
            else "m = DequantizeLinear(w, s, z)\n"
        )
        + "y = MatMul(k, m)"
    )
    if scale != "s":
        body = f"{scale} = Abs(s)\n{body}"
    model = model_of(
        f"float[{shape}] x", "float y", body, opset=23, s=s,
        w=constant(right, 1, (32, 64)), wb=constant("fp8", 1, (2, 64)), z=constant("fp8", 0),
        **more,
    )  # fmt: skip
    for node in model.graph:
        for value, kind in zip(node.outputs, ("FLOAT4E2M1", "FLOAT8E4M3FN"), strict=False):
            if node.domain == "trt":
                value.dtype = type(model.graph.inputs[0].dtype)[kind]
    return model


def mxfp8(*, shape="4,64", axis=-1, block=32, exponents=("uint8", (128, 2)), elements="fp8"):
    """A product in MXFP8."""
    kind, sizes = exponents
    body = (
        f"e, b = trt.TRT_MXFP8DynamicQuantize<axis = {axis}, block_size = {block}, output_dtype = 17>(x)\n"
        "k = trt.TRT_MXFP8DequantizeLinear<axis = -1, block_size = 32, output_dtype = 1>(e, b)\n"
        "m = trt.TRT_MXFP8DequantizeLinear<axis = -1, block_size = 32, output_dtype = 1>(w, wb)\n"
        "t = Transpose<perm = [1, 0]>(m)\ny = MatMul(k, t)"
    )
    model = model_of(
        f"float[{shape}] x", "float y", body,
        w=constant(elements, 1, (128, 64)), wb=constant(kind, 127, sizes),
    )  # fmt: skip
    for node in model.graph:
        kinds = ("FLOAT8E4M3FN", "UINT8") if len(node.outputs) == 2 else ("FLOAT",)
        for value, kind in zip(node.outputs, kinds, strict=True):
            value.dtype = type(model.graph.inputs[0].dtype)[kind]
    return model


CASES = {
    "block-quantizer": (
        nvfp4(),
        [
            (nvfp4(block=32), "blocks of 32, expected 16"),
            (nvfp4(axis=0), "along axis 0, expected the last one"),
            (nvfp4(shape="2,32,32", axis=1), "along axis 1, expected the last one"),
            (nvfp4(shape="2,32,32", axis=None), "along axis 1, expected the last one"),
            (nvfp4(shape="4,40"), "40 numbers along the last axis, expected a multiple of 16"),
            (nvfp4(shape="1,2,4,32"), "4 dimensions, expected two or three"),
            (mxfp8(block=16), "blocks of 16, expected 32"),
            (mxfp8(shape="n,48"), "48 numbers along the last axis, expected a multiple of 32"),
        ],
    ),
    "block-exponents": (
        mxfp8(),
        [
            (mxfp8(exponents=("int8", (128, 2))), "reads FLOAT8E4M3FN and INT8"),
            (mxfp8(elements="int8"), "reads INT8 and UINT8"),
            (mxfp8(exponents=("uint8", (128, 4))), r"\[128, 4\] for elements of shape \[128, 64\], expected \[128, 2\]"),
        ],
    ),
    "block-device": (
        mxfp8(),
        [
            (mxfp8(), "3 operators of floats in blocks on compute capability 8.9, expected 10.0", ADA),
            (nvfp4(), "1 operators of floats in blocks", ADA),
        ],
        BLACKWELL,
    ),
    "tensor-scale": (
        nvfp4(),
        [
            (nvfp4(scale="c"), "the scale is computed"),
            (nvfp4(s=constant("float", 0.01, (1,))), r"scale in FLOAT of shape \[1\], expected one FLOAT"),
            (nvfp4(s=constant("float16", 0.01)), "scale in FLOAT16"),
            (nvfp4(s=constant("float", 0)), "scale 0, expected a positive number"),
        ],
    ),
    "mixed-formats": (
        nvfp4(),
        [(nvfp4(right="fp8"), "multiplies NVFP4 by FLOAT8E4M3FN")],
    ),
}  # fmt: skip
"""By rule: what it accepts, what it rejects with which message, and the device of what it accepts."""
