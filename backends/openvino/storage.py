"""Weights of the IR in a smaller dtype, with a Convert behind each that is folded at compile time.

OpenVINO's own compression halves every constant, and a timestep embedding does not survive half
precision of its frequencies; its transformations fold a Cast of a constant that the ONNX file holds.
So weights are narrowed after the transformations, one at a time, into a file that is mapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdx.backends.onnx.weights import narrowed, storage_of
from qdx.backends.openvino.package import openvino

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

_TYPES = {torch.float16: "f16", torch.bfloat16: "bf16"}


def narrow_weights(model: Any, graph: Graph, storage_dtype: str, scratch: Path) -> list[Any]:
    """Stores matrices and kernels in `storage_dtype`, in place; the model maps `scratch` from then on.

    Before: `Constant f32 -> MatMul`.
    After: `Constant f16 -> Convert f32 -> MatMul`.

    Returns:
        The mappings. They must outlive the model: its constants point into them without holding them.

    Raises:
        TargetRefusal: A weight does not fit float16.
        OSError: The disk refused.
    """
    ov = openvino()
    kept: list[Any] = []
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() != "Constant" or name not in graph.weights:
            continue
        stored = storage_of(graph.weights[name], storage_dtype)
        if stored not in _TYPES or node.get_element_type() != ov.Type.f32:
            continue
        # A copy: mapped constants cannot be written, which torch wants to be able to.
        values = narrowed(name, torch.from_numpy(np.array(node.data)), stored)
        mapped = _mapped(values.view(torch.int16).numpy(), scratch)
        shape, kind = node.get_output_shape(0), getattr(ov.Type, _TYPES[stored])
        kept.append(mapped)
        small = ov.op.Constant(ov.Tensor(mapped, shape, kind), shared_memory=True)
        small.set_friendly_name(name)
        users = node.output(0).get_target_inputs()
        wide = ov.opset13.convert(small, "f32")
        wide.set_friendly_name(f"{name}/Convert")
        for user in users:
            user.replace_source_output(wide.output(0))
    return kept


def _mapped(values: np.ndarray[Any, Any], scratch: Path) -> np.ndarray[Any, Any]:
    with scratch.open("ab") as file:
        offset = file.tell()
        values.tofile(file)
    return np.memmap(scratch, dtype=values.dtype, mode="r+", offset=offset, shape=values.shape)
