"""Weights beside the model: the files are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault
from qdx.backends.tensorrt.lint.subject import Subject

__all__ = ["external_data"]


def external_data(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every file that holds weights exists and is as long as they need; none is opened."""
    del facts
    needed: dict[Path, tuple[int, str]] = {}
    for value in subject.model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        path = Path(tensor.path)
        end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if end >= needed.get(path, (0, ""))[0]:
            needed[path] = end, str(value.name)
    for path, (end, name) in needed.items():
        if not path.is_file():
            yield Fault(
                name,
                f"its file `{path.name}` is missing, expected it beside the model",
                "parse the model from its path, with the weights beside it",
            )
        elif path.stat().st_size < end:
            yield Fault(
                name,
                f"its file `{path.name}` has {path.stat().st_size} bytes, expected {end} or more",
            )
