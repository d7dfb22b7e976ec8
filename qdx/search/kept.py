"""Measured assignments kept on disk, each in a file named by its digest: a search that was interrupted measures none twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from qdx.cache.keys import key_of
from qdx.exporter.files import replace_file
from qdx.search.ledger import Measure, Measured
from qdx.search.problem import Assignment

__all__ = ["kept"]

_NOISE: Final = "noise."
_ERRORS: Final = "errors."


def kept(measure: Measure, folder: Path, basis: str) -> Measure:
    """Returns a function that measures only what a folder does not hold yet.

    Files are complete or absent, so that several processes may share the folder. One that is damaged is measured again.

    Args:
        measure: Measures assignments.
        folder: An existing folder.
        basis: Digest of all else that a measurement depends on: the analysis, and what measures.
    """

    def known_or_measured(assignments: Sequence[Assignment]) -> list[Measured]:
        paths = [folder / f"{_digest(one, basis)}.safetensors" for one in assignments]
        found = [_read(path) for path in paths]
        missing = [place for place, one in enumerate(found) if one is None]
        if missing:
            measured = measure([assignments[place] for place in missing])
            for place, one in zip(missing, measured, strict=True):
                replace_file(paths[place], _bytes(one))
                found[place] = one
        return [one for one in found if one is not None]

    return known_or_measured


def _digest(assignment: Assignment, basis: str) -> str:
    return key_of({"assignment": list(assignment), "basis": basis})


def _bytes(one: Measured) -> bytes:
    tensors = {f"{_NOISE}{name}": np.array([value]) for name, value in one.noise.items()}
    for name, errors in (one.errors or {}).items():
        tensors[f"{_ERRORS}{name}"] = np.ascontiguousarray(errors)
    data: bytes = save(tensors)
    return data


def _read(path: Path) -> Measured | None:
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError):
        return None
    noise = {
        name.removeprefix(_NOISE): float(value[0])
        for name, value in tensors.items()
        if name.startswith(_NOISE) and value.shape == (1,)
    }
    if not noise or not all(np.isfinite(value).all() for value in tensors.values()):
        return None
    errors = {
        name.removeprefix(_ERRORS): value
        for name, value in tensors.items()
        if name.startswith(_ERRORS)
    }
    return Measured(noise, errors or None)
