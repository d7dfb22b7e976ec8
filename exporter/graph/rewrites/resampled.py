"""A graph without resampling that both smooths and keeps corners in their place: runtimes leave one of the two out.

Such resampling is a product with a matrix of numbers along each side, and becomes that.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.fx import Node

from qdx.exporter.errors import Refusal, TargetRefusal
from qdx.exporter.graph.analysis.flow import name_of, words
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["without_smoothed_corners"]

aten = torch.ops.aten

_SMOOTHING: Final = words("_upsample_bicubic2d_aa _upsample_bilinear2d_aa")


def without_smoothed_corners(graph: Graph) -> Graph:
    """The same computation with products in the place of such nodes; the graph itself where it has none.

    Raises:
        TargetRefusal: Sizes of one are not fixed.
    """
    if not any(map(_keeps_corners, graph.program.graph.nodes)):
        return graph
    editor = ProgramEditor(graph)
    for number, node in enumerate(filter(_keeps_corners, list(editor.nodes.nodes))):
        source = node.args[0]
        assert isinstance(source, Node)
        before, after = (one.meta["val"].shape[-2:] for one in (source, node))
        if not all(isinstance(size, int) for size in (*before, *after)):
            reason = "resampling with `antialias` and `align_corners` needs fixed sizes"
            raise TargetRefusal(
                f"`{graph.where}`: {reason}",
                refusals=(Refusal(graph.where, reason),),
                hint="try --shapes static",
            )
        dtype = source.meta["val"].dtype
        rows, columns = (
            editor.add_constant(f"resampled_{number}.{side}", matrix.to(dtype))
            for side, matrix in (
                ("rows", _matrix(node, before[0], after[0])),
                ("columns", _matrix(node, before[1], after[1]).T.contiguous()),
            )
        )
        tall = editor.call(aten.matmul.default, (rows, source), before=node, like=node)
        product = editor.call(aten.matmul.default, (tall, columns), before=node, like=node)
        node.replace_all_uses_with(product)
    return editor.finish()


def _keeps_corners(node: Node) -> bool:
    return name_of(node) in _SMOOTHING and bool(_align_corners(node))


def _align_corners(node: Node) -> Any:
    return node.args[2] if len(node.args) > 2 else node.kwargs["align_corners"]


def _matrix(node: Node, before: int, after: int) -> torch.Tensor:
    """How each element of a side of `after` is made of those of a side of `before`: what the operator makes of ones."""
    operator = getattr(aten, name_of(node)).default
    found: torch.Tensor = operator(
        torch.eye(before)[None, None], [after, before], True
    )  # ATen's signature
    return found[0, 0]
