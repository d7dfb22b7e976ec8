"""TensorRT-RTX in tests: NVIDIA's real parser and builder, which need no device."""

from __future__ import annotations

import importlib.util

import pytest

__all__ = ["needs_rtx"]

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="TensorRT-RTX is not installed: it has no wheel for this platform",
)
