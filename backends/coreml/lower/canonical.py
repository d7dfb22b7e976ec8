"""Packages on the disk: the same program is the same bytes, on any day and in any folder."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qdx.exporter.errors import StorageError
from qdx.exporter.files import dump_json

__all__ = ["MODEL_PATH", "WEIGHTS_FOLDER", "name_constants", "write_package"]

_AUTHOR: Final = "com.apple.CoreML"
WEIGHTS_FOLDER: Final = f"Data/{_AUTHOR}/weights"
MODEL_PATH: Final = f"Data/{_AUTHOR}/model.mlmodel"
_NAMESPACE: Final = uuid.UUID("6f1c6a0e-8a0c-5d0e-9d8a-0d4c5b1f7a53")
_NUMBERED: Final = re.compile(r"const_[0-9]+(_to_[a-z0-9]+)?")


def name_constants(program: Any) -> None:
    """Numbers constants without a name of their own in the order of the program, in place.

    coremltools numbers them as it makes them, and one of its passes goes through sets of objects: its order is
    that of their addresses.
    """
    for function in program.functions.values():
        operations = list(function.operations)
        numbered = [
            op for op in operations if op.op_type == "const" and _NUMBERED.fullmatch(op.name)
        ]
        taken = {name for op in operations for name in (op.name, *(v.name for v in op.outputs))}
        taken |= set(function.inputs)
        free = (name for count in itertools.count() if (name := f"constant_{count}") not in taken)
        for op, name in zip(numbered, free, strict=False):
            op.name = name
            op.outputs[0].name = name


def write_package(model: Any, package: Path, metadata: Mapping[str, str]) -> None:
    """Writes what belongs beside the weights, which lie in the package already.

    Args:
        model: The specification; its metadata is replaced.
        package: The package's folder.
        metadata: Texts that the package carries, by key.

    Raises:
        StorageError: The disk refused.
    """
    model.description.metadata.Clear()
    model.description.metadata.userDefined.update(metadata)
    items = {f"{_AUTHOR}/model.mlmodel": "CoreML Model Specification"}
    if _has_weights(package / WEIGHTS_FOLDER):
        items[f"{_AUTHOR}/weights"] = "CoreML Model Weights"
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            _identifier(path): {
                "author": _AUTHOR,
                "description": description,
                "name": path.rpartition("/")[2],
                "path": path,
            }
            for path, description in items.items()
        },
        "rootModelIdentifier": _identifier(next(iter(items))),
    }
    try:
        (package / MODEL_PATH).write_bytes(model.SerializeToString(deterministic=True))
        (package / "Manifest.json").write_bytes(dump_json(manifest))
    except OSError as error:
        raise StorageError(f"`{package.name}`: {error.strerror}") from error


def _has_weights(folder: Path) -> bool:
    """Whether there are any; a program keeps short constants itself, and then the folder goes."""
    try:
        if any(folder.iterdir()):
            return True
        folder.rmdir()
    except OSError as error:
        raise StorageError(f"`{folder.name}`: {error.strerror}") from error
    return False


def _identifier(path: str) -> str:
    """An item's identifier: unique in its package is all that it must be."""
    return str(uuid.uuid5(_NAMESPACE, path)).upper()
