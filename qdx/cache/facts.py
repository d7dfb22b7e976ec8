"""What results depend on beside their inputs: the code that computes them, and the pixels of images."""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["computing_versions", "images_digest"]

_LIBRARIES: Final = ("diffusers", "numpy", "torch", "transformers")
_PARTS: Final = ("qdx", "qdx.exporter", "qdx.targets", "qdx.backends")


def computing_versions() -> dict[str, JsonValue]:
    """Versions of the libraries that compute, and the SHA-256 of qdx's own code: another state of it is another version."""
    found: dict[str, JsonValue] = {"qdx_sha256": _code_digest()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def images_digest(call: dict[str, Any]) -> str:
    """SHA-256 of the pixels of all images in a pipeline call, of which records keep the size alone."""
    from PIL import Image

    digest = hashlib.sha256()
    for name, value in sorted(call.items()):
        for image in value if isinstance(value, list) else [value]:
            if isinstance(image, Image.Image):
                digest.update(f"{name} {image.mode} {image.size};".encode())
                digest.update(image.tobytes())
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
