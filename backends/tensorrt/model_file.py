"""A model file for TensorRT, read without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from qdx.exporter.errors import InvalidBundle, first_line, quoted

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["read_model", "read_proto"]


def read_model(path: Path) -> ir.Model:
    """The model in a file, without its weights.

    Raises:
        InvalidBundle: It is missing, or no ONNX model.
    """
    try:
        return ir.load(path)
    except Exception as error:  # those of the protobuf library and of the file system share no base
        raise InvalidBundle(
            f"{quoted(path)}: not an ONNX model: {first_line(error)}", hint="export again"
        ) from error


def read_proto(path: Path) -> ModelProto:
    """The model in a file as ONNX's own message, without its weights; raises like `read_model`."""
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # those of the protobuf library and of the file system share no base
        raise InvalidBundle(
            f"{quoted(path)}: not an ONNX model: {first_line(error)}", hint="export again"
        ) from error
