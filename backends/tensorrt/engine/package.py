"""The packages `tensorrt` and `tensorrt_rtx` as types say they are, and the device they run on."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final, Protocol, cast

from qdx.backends.tensorrt.engine import api, build_api
from qdx.backends.tensorrt.flavour import ENTERPRISE, Flavour
from qdx.backends.tensorrt.versions import Version, version_of
from qdx.exporter.errors import RuntimeMissing, first_line

__all__ = [
    "TensorRt",
    "compute_capability",
    "device_name",
    "has_device",
    "installed_version",
    "tensorrt",
]

_DEVICE_HINT: Final = "engines are built and run on the NVIDIA device that they are for"


class TensorRt(Protocol):
    """What the package exports, as far as qdx names it."""

    __version__: str
    Builder: Callable[[api.ILogger], build_api.Builder]
    BuilderFlag: build_api.BuilderFlag
    DataType: api.DataType
    HardwareCompatibilityLevel: build_api.HardwareCompatibilityLevel
    ILogger: type[api.ILogger]
    IProfiler: type[api.IProfiler]
    LayerInformationFormat: api.LayerInformationFormat
    MemoryPoolType: build_api.MemoryPoolType
    NetworkDefinitionCreationFlag: build_api.NetworkDefinitionCreationFlag
    OnnxParser: Callable[[build_api.INetworkDefinition, api.ILogger], build_api.OnnxParser]
    OnnxParserRefitter: Callable[[api.Refitter, api.ILogger], api.OnnxParserRefitter]
    ProfilingVerbosity: build_api.ProfilingVerbosity
    Refitter: Callable[[api.ICudaEngine, api.ILogger], api.Refitter]
    Runtime: Callable[[api.ILogger], api.Runtime]
    TensorIOMode: api.TensorIOMode
    TensorLocation: api.TensorLocation
    init_libnvinfer_plugins: Callable[[api.ILogger, str], bool]


def tensorrt(flavour: Flavour = ENTERPRISE) -> TensorRt:
    """Imports the package of a flavour.

    Raises:
        RuntimeMissing: It, or a library that it needs, is not installed, or its version is not supported.
    """
    try:
        package = cast("TensorRt", importlib.import_module(flavour.module))
    except ImportError as error:
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == flavour.module
        again = f'pip install --force-reinstall "{flavour.distribution}{flavour.supported}"'
        raise RuntimeMissing(
            f"{flavour.title} needs the package {flavour.module}: {first_line(error)}",
            hint=f'pip install "qdx[{flavour.extra}]"' if is_absent else again,
        ) from error
    found = version_of(package.__version__)
    if found not in flavour.supported:
        raise RuntimeMissing(
            f"the package {flavour.module} has version {package.__version__}, expected "
            f"{flavour.supported}: {flavour.supported_why}",
            hint=f'pip install "{flavour.distribution}{flavour.supported}"',
        )
    return package


def installed_version(flavour: Flavour = ENTERPRISE) -> tuple[str, Version]:
    """Returns the package's version, in full and in short; raises like `tensorrt`."""
    full = tensorrt(flavour).__version__
    return full, version_of(full)


def compute_capability(device: int = 0) -> tuple[int, int]:
    """Returns what a device computes, such as (8, 9).

    Raises:
        RuntimeMissing: PyTorch sees no such device.
    """
    import torch

    _check_device(device)
    major, minor = torch.cuda.get_device_capability(device)
    return major, minor


def has_device() -> bool:
    """Whether PyTorch sees an NVIDIA device."""
    import torch

    return torch.cuda.is_available()


def device_name(device: int = 0) -> str:
    """Returns the device's name; raises like `compute_capability`."""
    import torch

    _check_device(device)
    return str(torch.cuda.get_device_name(device))


def _check_device(device: int) -> None:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device >= count:
        built = "" if torch.version.cuda else "; this PyTorch is built without CUDA"
        raise RuntimeMissing(
            f"no NVIDIA device {device}: PyTorch sees {count}{built}", hint=_DEVICE_HINT
        )
