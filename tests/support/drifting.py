"""Bundles that were made otherwise than they say: another artifact, another manifest, and every digest right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from qdx.bundle.manifest import MANIFEST_NAME
from qdx.bundle.seal import SEAL, seal_of
from qdx.exporter.files import sha256_file


def edited(bundle: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> Path:
    """Changes a manifest, and lists its files anew.

    Args:
        bundle: The bundle.
        change: Of the manifest.
        seal: Whether its digests are computed again too.
    """
    path = bundle / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    change(manifest)
    for one in manifest["files"]:
        file = bundle / one["path"]
        one.update(size_bytes=file.stat().st_size, sha256=sha256_file(file))
    path.write_text(json.dumps({**manifest, SEAL: seal_of(manifest)} if seal else manifest))
    return bundle


def drifted(bundle: Path, factor: float = 1.2) -> Path:
    """Makes the floats of an ONNX artifact larger, scales of weights above all, as a converter's fault would."""
    path = next(bundle.glob("unet/**/*.onnx"))
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor) * factor
            tensor.CopyFrom(numpy_helper.from_array(values.astype("float32"), tensor.name))
    for leftover in path.parent.glob("*_data"):
        leftover.write_bytes(b"none")
    onnx.save(model, path)
    return edited(bundle, lambda _: None)
