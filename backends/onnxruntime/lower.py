"""A graph to `model.onnx` with `model.onnx_data` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qdx.backends.contract import LoweredFiles
from qdx.backends.onnx.lowering import model_from_graph, write_model
from qdx.backends.onnx.translations import Forms
from qdx.backends.onnxruntime.attention import fuse_attention
from qdx.backends.onnxruntime.refuse import storage_refusal
from qdx.exporter.errors import TargetRefusal

if TYPE_CHECKING:
    from qdx.exporter.graph.graph import Graph

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx_data"

FORMS = Forms(opset=21)


def lower(graph: Graph, storage_dtype: str, folder: Path) -> LoweredFiles:
    """Writes the component into `folder`.

    Raises:
        StorageError: The disk refused.
        TargetRefusal: The dtype is not one that the runtime reads.
    """
    refusal = storage_refusal(graph.component, storage_dtype)
    if refusal is not None:
        raise TargetRefusal(str(refusal), refusals=(refusal,))
    model = model_from_graph(graph, FORMS, storage_dtype=storage_dtype, passes=(fuse_attention,))
    write_model(model, folder / MODEL_FILE, external_data=DATA_FILE)
    data = folder / DATA_FILE
    return LoweredFiles(folder / MODEL_FILE, (data,) if data.exists() else ())
