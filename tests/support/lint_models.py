"""Small models for the rules: ONNX text, with constants given beside it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from qdx.backends.tensorrt.lint import RULES, DeviceFacts, lint
from qdx.backends.tensorrt.lint.subject import Subject

KINDS = {
    "float": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int8": np.int8,
    "uint8": np.uint8,
    "int32": np.int32,
    "int4": ml_dtypes.int4,
    "fp8": ml_dtypes.float8_e4m3fn,
    "fp4": ml_dtypes.float4_e2m1fn,
}
_TEXT = {"fp8": "float8e4m3fn", "fp4": "float4e2m1"}


def constant(kind, values, shape=()):
    """A constant of a type: one number for all of it, or all numbers."""
    array = np.asarray(values, dtype=np.float64).astype(KINDS[kind])
    return kind, np.array(np.broadcast_to(array, shape) if shape else array)


def model_of(inputs, outputs, body, *, opset=21, **constants):
    """A model of typed inputs and outputs, a body in ONNX text and constants by name."""
    declared = [
        f"{_TEXT.get(kind, kind)}[{','.join(map(str, array.shape))}] {name}"
        if array.shape
        else f"{_TEXT.get(kind, kind)} {name}"
        for name, (kind, array) in constants.items()
    ]
    for kind, text in _TEXT.items():
        inputs, outputs = (each.replace(f"{kind}[", f"{text}[") for each in (inputs, outputs))
    parameters = ", ".join(filter(None, [inputs, *declared]))
    text = (
        f'<ir_version: 10, opset_import: ["": {opset}, "trt": 1, "own": 1]>\n'
        f"g ({parameters}) => ({outputs}) {{\n{body}\n}}"
    )
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    model = ir.from_proto(proto)
    for value in [value for value in model.graph.inputs if value.name in constants]:
        kind, array = constants[value.name]
        value.const_value = ir.tensor(array, name=value.name)
        value.shape = value.const_value.shape
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def faults(model, rule, facts=None):
    """What one rule says about a model."""
    (found,) = [each for each in RULES if each.name == rule]
    return [each.message for each in found.check(Subject(model), facts or DeviceFacts())]


def broken(model, facts=None):
    """Names of the rules that a model breaks, each once."""
    return list(dict.fromkeys(each.rule for each in lint(model, facts)))


def quantized(kind="int8", *, scale=0.1, opset=21, body="", data="float[2,32]", **more):
    """A model that quantizes and dequantizes its input, and more where a body says so."""
    constants = {"s": constant("float", scale), "z": constant(kind, 0), **more}
    lines = "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\n"
    return model_of(
        f"{data} x", f"{data} y", lines + (body or "y = Identity(d)"), opset=opset, **constants
    )


def linear(
    *,
    kind="int8",
    sizes=(32, 64),
    rows="4",
    scale=0.1,
    weight_scale=None,
    between="",
    opset=21,
    **more,
):
    """A quantized product of an activation and a stored weight."""
    inputs, outputs = sizes
    weight_scale = weight_scale or constant("float", 0.01, (outputs,))
    constants = {
        "s": constant("float", scale),
        "z": constant(kind, 0),
        "w": constant(kind, 1, sizes),
        "ws": weight_scale,
        "wz": constant(kind, 0, weight_scale[1].shape),
        **more,
    }
    body = (
        "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\n"
        "k = DequantizeLinear<axis = 1>(w, ws, wz)\n"
        + (f"m = {between}(k)\ny = MatMul(d, m)" if between else "y = MatMul(d, k)")
    )
    return model_of(
        f"float[{rows},{inputs}] x", f"float[{rows},{outputs}] y", body, opset=opset, **constants
    )
