"""torch's table of translations to ONNX, which `torch.onnx.export` builds anew for every program.

That takes half a second, as long as all else for a small component, and the table is the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

from torch.onnx._internal.exporter._registration import ONNXRegistry

__all__ = ["registry_built_once"]

_build = ONNXRegistry.from_torchlib


@contextmanager
def registry_built_once() -> Iterator[None]:
    """Within, the exporter finds a copy of the table that the first export has built; what it adds stays in the copy."""
    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(_copied)):
        yield


def _copied(opset_version: int) -> Any:
    known = _built(opset_version)
    copied = ONNXRegistry()
    copied.__dict__ |= known.__dict__
    copied.functions = {target: list(found) for target, found in known.functions.items()}
    return copied


@cache
def _built(opset_version: int) -> Any:
    return _build(opset_version=opset_version)
