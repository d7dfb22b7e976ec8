"""A graph to `model.onnx` with `model.onnx_data` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxscript.values import Opset

from qdx.backends.contract import LoweredFiles
from qdx.backends.onnx.carried_types import carry_types
from qdx.backends.onnx.four_bits import widen_four_bits
from qdx.backends.onnx.lowering import model_from_graph, write_model
from qdx.backends.onnx.translations import Forms
from qdx.backends.onnxruntime.attention import fuse_attention
from qdx.backends.onnxruntime.biases import quantize_biases
from qdx.backends.onnxruntime.convolution import convolution_to_gemm
from qdx.backends.onnxruntime.gated_linear import split_gated_linears
from qdx.backends.onnxruntime.gemm import linear_to_gemm
from qdx.backends.onnxruntime.quantizers import share_quantizers, write_zero_points
from qdx.backends.onnxruntime.sorting import sorting_table
from qdx.backends.onnxruntime.stored_weights import decompress_once, gemm_to_matmul

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx_data"

OPSET = 21
FORMS = Forms(opset=OPSET, translations=sorting_table(Opset("", OPSET)))
PASSES = (fuse_attention, gemm_to_matmul, share_quantizers, carry_types)
BOUND_PASSES = (
    widen_four_bits,
    decompress_once,
    write_zero_points,
    convolution_to_gemm,
    linear_to_gemm,
    split_gated_linears,
    quantize_biases,
)
"""What the runtime's fusions need; each leaves alone what is not quantized."""


def lower(graph: Graph, storage_dtype: str, folder: Path) -> LoweredFiles:
    """Writes the component into `folder`.

    Raises:
        StorageError: The disk refused.
        TargetRefusal: The graph has an operator without a form in ONNX, or a weight does not fit the type.
    """
    model = model_from_graph(
        graph, FORMS, storage_dtype=storage_dtype, passes=PASSES, bound_passes=BOUND_PASSES
    )
    write_model(model, folder / MODEL_FILE, external_data=DATA_FILE)
    data = folder / DATA_FILE
    return LoweredFiles(folder / MODEL_FILE, (data,) if data.exists() else ())
