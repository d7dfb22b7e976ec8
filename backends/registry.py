"""Backends by the name of their runtime."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from qdx.exporter.errors import RuntimeMissing, UsageError

if TYPE_CHECKING:
    from qdx.backends.contract import Backend


def _onnxruntime() -> Backend:
    from qdx.backends.onnxruntime.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend()


def _openvino() -> Backend:
    from qdx.backends.openvino.backend import OpenVinoBackend

    return OpenVinoBackend()


def _coreml() -> Backend:
    from qdx.backends.coreml.backend import CoreMlBackend

    return CoreMlBackend()


def _tensorrt() -> Backend:
    from qdx.backends.tensorrt.backend import TensorRtBackend

    return TensorRtBackend()


_BACKENDS: dict[str, Callable[[], Backend]] = {
    "coreml": _coreml,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}
_NEEDS = {"coreml": ("coremltools", "coreml"), "tensorrt": ("onnxruntime", "onnxruntime")}
"""The package to import and the extra that installs it, where they are not named like the runtime. Models for
TensorRT are made and verified without it; only what builds and runs engines asks for it."""


def get_backend(runtime: str) -> Backend:
    """The backend of a runtime.

    Raises:
        RuntimeMissing: Its package is not installed.
        UsageError: qdx has no backend of that name.
    """
    if runtime not in _BACKENDS:
        raise UsageError(
            f"`{runtime}`: no such runtime, expected one of {', '.join(sorted(_BACKENDS))}"
        )
    package, extra = _NEEDS.get(runtime, (runtime, runtime))
    if find_spec(package) is None:
        raise RuntimeMissing(
            f"`{package}` is not installed", hint=f'run `pip install "qdx[{extra}]"`'
        )
    return _BACKENDS[runtime]()


def is_any_loaded() -> bool:
    """Whether the package of a runtime was imported, by whomever; what it holds wants to end in its own order."""
    return any(_NEEDS.get(runtime, (runtime, ""))[0] in sys.modules for runtime in _BACKENDS)
