"""Backends by the name of their runtime: one line for each of ours, entry points for those of other packages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Final, cast

from qdx.exporter.errors import RuntimeMissing, UsageError, quoted

if TYPE_CHECKING:
    from qdx.backends.contract import Backend
    from qdx.targets.profile import TargetProfile

__all__ = ["ENTRY_POINTS", "find_backend", "get_backend", "is_any_loaded", "runtimes"]

ENTRY_POINTS: Final = "qdx.backends"
"""Other packages name their backends in this group; none replaces one of ours."""
_OURS: Final[Mapping[str, str]] = {
    "coreml": "qdx.backends.coreml.backend:CoreMlBackend",
    "onnxruntime": "qdx.backends.onnxruntime.backend:OnnxRuntimeBackend",
    "openvino": "qdx.backends.openvino.backend:OpenVinoBackend",
    "tensorrt": "qdx.backends.tensorrt.backend:TensorRtBackend",
    "tensorrt-rtx": "qdx.backends.tensorrt.backend:rtx_backend",
}

_PACKAGES: Final = frozenset({"coremltools", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"})
"""What the backends of qdx import; asked at the end of every command, so it reads no file."""


def runtimes() -> tuple[str, ...]:
    """The names of all backends, ours and those of other packages, sorted."""
    return tuple(sorted({*_OURS, *(point.name for point in entry_points(group=ENTRY_POINTS))}))


def get_backend(runtime: str) -> Backend:
    """The backend of a runtime, to make and run artifacts.

    Raises:
        RuntimeMissing: A package that it needs is not installed.
        UsageError: There is no backend of that name.
    """
    backend = find_backend(runtime)
    profile = _usual_target(runtime)
    if profile is not None and profile.needs is not None and find_spec(profile.needs) is None:
        raise RuntimeMissing(
            f"`{profile.needs}` is not installed",
            hint=f'run `pip install "qdx[{profile.needs_extra or profile.extra}]"`',
        )
    return backend


def find_backend(runtime: str) -> Backend:
    """The backend of a runtime, installed or not, for what needs no runtime: reading and checking artifacts.

    Raises:
        UsageError: There is no backend of that name.
    """
    path = _OURS.get(runtime)
    if path is None:
        found = [one for one in entry_points(group=ENTRY_POINTS) if one.name == runtime]
        if not found:
            raise UsageError(
                f"{quoted(runtime)}: no such runtime, expected one of {', '.join(runtimes())}"
            )
        path = found[0].value
    return cast("Backend", resolve_name(path)())


def is_any_loaded() -> bool:
    """Whether the package of a runtime was imported, by whomever; what it holds wants to end in its own order."""
    return not _PACKAGES.isdisjoint(sys.modules)


def _usual_target(runtime: str) -> TargetProfile | None:
    """The target that is named like its runtime; those of other packages may have none."""
    from qdx.targets.profile import list_targets, load_target

    return load_target(runtime) if runtime in list_targets() else None
