"""A small model with a product of every form that an audit tells apart, one of which no lowering of qdx may write."""

from __future__ import annotations

import onnx_ir as ir

from qdx.backends.site_table import PARTS, SITES, SiteTable
from tests.support.lint_models import constant, model_of

OLD, NEW, STORED, CONV, STORED_CONV, FLOAT = (
    "old/MatMul",
    "new/MatMul",
    "stored/MatMul",
    "conv/Conv",
    "stored_conv/Conv",
    "float/MatMul",
)
PRODUCTS = (OLD, NEW, STORED, CONV, STORED_CONV, FLOAT)
_BODY = """
aq = QuantizeLinear(a, s, z)
ad = DequantizeLinear(aq, s, z)
aw = DequantizeLinear<axis = 1>(w, ws, wz)
old = MatMul(ad, aw)
bq = QuantizeLinear(b, s, z)
bd = DequantizeLinear(bq, s, z)
bw = DequantizeLinear(w2, s, z)
bm = MatMul(bd, bw)
new = Mul(bm, r)
cw = DequantizeLinear<axis = 1>(w3, ws, wz)
stored = MatMul(c, cw)
iq = QuantizeLinear(i, s, z)
id = DequantizeLinear(iq, s, z)
iw = DequantizeLinear<axis = 0>(wc, ws16, wz16)
conv = Conv<pads = [1, 1, 1, 1]>(id, iw)
jw = DequantizeLinear<axis = 0>(wd, ws16, wz16)
stored_conv = Conv<pads = [1, 1, 1, 1]>(j, jw)
float = MatMul(e, wf)
"""


def planted() -> ir.Model:
    """The model: `old` is the 8-bit product whose raw sum stays in float16, `new` computes the same and keeps it small."""
    matrix, kernel = (64, 64), (16, 16, 3, 3)
    picture = "float16[1,16,8,8]"
    model = model_of(
        "float16[64,64] a, float16[64,64] b, float16[64,64] c, float16[64,64] e, "
        f"{picture} i, {picture} j",
        "float16[64,64] old, float16[64,64] new, float16[64,64] stored, float16[64,64] float, "
        f"{picture} conv, {picture} stored_conv",
        _BODY,
        s=constant("float16", 0.05),
        z=constant("int8", 0),
        w=constant("int8", 3, matrix),
        w2=constant("int8", 5, matrix),
        w3=constant("int8", 7, matrix),
        wf=constant("float16", 0.1, matrix),
        ws=constant("float16", [0.01 + 0.001 * i for i in range(64)]),
        wz=constant("int8", 0, (64,)),
        r=constant("float16", [0.5 + 0.005 * i for i in range(64)]),
        wc=constant("int8", 3, kernel),
        wd=constant("int8", 5, kernel),
        ws16=constant("float16", [0.01 + 0.001 * i for i in range(16)]),
        wz16=constant("int8", 0, (16,)),
    )
    rename(model, {"bm": NEW, **{name.partition("/")[0]: name for name in PRODUCTS if name != NEW}})
    return model


def rename(model: ir.Model, names: dict[str, str]) -> None:
    """Names nodes: those that make a value of `names` so, others after it; each of `names` is a site of that name."""
    for node in model.graph:
        output = str(node.outputs[0].name)
        node.name = names.get(output, f"{output}/{node.op_type}")
    sites = {node: [node.partition("/")[0]] for node in names.values()}
    model.metadata_props.update({SITES: SiteTable(sites).text, PARTS: "{}"})


def attention(keys: int) -> ir.Model:
    """An attention whose products are quantized to int8, with so many keys."""
    quantized = "\n".join(
        f"{one}q = QuantizeLinear({one}, s, z)\n{one}d = DequantizeLinear({one}q, s, z)"
        for one in ("q", "k", "v")
    )
    model = model_of(
        f"float16[1,4,64,32] q, float16[1,4,32,{keys}] k, float16[1,4,{keys},32] v",
        "float16[1,4,64,32] y",
        f"{quantized}\nqk = MatMul(qd, kd)\np = Softmax<axis = -1>(qk)\n"
        "pq = QuantizeLinear(p, t, z)\npd = DequantizeLinear(pq, t, z)\ny = MatMul(pd, vd)",
        s=constant("float16", 0.05),
        t=constant("float16", 0.008),
        z=constant("int8", 0),
    )
    rename(model, {"qk": "attn/MatMul", "p": "attn/Softmax", "y": "attn/MatMul_1"})
    return model
