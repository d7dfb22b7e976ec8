"""What results depend on: the code that computes them, and the values of images and tensors."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx._version import __version__

if TYPE_CHECKING:
    import torch
    from pydantic import JsonValue

__all__ = [
    "computing_versions",
    "images_digest",
    "processor_name",
    "tensor_digest",
    "versions_of",
]

_LIBRARIES: Final = ("diffusers", "numpy", "torch", "transformers")
_CPUINFO: Final = Path("/proc/cpuinfo")
_PARTS: Final = ("qdx", "qdx.exporter", "qdx.targets", "qdx.backends")


def versions_of(*packages: str) -> dict[str, str]:
    """The versions of qdx and of packages, by name."""
    found = {"qdx": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def computing_versions() -> dict[str, JsonValue]:
    """What computes: libraries, the processor's instructions, and qdx's own code, of which another state is another version."""
    import torch

    return {
        **versions_of(*_LIBRARIES),
        "qdx_sha256": _code_digest(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


@functools.cache
def processor_name() -> str:
    """The kind of processor, as precisely as the system tells without being asked by a program of its own."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def images_digest(call: dict[str, Any]) -> str:
    """SHA-256 of all pictures, tensors and arrays in a pipeline call, of which records keep the size alone."""
    digest = hashlib.sha256()
    for name, value in sorted(call.items()):
        _digest_leaves(digest, name, value)
    return digest.hexdigest()


def _digest_leaves(digest: hashlib._Hash, name: str, value: Any) -> None:
    import numpy as np
    import torch
    from PIL import Image

    if isinstance(value, list | tuple):
        for one in value:
            _digest_leaves(digest, name, one)
    elif isinstance(value, Image.Image):
        digest.update(f"{name} {value.mode} {value.size};".encode())
        digest.update(value.tobytes())
    elif isinstance(value, torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(value)
        digest.update(f"{name} {type(value).__name__} {tensor_digest(tensor)};".encode())


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and values, in the order of its dimensions."""
    import torch

    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)};".encode())
    values = tensor.detach().to("cpu").contiguous().reshape(-1)
    digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@functools.cache
def _code_digest() -> str:
    """SHA-256 of every module and data file of the package."""
    import importlib

    digest = hashlib.sha256()
    for part in _PARTS:
        module = importlib.import_module(part)
        assert module.__file__ is not None
        root = Path(module.__file__).parent
        for path in sorted(root.rglob("*")):
            if path.suffix in {".py", ".json", ".toml"} and path.is_file():
                digest.update(f"{part}/{path.relative_to(root).as_posix()};".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
