"""Where tensors stand in the files of an ONNX model. Imports nothing heavy."""

from __future__ import annotations

from typing import Final

from qdx.exporter.cost.weight_file import FileLayout

__all__ = ["EXTERNAL_DATA"]

EXTERNAL_DATA: Final = FileLayout(outside_bytes=256, page_bytes=4096, large_bytes=16 * 1024)
"""Large tensors begin on a page, so that a runtime can map them; the smallest stay in the model."""
