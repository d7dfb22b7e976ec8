"""Whether an engine of TensorRT-RTX runs on the device at hand: its runtime says so before it loads anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from qdx.exporter.cautions import caution
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.backends.tensorrt.engine import api, rtx_api
    from qdx.backends.tensorrt.engine.log import Log
    from qdx.backends.tensorrt.engine.package import TensorRt

__all__ = ["check_validity", "reasons"]

_MALFORMED: Final = "MALFORMED_ENGINE"
_REASONS: Final[Mapping[str, str]] = {
    "VERSION_MISMATCH": "another version of TensorRT-RTX built it",
    "UNSUPPORTED_CC": "it was not compiled for this device's compute capability",
    "OLD_CUDA_DRIVER": "the driver is too old",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old",
    "INSUFFICIENT_GPU_MEMORY": "the device has too little free memory",
    _MALFORMED: "its bytes are not those of an engine",
    "CUDA_ERROR": "the driver or CUDA is not installed as it should be",
}
"""By the names of TensorRT-RTX's diagnostics."""
_HINTS: Final[Mapping[str, str]] = {
    "OLD_CUDA_DRIVER": "update the NVIDIA driver",
    "OLD_CUDA_RUNTIME": "update the NVIDIA driver",
    "INSUFFICIENT_GPU_MEMORY": "free some device memory",
    "CUDA_ERROR": "install an NVIDIA driver for CUDA 13",
}
_BUILD: Final = "build the engine again with `qdx build --force`, for this version and device"


def check_validity(trt: TensorRt, runtime: api.Runtime, plan: bytes, where: str, log: Log) -> None:
    """Asks the runtime about an engine.

    Args:
        trt: The package of TensorRT-RTX.
        runtime: Of it.
        plan: The engine, whose digest was compared.
        where: The engine's file, for messages.
        log: What the runtime says.

    Raises:
        InvalidBundle: The bytes are not those of an engine.
        RuntimeMissing: The engine is for another version or device, or the driver is missing or too old.
    """
    package = cast("rtx_api.RtxPackage", trt)
    validity, bits = cast("rtx_api.Runtime", runtime).get_engine_validity(plan)
    if validity == package.EngineValidity.VALID:
        return
    found = reasons(package, bits)
    if validity == package.EngineValidity.SUBOPTIMAL:
        said = "; ".join(found.values()) or "TensorRT-RTX gives no reason"
        caution(f"{quoted(where)}: runs, but not as fast as an engine for this device: {said}")
        return
    said = "; ".join(found.values()) or log.reason()
    message = f"{quoted(where)}: TensorRT-RTX cannot run it here: {said}"
    if _MALFORMED in found:
        raise InvalidBundle(message, hint=_BUILD)
    hint = next((_HINTS[name] for name in found if name in _HINTS), None)
    raise RuntimeMissing(
        message, hint=hint or (_BUILD if found else "it needs an NVIDIA device and its driver")
    )


def reasons(package: rtx_api.RtxPackage, bits: int) -> dict[str, str]:
    """What diagnostics say, in words, by their names."""
    diagnostics = package.EngineInvalidityDiagnostics
    return {
        name: words for name, words in _REASONS.items() if bits & int(getattr(diagnostics, name))
    }
