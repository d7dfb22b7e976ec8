"""What the runtimes' own quantizers make of our float32 artifacts, with their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

Call = dict[str, np.ndarray[Any, Any]]


def arrays(specs: Sequence[Any], tensors: Any) -> Call:
    """A recorded call as the arrays that an artifact declares.

    Args:
        specs: The artifact's inputs: `name`, `dtype`, `shape`.
        tensors: By name; a scalar becomes as long as the artifact wants it.
    """
    found = {}
    for spec in specs:
        value = tensors[spec.name].to(getattr(torch, spec.dtype))
        if value.dim() == 0 and len(spec.shape) == 1:
            value = value.reshape(1)
        found[spec.name] = value.contiguous().numpy()
    return found


def nncf_quantize(source: Path, target: Path, calls: Sequence[Call]) -> None:
    """`nncf.quantize` with its defaults, on all calls."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source / "openvino_model.xml")
    quantized = nncf.quantize(model, nncf.Dataset(calls), subset_size=len(calls))
    target.mkdir(parents=True)
    openvino.save_model(quantized, target / "openvino_model.xml", compress_to_fp16=False)


def quantize_static(source: Path, target: Path, calls: Sequence[Call]) -> None:
    """ONNX Runtime's `quantize_static` with its defaults, weights by channel, after its own preparation."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc] # it has no types
        def __init__(self) -> None:
            self._calls: Iterator[Call] = iter(calls)

        def get_next(self) -> Call | None:
            return next(self._calls, None)

    target.mkdir(parents=True)
    prepared = target.with_name(f"{target.name}-prepared")
    prepared.mkdir(exist_ok=True)
    # Its preparation does not find weights that lie beside the model.
    onnx.save(onnx.load(source / "model.onnx"), prepared / "whole.onnx")
    # Symbolic shapes are for models without static ones.
    quant_pre_process(prepared / "whole.onnx", prepared / "model.onnx", skip_symbolic_shape=True)
    quantize(
        prepared / "model.onnx",
        target / "model.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
    )


PEERS = {
    "openvino": ("nncf.quantize", nncf_quantize),
    "onnxruntime": ("quantize_static", quantize_static),
}
"""By runtime: its name in the figures, and what makes it."""
