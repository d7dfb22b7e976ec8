"""Attention as ONNX Runtime's own operator, which tiles the scores instead of storing them.

MultiHeadAttention (domain `com.microsoft`) takes tokens before the heads are split, so that the
reshapes and transposes around the products go as well.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qdx.backends.onnx.origin import note_origins

_SPLIT_HEADS = [0, 2, 1, 3]


def fuse_attention(model: ir.Model) -> None:
    """Replaces attention without a mask by one operator, in place, before nodes are named.

    Before::

        q = Transpose[0,2,1,3](Reshape(tokens_q)); k, v likewise
        y = Reshape(Transpose[0,2,1,3](MatMul(Softmax(MatMul(Mul(q, scale), Transpose(k))), v)))

    After::

        y = MultiHeadAttention[num_heads, scale](tokens_q, tokens_k, tokens_v)
    """
    fused = False
    for node in list(model.graph):
        if node.op_type == "Softmax" and _fuse(model, node):
            fused = True
    if fused:
        model.opset_imports["com.microsoft"] = 1
        RemoveUnusedNodesPass()(model)


def _fuse(model: ir.Model, softmax: ir.Node) -> bool:
    scores = _producer(softmax.inputs[0], "MatMul")
    product = _only_consumer(softmax, "MatMul")
    scaled = scores and _producer(scores.inputs[0], "Mul")
    swapped = scores and _producer(scores.inputs[1], "Transpose")
    if not (scores and product and scaled and swapped):
        return False
    scale = ir.convenience.get_const_tensor(scaled.inputs[1]) if scaled.inputs[1] else None
    tokens = [_tokens(value) for value in (scaled.inputs[0], swapped.inputs[0], product.inputs[1])]
    merged = _only_consumer(product, "Transpose")
    flat = merged and _only_consumer(merged, "Reshape")
    if scale is None or None in tokens or not merged or not flat or not _splits_heads(merged):
        return False
    heads = _heads(scaled.inputs[0])
    result = flat.outputs[0]
    if heads is None or result.shape is None or len(result.shape) != 3:  # tokens
        return False
    attention = ir.node(
        "MultiHeadAttention",
        tokens,
        {"num_heads": heads, "scale": float(scale.numpy())},
        domain="com.microsoft",
        outputs=[ir.Value(shape=result.shape, type=result.type)],
    )
    attention.metadata_props.update(product.metadata_props)
    note_origins(attention, scores, product)
    model.graph.insert_after(flat, attention)
    result.replace_all_uses_with(attention.outputs[0], replace_graph_outputs=True)
    return True


def _tokens(heads: ir.Value | None) -> ir.Value | None:
    transpose = _producer(heads, "Transpose")
    reshape = transpose and _producer(transpose.inputs[0], "Reshape")
    if not transpose or not reshape or not _splits_heads(transpose):
        return None
    value = reshape.inputs[0]
    if value is None or value.shape is None or len(value.shape) != 3:
        return None
    return value


def _heads(value: ir.Value | None) -> int | None:
    heads = value.shape[1] if value is not None and value.shape is not None else None
    return heads if isinstance(heads, int) else None


def _splits_heads(node: ir.Node) -> bool:
    return list(node.attributes["perm"].as_ints()) == _SPLIT_HEADS


def _producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == kind else None


def _only_consumer(node: ir.Node, kind: str) -> ir.Node | None:
    uses = [use.node for use in node.outputs[0].uses()]
    return uses[0] if len(uses) == 1 and uses[0].op_type == kind else None
